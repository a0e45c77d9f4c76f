#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/block/block_file.h"
#include "storage/layer/block_registry.h"
#include "storage/layer/manifest.h"
#include "storage/layer/marks.h"

namespace ivmm::storage {

/// One level of a union: a read-only branch that somebody else has made, or a layer of a Store.
/// Shared by the views that need it. Any thread.
class Layer {
 public:
    /// A read-only branch: any directory.
    static Result<std::shared_ptr<Layer>> open_branch(const std::string& directory,
                                                      uint32_t number);
    /// A layer of a store, from its opened directory. `writable`: claim() is part of it.
    static Result<std::shared_ptr<Layer>> open(UniqueFd directory, const Manifest& manifest,
                                               MarkStyle style, bool writable);
    ~Layer();

    /// Takes a sealed layer of a store out of use: only tree() stays, for inodes that were there.
    /// Until then, others do not delete what the layer has.
    void retire();

    /// Makes sure that no other process writes the layer, nor has maps of it to flush, for as long
    /// as this object lives or until it is sealed; empties work/.
    Result<void> claim();

    /// Unique in its union and kept for ever: branches 1 …, layers of the store from 256 up.
    uint32_t number() const { return number_; }
    /// Of a layer of a store: the number of the layer below, or 0.
    uint32_t parent() const { return parent_; }
    /// For messages: the branch's path, or "layer N".
    const std::string& name() const { return name_; }
    /// Whether it is a layer of a store, which may have maps/ and links/.
    bool in_store() const { return in_store_; }

    /// Directory descriptors for *at() calls. Of a branch: only tree().
    int tree() const { return tree_.get(); }
    int work() const { return work_.get(); }
    int maps() const { return maps_.get(); }
    int links() const { return links_.get(); }
    const Marks& marks() const { return marks_; }

    /// A name that was never used in work/ or maps/ before, by no process.
    static std::string unique_name();

    /// Whether links/ has or may have entries. Once true, true.
    bool has_links() const { return has_links_.load(std::memory_order_relaxed); }
    void note_link() { has_links_ = true; }

    /// The block files of this layer that are in use or not flushed yet, so that all views share
    /// one object for each: by inode number in the layer's file system.
    /// Gives the present one, or makes it with `open`, for which others wait who want the same
    /// inode.
    Result<std::shared_ptr<BlockFile>> block_file(
        uint64_t inode, const std::function<Result<std::shared_ptr<BlockFile>>()>& open);
    /// Keeps a block file of block_file() that has been written alive until flush_block_files() has
    /// flushed it. To be called after the write, while the writer still holds the file.
    void keep_until_flushed(uint64_t inode, std::shared_ptr<BlockFile> file);
    /// Flushes all that are dirty, kept or still in use, and lets go of the kept ones that nobody
    /// has changed since. The first error is given, the others are tried all the same.
    PosixResult<void> flush_block_files();

    /// Frozen: no view writes it any more. Sealed: and all of it is on the medium.
    bool frozen() const { return frozen_; }
    void freeze() { frozen_ = true; }
    bool sealed() const { return sealed_; }
    /// Wakes those in wait_sealed(); with an error, they all get it, for ever. The first call
    /// counts. Ends claim().
    void set_sealed(PosixResult<void> outcome);
    /// Waits until a frozen layer is sealed; at once for branches.
    PosixResult<void> wait_sealed() const;

 private:
    Layer(uint32_t number, std::string name, bool in_store, Marks marks);

    uint32_t number_;
    uint32_t parent_ = 0;
    std::string name_;
    bool in_store_;
    Marks marks_;
    UniqueFd directory_;  ///< of a store: locked while claimed
    UniqueFd tree_;       ///< of a store: its lock is shared by those who have it open sealed
    UniqueFd work_, maps_, links_;
    std::atomic<bool> has_links_ = false;
    std::atomic<bool> frozen_ = false;
    std::atomic<bool> sealed_ = false;
    BlockRegistry block_files_;

    mutable std::mutex seal_mutex_;
    mutable std::condition_variable seal_decided_;
    std::optional<PosixResult<void>> seal_outcome_;  ///< guarded by seal_mutex_
};

}  // namespace ivmm::storage
