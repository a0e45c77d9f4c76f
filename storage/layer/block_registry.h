#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "base/result.h"
#include "storage/block/block_file.h"

namespace ivmm::storage {

/// The block files of one layer that are in use or not flushed yet: one object for each inode of
/// the layer's file system. Any thread.
class BlockRegistry {
 public:
    using Open = std::function<Result<std::shared_ptr<BlockFile>>()>;

    /// The present one, or the one that `open` makes. `open` runs without the registry's lock, but
    /// others who want the same inode wait for it.
    Result<std::shared_ptr<BlockFile>> get(uint64_t inode, const Open& open);
    /// Keeps a file alive until flush() has flushed it. To be called after the write, and while
    /// the writer still holds the file.
    void keep(uint64_t inode, std::shared_ptr<BlockFile> file);
    /// Flushes all that are dirty, and lets go of the kept ones that nobody has changed since. The
    /// first error is given; the others are tried all the same.
    PosixResult<void> flush();

 private:
    struct Entry {
        std::mutex opening;  ///< guards `file`; before the registry's mutex_
        std::weak_ptr<BlockFile> file;
        std::shared_ptr<BlockFile> kept;  ///< guarded by mutex_
    };

    void forget_unused();

    std::mutex mutex_;
    std::map<uint64_t, std::shared_ptr<Entry>> entries_;
    size_t forget_at_ = 64;  ///< entries that are worth a look for unused ones
};

}  // namespace ivmm::storage
