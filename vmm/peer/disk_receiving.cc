#include "vmm/peer/disk_receiving.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/utc_time.h"
#include "vmm/fork/clone_removal.h"
#include "vmm/peer/packing.h"
#include "vmm/peer/shared_view.h"

namespace ivmm::peer {
namespace {

constexpr const char* kSent = "sent";
constexpr const char* kOverlay = "overlay";
constexpr const char* kShared = "shared";

Result<uint64_t> free_bytes(const std::string& folder) {
    struct statvfs info {};
    if (::statvfs(folder.c_str(), &info) != 0) {
        return fail_errno("cannot find out how much space is left in '{}'", folder);
    }
    return uint64_t{info.f_bavail} * info.f_frsize;
}

bool is_zero(ConstByteSpan bytes) {
    return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

Result<void> write_at(int file, ConstByteSpan bytes, uint64_t at) {
    while (!bytes.empty()) {
        const ssize_t n = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fail_errno("cannot write what is received of a disk");
        }
        bytes = bytes.subspan(static_cast<size_t>(n));
        at += static_cast<uint64_t>(n);
    }
    return {};
}

bool is_file_of(const std::string& path, uint64_t size) {
    struct stat info {};
    return !path.empty() && ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
           static_cast<uint64_t>(info.st_size) == size;
}

}  // namespace

std::string find_shared(const std::vector<SharedFolder>& shared, const std::string& path) {
    for (const auto& folder : shared) {
        if (!path.starts_with(folder.there + "/")) {
            continue;
        }
        std::error_code error;
        const auto found =
            std::filesystem::canonical(folder.here + path.substr(folder.there.size()), error);
        if (!error && found.string().starts_with(folder.here + "/")) {
            return found.string();
        }
    }
    return {};
}

Result<std::unique_ptr<DiskReceiving>> DiskReceiving::begin(const std::string& clone,
                                                            const std::string& primary,
                                                            const DiskPlaces& places) {
    IVMM_ASSIGN(auto claim, CloneClaim::take(clone));
    if (::access(clone_record_path(clone).c_str(), F_OK) == 0) {
        return fail("there is a clone '{}' already", clone);
    }
    auto self = std::unique_ptr<DiskReceiving>(new DiskReceiving(std::move(claim), places));
    self->record_.clone = clone;
    self->record_.primary = primary;
    self->record_.created = utc_time();
    IVMM_TRY(write_clone_record(self->record_));
    return self;
}

DiskReceiving::~DiskReceiving() {
    if (kept_) {
        return;
    }
    incoming_.clear();
    if (const auto removed = remove_claimed_clone_disks(record_, /*force=*/true); !removed) {
        log::error("{}; `ivmm rm {}` tries it again", removed.error().message, record_.clone);
    }
}

Result<Wanted> DiskReceiving::take_offer(const Disks& offer, const std::vector<DiskConfig>& disks,
                                         const std::vector<uint64_t>& sizes) {
    if (offered_ || offer.paths.size() != disks.size() || offer.data_bytes.size() != disks.size() ||
        sizes.size() != disks.size()) {
        return fail("{} disks were offered, the guest has {}", offer.paths.size(), disks.size());
    }
    offered_ = true;
    Wanted wanted;
    for (size_t i = 0; i < disks.size(); ++i) {
        const auto path = find_shared(places_.shared, offer.paths[i]);
        const bool reachable = is_file_of(path, sizes[i]);
        wanted.send.push_back(reachable ? 0 : 1);
        if (reachable) {
            IVMM_TRY(use_shared(path, disks[i].read_only));
        } else {
            IVMM_TRY(await(offer.paths[i], sizes[i], offer.data_bytes[i]));
        }
    }
    return wanted;
}

Result<void> DiskReceiving::use_shared(const std::string& path, bool read_only) {
    incoming_.emplace_back();
    incoming_.back().done = true;
    if (read_only) {
        record_.disks.push_back({kShared, path, path});
        return {};
    }
    const std::string mountpoint = fmt::format("{}/{}", claim_.folder(), record_.views.size());
    IVMM_ASSIGN(const auto store, shared_store(places_.folder, path));
    std::string name = record_.clone;
    if (!record_.views.empty()) {
        name += fmt::format(".{}", record_.views.size());
    }
    record_.views.push_back({store, name, mountpoint, 0});
    const std::string file = mountpoint + "/" + std::filesystem::path(path).filename().string();
    record_.disks.push_back({kOverlay, path, file});
    IVMM_TRY(write_clone_record(record_));
    IVMM_ASSIGN(record_.views.back().server_pid,
                mount_shared_view(std::filesystem::path(path).parent_path().string(),
                                  record_.views.back()));
    return write_clone_record(record_);
}

Result<void> DiskReceiving::await(const std::string& source, uint64_t size, uint64_t data_bytes) {
    if (places_.folder.empty()) {
        return fail(
            "this host takes no disks: its `ivmm standby --listen` was started without "
            "--disks");
    }
    IVMM_ASSIGN(const uint64_t left, free_bytes(places_.folder));
    if (data_bytes > size || data_bytes > left || announced_ > left - data_bytes) {
        return fail("there is too little space in '{}': the clone's disks need {} bytes, it has {}",
                    places_.folder, announced_ + data_bytes, left);
    }
    announced_ += data_bytes;
    Incoming incoming;
    incoming.size = size;
    incoming.left = data_bytes;
    const std::string path =
        fmt::format("{}/{}.{}.img", places_.folder, record_.clone, incoming_.size());
    incoming.file.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!incoming.file) {
        return fail_errno("cannot create '{}' for a disk", path);
    }
    record_.disks.push_back({kSent, source, path});
    if (::ftruncate(incoming.file.get(), static_cast<off_t>(size)) != 0) {
        return fail_errno("cannot make '{}' {} bytes long", path, size);
    }
    incoming_.push_back(std::move(incoming));
    return write_clone_record(record_);
}

Result<void> DiskReceiving::take_data(const DiskData& data, ConstByteSpan tail) {
    if (data.disk >= incoming_.size() || incoming_[data.disk].done) {
        return fail("data of disk {} were not asked for", data.disk);
    }
    Incoming& disk = incoming_[data.disk];
    if (data.bytes == 0) {
        disk.done = true;
        return {};
    }
    if (data.bytes > kMaxPiece || data.bytes > disk.left || data.offset > disk.size ||
        data.bytes > disk.size - data.offset) {
        return fail("disk {} has no {} bytes at {}", data.disk, data.bytes, data.offset);
    }
    disk.left -= data.bytes;
    std::vector<std::byte> content(data.bytes);
    IVMM_TRY(unpack(tail, content));
    return is_zero(content) ? Result<void>() : write_at(disk.file.get(), content, data.offset);
}

Result<std::vector<ForkedDisk>> DiskReceiving::finish() {
    std::vector<ForkedDisk> disks;
    for (size_t i = 0; i < incoming_.size(); ++i) {
        if (!incoming_[i].done) {
            return fail("disk {} was not sent to its end", i);
        }
        disks.push_back({record_.disks[i].path, record_.disks[i].method});
    }
    record_.complete = true;
    IVMM_TRY(write_clone_record(record_));
    return disks;
}

}  // namespace ivmm::peer
