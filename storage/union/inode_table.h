#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>

#include "storage/union/inode.h"

namespace ivmm::storage {

/// The inodes of a view that are known to the kernel, in use, or on the way to such. About 400
/// bytes each, and the kernel decides how many it remembers. Guarded by the view's tree mutex.
class InodeTable {
 public:
    InodeTable() { root_.type = S_IFDIR; }

    Inode& root() { return root_; }
    const Inode& root() const { return root_; }
    uint64_t size() const { return inodes_.size() + 1; }

    /// The known inode of a name, or null.
    static Inode* child(const Inode& directory, const std::string& name);
    /// The known inode of a hard-linked file, or null.
    Inode* hard_linked(const LinkId& id) const;
    /// A new inode without names.
    Inode& add(mode_t type, uint64_t number);

    void add_name(Inode& inode, Inode& directory, const std::string& name);
    void remove_name(Inode& directory, const std::string& name);
    /// Makes hard_linked() find it by this, and nothing else.
    void set_hard_linked(Inode& inode, const LinkId& id);

    /// Destroys the inode, and parents that only it kept, when nobody needs it any more.
    void drop_if_unused(Inode* inode);

 private:
    Inode root_;
    std::unordered_map<Inode*, std::unique_ptr<Inode>> inodes_;
    std::map<LinkId, Inode*> hard_linked_;
    std::unordered_map<const Inode*, LinkId> link_ids_;
};

}  // namespace ivmm::storage
