#include "devices/blk/uring_disk.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <climits>
#include <thread>

namespace ivmm {
namespace {

constexpr uint64_t kSector = 512;
constexpr int kRegisteredFile = 0;
/// How often an operation is tried again that the host has interrupted.
constexpr uint32_t kMaxRetries = 64;

/// Zeroes to write where the file system cannot make them by itself. Never written to.
std::array<std::byte, 256 << 10> zeroes;

Result<uint64_t> size_of(int fd, const struct stat& status, const std::string& path) {
    if (!S_ISBLK(status.st_mode)) {
        return static_cast<uint64_t>(status.st_size);
    }
    uint64_t size = 0;
    if (::ioctl(fd, BLKGETSIZE64, &size) != 0) {
        return fail_errno("cannot find the size of {}", path);
    }
    return size;
}

int set_lock(int fd, short type) {
    struct flock range {};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    return ::fcntl(fd, F_OFD_SETLK, &range);
}

Result<void> lock(int fd, bool read_only, const std::string& path) {
    // The kernel takes a dead process's io_uring apart a little after its end, and the lock lives
    // until then: a guest that is started again at once must not fail for that.
    for (int attempt = 0; attempt < 20; ++attempt) {
        if (set_lock(fd, read_only ? F_RDLCK : F_WRLCK) == 0) {
            return {};
        }
        if (errno != EAGAIN && errno != EACCES) {
            return fail_errno("cannot lock disk {}", path);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return fail("disk {} is in use by another guest or program{}", path,
                read_only ? " that writes to it" : "; only read-only disks can be shared");
}

/// Through the page cache, a FUSE file system gets one write to a file at a time, and everything is
/// kept twice. Unlike others, it takes direct I/O of any alignment.
bool wants_direct_io(const std::string& path) {
    struct statfs file_system {};
    return ::statfs(path.c_str(), &file_system) == 0 && file_system.f_type == FUSE_SUPER_MAGIC;
}

Unexpected cannot_open(const std::string& path) {
    auto failure = fail_errno("cannot open disk {}", path);
    failure.error.kind = ErrorKind::kUsage;
    return failure;
}

}  // namespace

Result<std::unique_ptr<UringDisk>> UringDisk::open(const std::string& path, bool read_only,
                                                   uint32_t depth) {
    // Looked at before it is opened: opening a FIFO or a terminal would wait, or worse.
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return cannot_open(path);
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return fail_as(ErrorKind::kUsage, "disk {} is {}, not a file or a block device", path,
                       S_ISDIR(status.st_mode) ? "a directory" : "something else");
    }
    const int direct = wants_direct_io(path) ? O_DIRECT : 0;
    UniqueFd file(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | direct | O_CLOEXEC));
    if (!file) {
        return cannot_open(path);
    }
    if (::fstat(file.get(), &status) != 0) {
        return cannot_open(path);
    }
    IVMM_ASSIGN(const uint64_t size, size_of(file.get(), status, path));
    if (size == 0) {
        return fail_as(ErrorKind::kUsage, "disk {} is empty", path);
    }
    if (size % kSector != 0) {
        return fail_as(ErrorKind::kUsage,
                       "disk {} has {} bytes, which is no multiple of 512: is it a disk image?",
                       path, size);
    }
    IVMM_TRY(lock(file.get(), read_only, path));
    IVMM_ASSIGN(auto completed, EventFd::create());
    auto disk = std::unique_ptr<UringDisk>(
        new UringDisk(path, std::move(file), size, read_only, std::move(completed), depth));
    IVMM_TRY(disk->start_ring());
    return disk;
}

Result<void> UringDisk::start_ring() {
    const auto check = [](int result, const char* what) -> Result<void> {
        if (result >= 0) {
            return {};
        }
        errno = -result;
        auto failure = fail_errno("{}", what);
        if (result == -ENOSYS || result == -EPERM) {
            failure.error.kind = ErrorKind::kHost;
            failure.error.message += " (is it allowed? see sysctl kernel.io_uring_disabled)";
        }
        return failure;
    };
    IVMM_TRY(check(::io_uring_queue_init(static_cast<unsigned>(slots_.size()), &ring_, 0),
                   "cannot set up io_uring for disks"));
    ring_started_ = true;
    const int fd = file_.get();
    IVMM_TRY(check(::io_uring_register_files(&ring_, &fd, 1), "cannot register a disk's file"));
    IVMM_TRY(check(::io_uring_register_eventfd(&ring_, completed_.fd()),
                   "cannot register an eventfd with io_uring"));
    for (size_t i = slots_.size(); i > 0; --i) {
        free_.push_back(i - 1);
    }
    return {};
}

UringDisk::~UringDisk() {
    // Not left to the end of the file, for the reason given in lock().
    set_lock(file_.get(), F_UNLCK);
    if (ring_started_) {
        ::io_uring_queue_exit(&ring_);
    }
}

void UringDisk::submit(Request request) {
    assert(!free_.empty());
    const size_t index = free_.back();
    free_.pop_back();
    slots_[index] = {};
    slots_[index].request = std::move(request);
    prepare(index);
}

void UringDisk::prepare(size_t index) {
    Slot& slot = slots_[index];
    const Request& request = slot.request;
    // Never null: the ring has an entry for each slot, and a slot has one operation at a time.
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    assert(sqe != nullptr);
    const uint64_t offset = request.offset + slot.transferred;
    const uint64_t rest = request.length - slot.transferred;
    const iovec* buffers = request.buffers.data() + slot.first_buffer;
    const auto buffer_count = static_cast<unsigned>(
        std::min<size_t>(request.buffers.size() - slot.first_buffer, IOV_MAX));
    switch (request.operation) {
        case Operation::kRead:
            ::io_uring_prep_readv(sqe, kRegisteredFile, buffers, buffer_count, offset);
            break;
        case Operation::kWrite:
            ::io_uring_prep_writev2(sqe, kRegisteredFile, buffers, buffer_count, offset,
                                    request.durable ? RWF_DSYNC : 0);
            break;
        case Operation::kFlush:
            ::io_uring_prep_fsync(sqe, kRegisteredFile, IORING_FSYNC_DATASYNC);
            break;
        case Operation::kDiscard:
            ::io_uring_prep_fallocate(sqe, kRegisteredFile,
                                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      static_cast<off_t>(offset), static_cast<off_t>(rest));
            break;
        case Operation::kWriteZeroes:
            if (slot.write_zeroes_by_hand) {
                ::io_uring_prep_write(
                    sqe, kRegisteredFile, zeroes.data(),
                    static_cast<unsigned>(std::min<uint64_t>(rest, zeroes.size())), offset);
            } else {
                ::io_uring_prep_fallocate(
                    sqe, kRegisteredFile,
                    (request.may_deallocate ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) |
                        FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(offset), static_cast<off_t>(rest));
            }
            break;
    }
    ::io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    ::io_uring_sqe_set_data64(sqe, index);
}

void UringDisk::commit() {
    if (::io_uring_sq_ready(&ring_) > 0 && ::io_uring_submit(&ring_) < 0) {
        completed_.signal();  // short of memory: again when poll() is called
    }
}

bool UringDisk::advance(size_t index, int result, int& error) {
    Slot& slot = slots_[index];
    Request& request = slot.request;
    error = 0;
    if ((result == -EINTR || result == -EAGAIN) && ++slot.retries <= kMaxRetries) {
        prepare(index);
        return false;
    }
    if (result == -EOPNOTSUPP && request.operation == Operation::kDiscard) {
        return true;  // only advice
    }
    if (result == -EOPNOTSUPP && request.operation == Operation::kWriteZeroes &&
        !slot.write_zeroes_by_hand) {
        slot.write_zeroes_by_hand = true;
        prepare(index);
        return false;
    }
    if (result < 0) {
        error = -result;
        return true;
    }
    const bool transfers = request.operation == Operation::kRead ||
                           request.operation == Operation::kWrite || slot.write_zeroes_by_hand;
    if (!transfers) {
        return true;
    }
    if (result == 0) {
        error = EIO;  // the file has become shorter
        return true;
    }
    auto done = static_cast<uint64_t>(result);
    slot.transferred += done;
    if (slot.transferred == request.length) {
        return true;
    }
    // Short: step over what was transferred and go on.
    while (!slot.write_zeroes_by_hand && done > 0) {
        iovec& buffer = request.buffers[slot.first_buffer];
        const size_t n = std::min<size_t>(done, buffer.iov_len);
        buffer.iov_base = static_cast<std::byte*>(buffer.iov_base) + n;
        buffer.iov_len -= n;
        done -= n;
        slot.first_buffer += buffer.iov_len == 0 ? 1 : 0;
    }
    prepare(index);
    return false;
}

void UringDisk::reap(std::vector<Completion>& out) {
    io_uring_cqe* cqe = nullptr;
    // At most as many as there were slots: what is prepared again is not waited for here.
    for (size_t n = 0; n < slots_.size() && ::io_uring_peek_cqe(&ring_, &cqe) == 0; ++n) {
        const auto index = static_cast<size_t>(::io_uring_cqe_get_data64(cqe));
        const int result = cqe->res;
        ::io_uring_cqe_seen(&ring_, cqe);
        int error = 0;
        if (advance(index, result, error)) {
            out.push_back({slots_[index].request.token, error});
            slots_[index].request.buffers.clear();
            free_.push_back(index);
        }
    }
}

void UringDisk::poll(std::vector<Completion>& out) {
    completed_.drain();
    reap(out);
    commit();
}

void UringDisk::wait(std::vector<Completion>& out) {
    const size_t before = out.size();
    while (out.size() == before) {
        ::io_uring_submit_and_wait(&ring_, 1);
        reap(out);
    }
    commit();
}

}  // namespace ivmm
