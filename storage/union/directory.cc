#include "storage/union/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <unordered_set>

#include "storage/union/object.h"

namespace ivmm::storage {

PosixResult<void> for_each_entry(
    int directory, const std::function<PosixResult<void>(const Listing::Item&)>& visit) {
    constexpr size_t kBufferSize = 128 << 10;
    if (::lseek(directory, 0, SEEK_SET) < 0) {
        return last_posix_error();
    }
    std::vector<std::byte> buffer(kBufferSize);
    Listing::Item item;
    while (true) {
        const ssize_t n = ::getdents64(directory, buffer.data(), buffer.size());
        if (n <= 0) {
            return n == 0 ? PosixResult<void>() : last_posix_error();
        }
        for (size_t at = 0; at < static_cast<size_t>(n);) {
            const ConstByteSpan record = ByteSpan(buffer).subspan(at);
            at += load_at<unsigned short>(record, offsetof(dirent64, d_reclen));
            // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the kernel ends it with
            // 0
            item.name = reinterpret_cast<const char*>(record.data() + offsetof(dirent64, d_name));
            if (item.name == "." || item.name == "..") {
                continue;
            }
            item.inode = load_at<uint64_t>(record, offsetof(dirent64, d_ino));
            item.type = load_at<unsigned char>(record, offsetof(dirent64, d_type));
            IVMM_TRY(visit(item));
        }
    }
}

PosixResult<std::vector<Listing::Part>> Listing::open_parts(const std::vector<Place>& places) {
    std::vector<Part> parts;
    parts.reserve(places.size());
    for (const Place& place : places) {
        const At at = place.at();
        UniqueFd directory(::openat(at.dir, at.path[0] == '\0' ? "." : at.path,
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!directory) {
            return last_posix_error();
        }
        const bool impure =
            place.layer->in_store() && place.layer->marks().is_impure({directory.get(), ""});
        parts.push_back({std::move(directory), place.layer, impure});
    }
    return parts;
}

bool Listing::is_of(const std::vector<Place>& places) const {
    return std::ranges::equal(parts_, places, {}, &Part::layer, &Place::layer);
}

PosixResult<void> Listing::rewind() {
    items_.clear();
    std::unordered_set<std::string> seen;  // whiteouts included
    const bool merged = parts_.size() > 1;
    for (const Part& part : parts_) {
        const bool bottom = &part == &parts_.back();
        const int fd = part.directory.get();
        IVMM_TRY(for_each_entry(fd, [&](const Item& found) -> PosixResult<void> {
            if (merged && (bottom ? seen.contains(found.name) : !seen.insert(found.name).second)) {
                return {};
            }
            Item item = found;
            if (item.type == DT_CHR || item.type == DT_UNKNOWN) {
                const auto attributes = stat_object({fd, item.name.c_str()});
                if (!attributes || is_whiteout(*attributes)) {
                    return {};
                }
                item.type = static_cast<unsigned char>(IFTODT(attributes->st_mode));
            }
            std::optional<uint64_t> origin;
            if ((merged && part.layer->in_store()) || part.impure) {
                origin = part.layer->marks().origin_inode({fd, item.name.c_str()});
            }
            item.inode = origin.value_or(union_inode(*part.layer, item.inode));
            items_.push_back(std::move(item));
            return {};
        }));
    }
    return {};
}

}  // namespace ivmm::storage
