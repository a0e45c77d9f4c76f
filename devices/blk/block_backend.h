#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace ivmm {

/// What a block device stands on: a disk of a fixed size that works asynchronously. Device loop
/// only.
class BlockBackend {
 public:
    enum class Operation {
        kRead,
        kWrite,
        kFlush,        ///< makes all completed writes durable
        kDiscard,      ///< the content of the range is of no interest any more
        kWriteZeroes,  ///< the range reads as zeroes afterwards
    };

    struct Request {
        Operation operation = Operation::kFlush;
        uint64_t token = 0;   ///< comes back in the Completion
        uint64_t offset = 0;  ///< bytes; the range lies within the disk
        uint64_t length = 0;  ///< bytes; of the buffers together for reads and writes
        /// Valid until the completion.
        std::vector<iovec> buffers;
        /// Of a write: durable when it completes.
        bool durable = false;
        /// Of kWriteZeroes: the range may lose its storage.
        bool may_deallocate = false;
    };

    struct Completion {
        uint64_t token;
        int error;  ///< 0 or an errno
    };

    virtual ~BlockBackend() = default;

    /// What it is, for messages: a path.
    virtual std::string_view name() const = 0;
    /// Bytes, a multiple of 512.
    virtual uint64_t size() const = 0;
    virtual bool read_only() const = 0;
    /// Whether kDiscard and kWriteZeroes are possible.
    virtual bool can_discard() const = 0;
    virtual bool can_write_zeroes() const = 0;
    /// How many requests may be between submit() and their completion.
    virtual size_t capacity() const = 0;

    /// Takes a request; it may start at once or with commit().
    virtual void submit(Request request) = 0;
    /// Starts everything that was submitted.
    virtual void commit() = 0;

    /// Readable when poll() may have something to report.
    virtual int completion_fd() const = 0;
    /// Appends what has completed.
    virtual void poll(std::vector<Completion>& out) = 0;
    /// As poll(), but waits for at least one completion. Only while requests are in flight.
    virtual void wait(std::vector<Completion>& out) = 0;
};

}  // namespace ivmm
