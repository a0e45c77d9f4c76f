#include "storage/union/inode_table.h"

#include <algorithm>

namespace ivmm::storage {

Inode* InodeTable::child(const Inode& directory, const std::string& name) {
    const auto at = directory.children.find(name);
    return at == directory.children.end() ? nullptr : at->second;
}

Inode* InodeTable::hard_linked(const LinkId& id) const {
    const auto at = hard_linked_.find(id);
    return at == hard_linked_.end() ? nullptr : at->second;
}

Inode& InodeTable::add(mode_t type, uint64_t number) {
    auto inode = std::make_unique<Inode>();
    inode->type = type & S_IFMT;
    inode->number = number;
    Inode& added = *inode;
    inodes_.emplace(&added, std::move(inode));
    return added;
}

void InodeTable::add_name(Inode& inode, Inode& directory, const std::string& name) {
    remove_name(directory, name);
    inode.names.push_back({&directory, name});
    directory.children.emplace(name, &inode);
}

void InodeTable::remove_name(Inode& directory, const std::string& name) {
    const auto at = directory.children.find(name);
    if (at == directory.children.end()) {
        return;
    }
    std::erase_if(at->second->names, [&](const Inode::Name& known) {
        return known.parent == &directory && known.name == name;
    });
    directory.children.erase(at);
}

void InodeTable::set_hard_linked(Inode& inode, const LinkId& id) {
    if (const auto old = link_ids_.find(&inode); old != link_ids_.end()) {
        if (old->second == id) {
            return;
        }
        hard_linked_.erase(old->second);
    }
    hard_linked_[id] = &inode;
    link_ids_[&inode] = id;
}

void InodeTable::drop_if_unused(Inode* inode) {
    while (inode != &root_ && inode->lookups == 0 && inode->opens == 0 && inode->children.empty()) {
        Inode* parent = nullptr;
        while (!inode->names.empty()) {
            const Inode::Name name = inode->names.back();
            parent = name.parent;
            remove_name(*parent, name.name);
            if (!inode->names.empty()) {
                drop_if_unused(parent);
            }
        }
        if (const auto id = link_ids_.find(inode); id != link_ids_.end()) {
            hard_linked_.erase(id->second);
            link_ids_.erase(id);
        }
        inodes_.erase(inode);
        if (parent == nullptr) {
            return;
        }
        inode = parent;
    }
}

}  // namespace ivmm::storage
