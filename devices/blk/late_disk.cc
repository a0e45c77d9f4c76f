#include "devices/blk/late_disk.h"

#include <sys/epoll.h>

namespace ivmm {

Result<std::unique_ptr<LateDisk>> LateDisk::create(uint64_t size, bool read_only, size_t capacity) {
    UniqueFd completions(::epoll_create1(EPOLL_CLOEXEC));
    if (!completions) {
        return fail_errno("cannot create an epoll set");
    }
    return std::unique_ptr<LateDisk>(
        new LateDisk(size, read_only, capacity, std::move(completions)));
}

Result<void> LateDisk::plug(std::unique_ptr<BlockBackend> disk) {
    if (disk_) {
        return fail("disk {} is there already", disk_->name());
    }
    if (disk->size() != size_ || disk->read_only() != read_only_ || disk->capacity() < capacity_ ||
        (!read_only_ && !disk->can_discard())) {
        return fail("disk {} has {} bytes{}; the guest knows it with {}{}", disk->name(),
                    disk->size(), disk->read_only() ? ", read-only" : "", size_,
                    read_only_ ? ", read-only" : "");
    }
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(completions_.get(), EPOLL_CTL_ADD, disk->completion_fd(), &event) != 0) {
        return fail_errno("cannot watch disk {}", disk->name());
    }
    disk_ = std::move(disk);
    return {};
}

}  // namespace ivmm
