#include <fcntl.h>

#include "storage/union/object.h"
#include "storage/union/view.h"

namespace ivmm::storage {

View::View(Stack stack, bool writable) : writable_(writable), stack_(std::move(stack)) {
    const Layer& top = *stack_.front();
    const At root{top.tree(), ""};
    const auto attributes = stat_object(root);
    std::optional<uint64_t> number;
    if (top.in_store()) {
        number = top.marks().origin_inode(root);
    }
    table_.root().number =
        number.value_or(attributes ? union_inode(top, attributes->st_ino) : uint64_t{top.number()});
}

View::~View() = default;

PosixResult<Layer*> View::writable_top() const {
    if (!writable_) {
        return posix_error(EROFS);
    }
    return stack_.front().get();
}

PosixResult<void> View::refresh(Inode& inode) {
    if (inode.generation != generation_) {
        if (&inode == &table_.root()) {
            inode.places = root_places(stack_);
        } else if (!inode.names.empty() && !has_own_link(inode)) {
            const Inode::Name& name = inode.names.front();
            IVMM_TRY(refresh(*name.parent));
            IVMM_ASSIGN(auto found, storage::lookup(stack_, name.parent->places, name.name));
            if (!found || (found->attributes.st_mode & S_IFMT) != inode.type) {
                return posix_error(ESTALE);
            }
            inode.places = std::move(found->places);
        }
        inode.generation = generation_;
    }
    if (in_top(inode) && !inode.places.front().in_links && !inode.names.empty()) {
        inode.places.front().path = path_of(inode);
    }
    return {};
}

std::string View::path_of(const Inode& inode) const {
    std::vector<const std::string*> components;
    for (const Inode* at = &inode; !at->names.empty(); at = at->names.front().parent) {
        components.push_back(&at->names.front().name);
    }
    std::string path;
    for (auto component = components.rbegin(); component != components.rend(); ++component) {
        if (!path.empty()) {
            path += '/';
        }
        path += **component;
    }
    return path;
}

At View::at_of(const Inode& inode) {
    return inode.nameless ? At{inode.nameless.get(), ""} : inode.places.front().at();
}

PosixResult<void> View::check_directory(Inode& directory) {
    if (!directory.is_directory()) {
        return posix_error(ENOTDIR);
    }
    if (directory.removed) {
        return posix_error(ENOENT);
    }
    return refresh(directory);
}

PosixResult<std::optional<Found>> View::find(Inode& directory, const std::string& name) {
    return storage::lookup(stack_, directory.places, name);
}

PosixResult<Inode*> View::known(Inode& directory, const std::string& name, Found found) {
    const Place& top = found.places.front();
    std::optional<LinkId> link;
    if (is_hard_linked(top, found.attributes)) {
        IVMM_ASSIGN(link, link_id(*top.layer, top.at(), found.attributes));
    }
    Inode* inode = InodeTable::child(directory, name);
    if (inode != nullptr && inode->type != (found.attributes.st_mode & S_IFMT)) {
        inode = nullptr;  // somebody has changed a lower branch under us
    }
    if (inode == nullptr && link) {
        inode = table_.hard_linked(*link);
        if (inode != nullptr) {
            table_.add_name(*inode, directory, name);
            inode->nameless.reset();
        }
    }
    if (inode == nullptr) {
        std::optional<uint64_t> number;
        if (top.layer->in_store()) {
            number = top.layer->marks().origin_inode(top.at());
        }
        inode = &table_.add(found.attributes.st_mode,
                            number.value_or(union_inode(*top.layer, found.attributes.st_ino)));
        table_.add_name(*inode, directory, name);
    }
    if (link) {
        table_.set_hard_linked(*inode, *link);
    }
    // Not every name of a hard-linked file that was copied up is in the top layer; its place in
    // links/ is good for all of them.
    const bool has_links_place =
        link && inode->generation == generation_ && inode->places.front().in_links;
    if (!has_links_place && !has_own_link(*inode)) {
        inode->places = std::move(found.places);
    }
    inode->generation = generation_;
    return inode;
}

PosixResult<Inode*> View::existing(Inode& directory, const std::string& name) {
    IVMM_ASSIGN(auto found, find(directory, name));
    if (!found) {
        return nullptr;
    }
    return known(directory, name, *std::move(found));
}

PosixResult<bool> View::shows_from_below(const Inode& directory, const std::string& name) const {
    std::span<const Place> parts(directory.places);
    if (in_top(directory)) {
        parts = parts.subspan(1);
    }
    IVMM_ASSIGN(const auto found, storage::lookup(stack_, parts, name));
    return found.has_value();
}

PosixResult<View::Entry> View::entry_for(Inode& inode) {
    IVMM_ASSIGN(const auto attributes, stat_inode(inode));
    ++inode.lookups;
    return Entry{&inode, attributes};
}

PosixResult<View::Entry> View::lookup(Inode& directory, const std::string& name) {
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_TRY(check_directory(directory));
    IVMM_ASSIGN(Inode* const inode, existing(directory, name));
    if (inode == nullptr) {
        return Entry{};
    }
    auto entry = entry_for(*inode);
    if (!entry) {
        table_.drop_if_unused(inode);
    }
    return entry;
}

void View::forget(Inode& inode, uint64_t lookups) {
    const Tree tree = lock_tree();
    inode.lookups -= std::min(inode.lookups, lookups);
    table_.drop_if_unused(&inode);
}

Stack View::stack() const {
    const Gate::Pass pass(gate_);
    return stack_;
}

uint64_t View::inode_count() const {
    const Tree tree = lock_tree();
    return table_.size();
}

}  // namespace ivmm::storage
