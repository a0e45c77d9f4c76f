#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "storage/union/object.h"
#include "storage/union/staged.h"
#include "storage/union/view.h"

namespace ivmm::storage {

PosixResult<void> View::prepare_unlink(Inode& inode) {
    // Who has it open goes on writing to it. Of a hard-linked file, the other names are counted.
    IVMM_ASSIGN(const auto attributes, stat_inode(inode));
    if (!in_top(inode) && (inode.opens > 0 || attributes.st_nlink > 1)) {
        IVMM_TRY(copy_up(inode));
        IVMM_TRY(refresh(inode));
    }
    if (in_top(inode) && inode.names.size() == 1 && !inode.nameless) {
        const At at = at_of(inode);
        inode.nameless = UniqueFd(::openat(at.dir, at.path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
        if (!inode.nameless) {
            return last_posix_error();
        }
    }
    return {};
}

PosixResult<void> View::finish_unlink(Inode& directory, const std::string& name, Inode& inode) {
    directory.note_name_change();
    const bool last = inode.names.size() == 1;
    table_.remove_name(directory, name);
    PosixResult<void> outcome;
    if (in_top(inode)) {
        outcome = uncount_name(inode);
    } else {
        inode.removed = last;
    }
    table_.drop_if_unused(&inode);
    return outcome;
}

PosixResult<void> View::uncount_name(Inode& inode) {
    IVMM_TRY(refresh(inode));
    const Layer& top = *stack_.front();
    const At at = at_of(inode);
    if (const auto count = top.marks().link_count(at)) {
        IVMM_TRY(top.marks().set_link_count(at, *count - std::min(*count, 1U)));
        const Place& place = inode.places.front();
        if (*count <= 1 && place.in_links && ::unlinkat(top.links(), place.path.c_str(), 0) != 0) {
            return last_posix_error();
        }
    }
    IVMM_ASSIGN(const auto attributes, stat_object(at));
    if (attributes.st_nlink > 0) {
        return {};
    }
    inode.removed = true;
    if (inode.is_regular()) {
        IVMM_ASSIGN(const auto part, top.marks().block_part(at));
        if (part && ::unlinkat(top.maps(), part->map.c_str(), 0) != 0) {
            return last_posix_error();
        }
    }
    return {};
}

PosixResult<void> View::put_whiteout(At at) const {
    if (::mknodat(at.dir, at.path, S_IFCHR, 0) == 0) {
        return {};
    }
    if (errno != EEXIST) {
        return last_posix_error();
    }
    Staged whiteout(*stack_.front());
    if (::mknodat(whiteout.at().dir, whiteout.at().path, S_IFCHR, 0) != 0) {
        return last_posix_error();
    }
    return whiteout.move_to(at, 0);
}

PosixResult<void> View::unlink(Inode& directory, const std::string& name) {
    return run([&]() -> PosixResult<void> {
        IVMM_ASSIGN(Layer* const top, writable_top());
        IVMM_TRY(check_directory(directory));
        IVMM_ASSIGN(Inode* const inode, existing(directory, name));
        if (inode == nullptr) {
            return posix_error(ENOENT);
        }
        if (inode->is_directory()) {
            return posix_error(EISDIR);
        }
        IVMM_TRY(copy_up(directory));
        IVMM_TRY(prepare_unlink(*inode));
        IVMM_ASSIGN(const bool shows, shows_from_below(directory, name));
        const std::string path = join_path(directory.places.front().path, name);
        const At at{top->tree(), path.c_str()};
        if (shows) {
            IVMM_TRY(put_whiteout(at));
        } else if (::unlinkat(at.dir, at.path, 0) != 0) {
            return last_posix_error();
        }
        return finish_unlink(directory, name, *inode);
    });
}

PosixResult<bool> View::is_empty(Inode& directory) {
    IVMM_ASSIGN(auto parts, Listing::open_parts(directory.places));
    Listing listing(std::move(parts));
    IVMM_TRY(listing.rewind());
    return listing.items().empty();
}

PosixResult<void> View::remove_whiteouts(At directory) const {
    Layer* const top = stack_.front().get();
    UniqueFd opened(
        ::openat(directory.dir, directory.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!opened) {
        return last_posix_error();
    }
    const int fd = opened.get();
    std::vector<std::string> whiteouts;
    IVMM_TRY(for_each_entry(fd, [&](const Listing::Item& item) -> PosixResult<void> {
        whiteouts.push_back(item.name);
        return {};
    }));
    if (whiteouts.empty()) {
        return {};
    }
    // From here on the whiteouts are not needed, and a crash shows nothing that was hidden.
    IVMM_TRY(top->marks().set_opaque({fd, ""}));
    for (const std::string& name : whiteouts) {
        if (::unlinkat(fd, name.c_str(), 0) != 0) {
            return last_posix_error();
        }
    }
    return {};
}

PosixResult<void> View::remove_directory(Inode& directory, const std::string& name) {
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_ASSIGN(Layer* const top, writable_top());
    IVMM_TRY(check_directory(directory));
    IVMM_ASSIGN(Inode* const inode, existing(directory, name));
    if (inode == nullptr) {
        return posix_error(ENOENT);
    }
    if (!inode->is_directory()) {
        return posix_error(ENOTDIR);
    }
    IVMM_TRY(refresh(*inode));
    IVMM_ASSIGN(const bool empty, is_empty(*inode));
    if (!empty) {
        return posix_error(ENOTEMPTY);
    }
    IVMM_TRY(copy_up(directory));
    IVMM_ASSIGN(const bool shows, shows_from_below(directory, name));
    const std::string path = join_path(directory.places.front().path, name);
    const At at{top->tree(), path.c_str()};
    if (in_top(*inode)) {
        IVMM_TRY(remove_whiteouts(at));
        inode->nameless = UniqueFd(::openat(at.dir, at.path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
        if (shows) {
            Staged whiteout(*top);
            IVMM_TRY(put_whiteout(whiteout.at()));
            IVMM_TRY(whiteout.move_to(at, RENAME_EXCHANGE));
        } else if (::unlinkat(at.dir, at.path, AT_REMOVEDIR) != 0) {
            return last_posix_error();
        }
    } else {
        IVMM_TRY(put_whiteout(at));
    }
    inode->removed = true;
    directory.note_name_change();
    table_.remove_name(directory, name);
    table_.drop_if_unused(inode);
    return {};
}

}  // namespace ivmm::storage
