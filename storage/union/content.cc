#include "storage/union/content.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cerrno>

#include "storage/union/object.h"

namespace ivmm::storage {
namespace {

/// Repeats a system call that a signal has interrupted.
template <class Call>
auto retry(Call call) {
    auto result = call();
    while (result < 0 && errno == EINTR) {
        result = call();
    }
    return result;
}

}  // namespace

void Content::keep_until_flushed() {
    if (blocks_ && blocks_->dirty()) {
        layer_->keep_until_flushed(inode_, blocks_);
    }
}

PosixResult<size_t> Content::read(uint64_t offset, ByteSpan out) const {
    if (blocks_) {
        return blocks_->read(offset, out);
    }
    size_t done = 0;
    while (done < out.size()) {
        const ssize_t n = retry([&] {
            return ::pread(file_.get(), out.data() + done, out.size() - done,
                           static_cast<off_t>(offset + done));
        });
        if (n < 0) {
            return last_posix_error();
        }
        if (n == 0) {
            break;
        }
        done += static_cast<size_t>(n);
    }
    return done;
}

PosixResult<void> Content::write(uint64_t offset, ConstByteSpan data) {
    if (blocks_) {
        return blocks_->write(offset, data);
    }
    while (!data.empty()) {
        const ssize_t n = retry([&] {
            return ::pwrite(file_.get(), data.data(), data.size(), static_cast<off_t>(offset));
        });
        if (n <= 0) {
            return n < 0 ? last_posix_error() : posix_error(EIO);
        }
        data = data.subspan(static_cast<size_t>(n));
        offset += static_cast<uint64_t>(n);
    }
    return {};
}

PosixResult<void> Content::truncate(uint64_t size) {
    if (blocks_) {
        return blocks_->truncate(size);
    }
    return outcome(retry([&] { return ::ftruncate(file_.get(), static_cast<off_t>(size)); }));
}

PosixResult<void> Content::allocate(int mode, uint64_t offset, uint64_t length) {
    if (!blocks_) {
        return outcome(retry([&] {
            return ::fallocate(file_.get(), mode, static_cast<off_t>(offset),
                               static_cast<off_t>(length));
        }));
    }
    const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
        case 0:
            return blocks_->allocate(offset, length, keep_size);
        case FALLOC_FL_ZERO_RANGE:
            return blocks_->zero(offset, length, keep_size);
        case FALLOC_FL_PUNCH_HOLE:
            if (keep_size) {
                return blocks_->zero(offset, length, true);
            }
            [[fallthrough]];
        default:
            return posix_error(EOPNOTSUPP);
    }
}

PosixResult<uint64_t> Content::seek(uint64_t offset, int whence) const {
    if (blocks_) {
        return whence == SEEK_DATA ? blocks_->seek_data(offset) : blocks_->seek_hole(offset);
    }
    const off_t found = ::lseek(file_.get(), static_cast<off_t>(offset), whence);
    if (found < 0) {
        return last_posix_error();
    }
    return static_cast<uint64_t>(found);
}

PosixResult<void> Content::sync(bool data_only) {
    if (blocks_) {
        IVMM_TRY(blocks_->flush());
        return data_only ? PosixResult<void>() : outcome(::fsync(blocks_->data_fd()));
    }
    return outcome(data_only ? ::fdatasync(file_.get()) : ::fsync(file_.get()));
}

}  // namespace ivmm::storage
