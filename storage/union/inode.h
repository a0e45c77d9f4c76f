#pragma once

#include <sys/types.h>

#include <atomic>
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

/// Changes of names in a directory, and how many of them are on the medium. Any thread; whoever
/// syncs the directory keeps it.
struct NameChanges {
    /// Begins with one: what was done before the directory became known, or was forgotten.
    std::atomic<uint64_t> made = 1;
    std::atomic<uint64_t> synced = 0;

    void are_synced(uint64_t until) {
        uint64_t so_far = synced;
        while (so_far < until && !synced.compare_exchange_weak(so_far, until)) {
        }
    }
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
    /// Of a directory; null: nobody has asked yet.
    std::shared_ptr<NameChanges> name_changes;

    std::shared_ptr<NameChanges> changes_of_names() {
        if (!name_changes) {
            name_changes = std::make_shared<NameChanges>();
        }
        return name_changes;
    }
    void note_name_change() { ++changes_of_names()->made; }

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
