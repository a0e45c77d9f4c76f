#include "vmm/peer/disk_sending.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/fork/sparse_copy.h"
#include "vmm/peer/packing.h"

namespace ivmm::peer {
namespace {

Result<void> read_at(int file, ByteSpan out, off_t at, const std::string& path) {
    while (!out.empty()) {
        const ssize_t n = ::pread(file, out.data(), out.size(), at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? fail_errno("cannot read disk '{}'", path)
                         : fail("disk '{}' has become shorter", path);
        }
        out = out.subspan(static_cast<size_t>(n));
        at += n;
    }
    return {};
}

}  // namespace

Result<DiskSending> DiskSending::open(const std::vector<std::string>& paths) {
    DiskSending sending;
    sending.offer_.paths = paths;
    for (const auto& path : paths) {
        UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!file) {
            return fail_errno("cannot open disk '{}' to send it", path);
        }
        IVMM_ASSIGN(const uint64_t bytes, data_bytes(file.get()));
        sending.offer_.data_bytes.push_back(bytes);
        sending.files_.push_back(std::move(file));
    }
    return sending;
}

Result<void> DiskSending::send(Link& link, const std::vector<uint8_t>& wanted) const {
    std::vector<std::byte> buffer(kMaxPiece);
    for (uint32_t disk = 0; disk < files_.size(); ++disk) {
        if (wanted[disk] == 0) {
            continue;
        }
        const int file = files_[disk].get();
        const auto send_range = [&](off_t at, off_t end) -> Result<void> {
            while (at < end) {
                const auto size = std::min<size_t>(kMaxPiece, static_cast<size_t>(end - at));
                const ByteSpan piece = ByteSpan(buffer).first(size);
                IVMM_TRY(read_at(file, piece, at, offer_.paths[disk]));
                IVMM_TRY(link.send(
                    DiskData{disk, static_cast<uint64_t>(at), static_cast<uint32_t>(size)},
                    pack(piece)));
                // The other side has nothing to say, but that it fails.
                IVMM_ASSIGN(const bool answered, link.wait_readable(Link::Milliseconds{0}));
                if (answered) {
                    IVMM_ASSIGN(const auto failed, link.receive<Failed>(TlsStream::kStall));
                    return fail("{}: {}", link.name(), printable(failed.reason));
                }
                at += static_cast<off_t>(size);
            }
            return {};
        };
        IVMM_TRY(for_each_data(file, send_range));
        IVMM_TRY(link.send(DiskData{disk, 0, 0}));
    }
    return {};
}

}  // namespace ivmm::peer
