#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/unique_fd.h"
#include "storage/union/content.h"
#include "storage/union/lookup.h"
#include "storage/union/staged.h"

namespace ivmm::storage {

/// A whole copy of a file's data in work/, which has to be on the medium before it gets its name.
struct PendingCopy {
    uint64_t generation = 0;  ///< of the stack that it was made for
    std::unique_ptr<Staged> staged;
    std::shared_ptr<Content> content;
    bool synced = false;
    int error = 0;  ///< errno of the sync
};

/// An object of a view that the kernel, or somebody who has it open, knows. Owned by the
/// InodeTable. Everything but `content` is guarded by the view's tree mutex.
struct Inode {
    struct Name {
        Inode* parent;
        std::string name;
    };

    mode_t type = 0;       ///< S_IFMT bits
    uint64_t number = 0;   ///< st_ino
    uint64_t lookups = 0;  ///< that the kernel will forget()
    uint64_t opens = 0;    ///< files and directories open
    /// The names that are known; a directory has one, the root none.
    std::vector<Name> names;
    /// Of a directory: what is known in it.
    std::unordered_map<std::string, Inode*> children;

    /// The generation of the stack that `places` belong to.
    uint64_t generation = 0;
    /// As in Found. In the top layer, the path follows from the names (View::place_of()).
    std::vector<Place> places;
    /// Of a regular file that is being copied up.
    std::shared_ptr<PendingCopy> pending;
    /// Holds an object that has lost its last known name.
    UniqueFd nameless;
    /// Lost its last name while it was the top layer's own: nobody else sees it, and it stays
    /// where it is for as long as somebody has it open.
    bool removed = false;
    /// Was opened for direct I/O: the kernel may have cached what an asynchronous write has
    /// replaced.
    bool direct = false;
    /// Of a directory: names in it have changed since its last sync.
    bool names_dirty = false;

    bool is_directory() const { return S_ISDIR(type); }
    bool is_regular() const { return S_ISREG(type); }
    Layer* layer() const { return places.front().layer; }

    /// Of a regular file that is open. Leaf lock.
    std::shared_ptr<Content> current_content() {
        const std::scoped_lock lock(content_mutex);
        return content;
    }
    void set_content(std::shared_ptr<Content> next) {
        {
            const std::scoped_lock lock(content_mutex);
            content.swap(next);
        }  // the former one ends outside of the lock
    }
    std::mutex content_mutex;
    std::shared_ptr<Content> content;
};

}  // namespace ivmm::storage
