#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/gate.h"
#include "base/log.h"
#include "base/result.h"
#include "storage/union/directory.h"
#include "storage/union/inode_table.h"
#include "storage/union/lookup.h"

namespace ivmm::storage {

/// Who asks for something to be created.
struct Caller {
    uid_t uid = 0;
    gid_t gid = 0;
    mode_t umask = 0;
};

class Staged;

/// What setattr changes.
struct AttributeChange {
    std::optional<mode_t> mode;
    std::optional<uid_t> uid;
    std::optional<gid_t> gid;
    std::optional<uint64_t> size;
    std::optional<timespec> atime;  ///< UTIME_NOW is allowed
    std::optional<timespec> mtime;
};

/// One tree of files over a stack of layers, the top one of which it writes (none: read-only).
///
/// Any thread. Inodes stay valid while lookups, opens or names keep them. Errors are the errno of
/// the user's system call.
///
/// Locks, in this order: the gate (an operation's pass; closed during a fork), the tree mutex (all
/// that has to do with names and places), an inode's content mutex. Reading and writing files that
/// need no copy-up take the gate only. Nothing waits for the medium with the gate held.
class View {
 public:
    /// With `writable`, the first layer of the stack is this view's own.
    View(Stack stack, bool writable);
    View(const View&) = delete;
    View& operator=(const View&) = delete;
    ~View();

    /// Gives an empty top layer's root directory the attributes of the one below. To be called
    /// before anything else.
    PosixResult<void> dress_root();

    // --- names (lookup.cc's rules; names.cc)
    Inode& root() { return table_.root(); }
    struct Entry {
        Inode* inode = nullptr;  ///< null: there is no such name
        struct stat attributes {};
    };
    /// Counts a lookup, which forget() gives back.
    PosixResult<Entry> lookup(Inode& directory, const std::string& name);
    void forget(Inode& inode, uint64_t lookups);

    // --- attributes (attributes.cc)
    PosixResult<struct stat> attributes(Inode& inode);
    PosixResult<struct stat> set_attributes(Inode& inode, const AttributeChange& change);
    PosixResult<std::string> read_link(Inode& inode);
    PosixResult<std::optional<std::string>> xattr(Inode& inode, const std::string& name);
    PosixResult<std::vector<std::string>> xattrs(Inode& inode);
    /// `flags`: XATTR_CREATE, XATTR_REPLACE.
    PosixResult<void> set_xattr(Inode& inode, const std::string& name, std::string_view value,
                                int flags);
    PosixResult<void> remove_xattr(Inode& inode, const std::string& name);
    PosixResult<struct statvfs> statistics();

    // --- making (create.cc)
    /// A regular file, fifo, socket or device.
    PosixResult<Entry> make_node(Inode& directory, const std::string& name, mode_t mode,
                                 dev_t device, const Caller& caller);
    PosixResult<Entry> make_directory(Inode& directory, const std::string& name, mode_t mode,
                                      const Caller& caller);
    PosixResult<Entry> make_symlink(Inode& directory, const std::string& name,
                                    const std::string& target, const Caller& caller);
    PosixResult<Entry> make_link(Inode& inode, Inode& directory, const std::string& name);

    // --- removing and moving (remove.cc, rename.cc)
    PosixResult<void> unlink(Inode& directory, const std::string& name);
    PosixResult<void> remove_directory(Inode& directory, const std::string& name);
    /// `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE.
    PosixResult<void> rename(Inode& from, const std::string& from_name, Inode& to,
                             const std::string& to_name, unsigned flags);

    // --- files (file_io.cc)
    /// Gives whether what the kernel has cached of the file is good for this open.
    PosixResult<bool> open(Inode& inode, int flags);
    void close(Inode& inode);
    PosixResult<size_t> read(Inode& inode, uint64_t offset, ByteSpan out);
    PosixResult<void> write(Inode& inode, uint64_t offset, ConstByteSpan data);
    PosixResult<void> allocate(Inode& inode, int mode, uint64_t offset, uint64_t length);
    PosixResult<uint64_t> seek(Inode& inode, uint64_t offset, int whence);
    /// Returns when the inode's data, metadata and names are on the medium, and all layers below.
    PosixResult<void> sync(Inode& inode, bool data_only);

    // --- directories (listing.cc)
    PosixResult<std::unique_ptr<Listing>> open_directory(Inode& directory);
    /// Reads the directory anew, as it is now.
    PosixResult<void> rewind(Inode& directory, Listing& listing);
    void close_directory(Inode& directory);

    // --- the fork (fork.cc)
    struct ForkTimes {
        double drain_us = 0;
        double pause_us = 0;
    };
    /// Puts `next` (empty, over the present top) on top, at an instant in which no operation is in
    /// flight; the others of `others` (likewise) get the root directory's attributes. `commit` is
    /// called in that instant; if it gives an error, nothing has happened. Returns when operations
    /// go on. What was the top is frozen then.
    Result<ForkTimes> fork(std::shared_ptr<Layer> next,
                           const std::vector<std::shared_ptr<Layer>>& others,
                           const std::function<Result<void>()>& commit);

    /// Puts a layer in the place of several in a row of the stack, below the top, that show the
    /// same. These are retired (Layer::retire()) by the caller. False: the stack does not have
    /// them.
    bool replace_layers(StackSpan replaced, std::shared_ptr<Layer> merged);

    Stack stack() const;
    uint64_t inode_count() const;
    uint64_t open_count() const { return open_count_; }

 private:
    using Tree = std::unique_lock<std::mutex>;
    Tree lock_tree() const { return Tree(tree_mutex_); }

    // All that follow hold the gate and the tree mutex, unless said otherwise.

    /// What an operation gives that has to be begun anew, after waiting for a copy's data.
    static constexpr int kRestart = ERESTART;
    /// Runs an operation that may copy up. The data of a whole copy must be on the medium before
    /// its name is, and that is waited for with neither the gate nor the mutex held.
    template <class Operation>
    auto run(const Operation& operation) -> decltype(operation()) {
        while (true) {
            {
                const Gate::Pass pass(gate_);
                const Tree tree = lock_tree();
                auto outcome = operation();
                if (outcome || outcome.error().code != kRestart) {
                    return outcome;
                }
            }
            sync_copies();
        }
    }
    /// Waits for the data of the copies that operations have begun. Without locks.
    void sync_copies();

    /// The top layer, or EROFS.
    PosixResult<Layer*> writable_top() const;
    bool in_top(const Inode& inode) const {
        return writable_ && inode.layer() == stack_.front().get();
    }

    // names.cc
    /// Brings `places` up to the present stack.
    PosixResult<void> refresh(Inode& inode);
    std::string path_of(const Inode& inode) const;
    /// The topmost object; after refresh().
    static At at_of(const Inode& inode);
    PosixResult<std::optional<Found>> find(Inode& directory, const std::string& name);
    /// The inode of what was found; makes one if need be.
    PosixResult<Inode*> known(Inode& directory, const std::string& name, Found found);
    /// Whether a name would show through from below the top layer, were there nothing in it.
    PosixResult<bool> shows_from_below(const Inode& directory, const std::string& name) const;
    PosixResult<Entry> entry_for(Inode& inode);
    PosixResult<Inode*> existing(Inode& directory, const std::string& name);
    PosixResult<void> check_directory(Inode& directory);

    // attributes.cc
    PosixResult<struct stat> stat_inode(Inode& inode) const;

    /// Whether its place is in the top layer's links/: good for all names, whatever layers are
    /// below.
    bool has_own_link(const Inode& inode) const {
        return !inode.places.empty() && in_top(inode) && inode.places.front().in_links;
    }

    // copy_up.cc
    /// Gives the root directory of an empty layer the attributes of another one's.
    PosixResult<void> dress(const Layer& layer, const Layer& like) const;
    /// Makes the top layer have the object: of a file, at most its first `size_limit` bytes.
    PosixResult<void> copy_up(Inode& inode, uint64_t size_limit = UINT64_MAX);
    PosixResult<void> copy_up_directory(Inode& inode);
    PosixResult<void> copy_up_other(Inode& inode, uint64_t size_limit);
    PosixResult<std::shared_ptr<Content>> copy_content(Inode& inode, const struct stat& from,
                                                       std::unique_ptr<Staged>& copy,
                                                       uint64_t size_limit);
    PosixResult<std::shared_ptr<Content>> add_block_part(Inode& inode, const Content& source,
                                                         UniqueFd data, At to);
    /// Moves a copy to the inode's name in the top layer.
    PosixResult<void> place_copy(Inode& inode, Staged& copy);
    /// The path of a directory's or file's lower part in the union of the layers below the top.
    PosixResult<std::string> lower_path(const Inode& inode) const;

    // create.cc
    struct NewObject;
    PosixResult<Entry> create(Inode& directory, const std::string& name, const NewObject& object,
                              const Caller& caller);
    /// Links the inode, which is in the top layer, to one more place there.
    PosixResult<void> add_link(Inode& inode, At target) const;
    /// Whether the top layer has a whiteout at a path.
    PosixResult<bool> whiteout_at(const std::string& path) const;

    // remove.cc
    /// What has to be true of an object before a name of it goes.
    PosixResult<void> prepare_unlink(Inode& inode);
    /// The bookkeeping after it.
    PosixResult<void> finish_unlink(Inode& directory, const std::string& name, Inode& inode);
    /// One name of an object of the top layer is gone.
    PosixResult<void> uncount_name(Inode& inode);
    PosixResult<void> put_whiteout(At at) const;
    PosixResult<bool> is_empty(Inode& directory);
    /// Removes the whiteouts in a directory of the top layer, so that it is really empty.
    PosixResult<void> remove_whiteouts(At directory) const;

    // rename.cc
    struct Move;
    PosixResult<void> prepare_move(Inode& inode, Inode& directory, const std::string& name);
    /// Marks a directory (at `at`) that is about to get this name so that nothing below shows.
    PosixResult<void> hide_below(Inode& inode, Inode& directory, const std::string& name, At at);
    PosixResult<void> exchange(const Move& move);
    PosixResult<void> replace(const Move& move);

    // file_io.cc
    /// The content of a regular file: that which is open, or opened for the occasion.
    PosixResult<std::shared_ptr<Content>> content_of(Inode& inode);
    PosixResult<std::shared_ptr<Content>> open_content(At at, Layer& layer) const;
    PosixResult<std::shared_ptr<const BlockFile>> block_file_below(const Layer& layer,
                                                                   const std::string& path) const;
    /// Calls `change` with the content to write to, copied up if need be. Takes the locks itself.
    PosixResult<void> change_content(Inode& inode,
                                     const std::function<PosixResult<void>(Content&)>& change);
    /// A directory of the top layer in which changed names may not be on the medium yet.
    struct UnsyncedNames {
        UniqueFd directory;
        std::shared_ptr<NameChanges> changes;
        uint64_t made;  ///< so many of them are, once the directory was synced
    };
    /// Those that the inode's names hang on: a new name is on the medium when its directory is, and
    /// those above it are.
    PosixResult<std::vector<UnsyncedNames>> unsynced_names(Inode& inode);
    /// Tells of damage in a layer, and gives what the user sees of it.
    UnexpectedError<Errno> broken(const Error& error) const;

    mutable Gate gate_;
    mutable std::mutex tree_mutex_;
    mutable log::Throttle throttle_;
    InodeTable table_;
    std::vector<std::shared_ptr<PendingCopy>> unsynced_;  // that somebody has to wait for
    bool writable_;
    Stack stack_;              // changes only with the gate closed
    uint64_t generation_ = 1;  // likewise
    Stack replaced_;           // likewise; inodes and contents may still refer to them
    std::atomic<uint64_t> open_count_ = 0;
};

}  // namespace ivmm::storage
