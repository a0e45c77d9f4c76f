#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "storage/union/object.h"
#include "storage/union/staged.h"
#include "storage/union/view.h"

namespace ivmm::storage {
namespace {

constexpr const char* kDefaultAcl = "system.posix_acl_default";

}  // namespace

struct View::NewObject {
    mode_t mode = 0;  ///< with the type
    dev_t device = 0;
    std::string target;  ///< of a symbolic link

    /// Makes it there, with the mode as given.
    PosixResult<void> make(At at, mode_t permissions) const {
        int made = 0;
        if (S_ISDIR(mode)) {
            made = ::mkdirat(at.dir, at.path, permissions);
        } else if (S_ISLNK(mode)) {
            made = ::symlinkat(target.c_str(), at.dir, at.path);
        } else {
            made = ::mknodat(at.dir, at.path, (mode & S_IFMT) | permissions, device);
        }
        if (made != 0) {
            return last_posix_error();
        }
        return {};
    }
};

PosixResult<bool> View::whiteout_at(const std::string& path) const {
    const auto attributes = stat_object({stack_.front()->tree(), path.c_str()});
    if (!attributes && attributes.error().code != ENOENT) {
        return UnexpectedError{attributes.error()};
    }
    return attributes && is_whiteout(*attributes);
}

PosixResult<View::Entry> View::create(Inode& directory, const std::string& name,
                                      const NewObject& object, const Caller& caller) {
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_ASSIGN(Layer* const top, writable_top());
    IVMM_TRY(check_directory(directory));
    IVMM_ASSIGN(const auto present, find(directory, name));
    if (present) {
        return posix_error(EEXIST);
    }
    IVMM_TRY(copy_up(directory));
    const At parent = at_of(directory);
    IVMM_ASSIGN(const auto parent_attributes, stat_object(parent));
    IVMM_ASSIGN(const auto default_acl, get_xattr(parent, kDefaultAcl));

    const bool inherits_group = (parent_attributes.st_mode & S_ISGID) != 0;
    mode_t permissions = object.mode & 07777;
    if (!default_acl) {
        permissions &= ~caller.umask;
    }
    if (S_ISDIR(object.mode) && inherits_group) {
        permissions |= S_ISGID;
    }
    const std::string path = join_path(directory.places.front().path, name);
    const At target{top->tree(), path.c_str()};
    IVMM_ASSIGN(const bool covered, whiteout_at(path));
    // Made where nobody sees it until it is complete.
    if (default_acl) {
        IVMM_TRY(storage::set_xattr({top->work(), ""}, kDefaultAcl, *default_acl));
    }
    Staged made(*top);
    const auto outcome = object.make(made.at(), permissions & 01777);
    if (default_acl) {
        IVMM_TRY(storage::remove_xattr({top->work(), ""}, kDefaultAcl));
    }
    IVMM_TRY(outcome);
    const gid_t gid = inherits_group ? parent_attributes.st_gid : caller.gid;
    IVMM_TRY(change_owner(made.at(), caller.uid, gid));
    if ((permissions & (S_ISUID | S_ISGID)) != 0 && !S_ISLNK(object.mode)) {
        IVMM_ASSIGN(const auto so_far, stat_object(made.at()));
        IVMM_TRY(change_mode(made.at(), (so_far.st_mode & 01777) | (permissions & 06000)));
    }
    if (!covered) {
        IVMM_TRY(made.move_to(target, RENAME_NOREPLACE));
    } else if (!S_ISDIR(object.mode)) {
        IVMM_TRY(made.move_to(target, 0));
    } else {
        // What the whiteout hides must stay hidden.
        IVMM_TRY(top->marks().set_opaque(made.at()));
        IVMM_TRY(made.move_to(target, RENAME_EXCHANGE));
    }
    directory.note_name_change();
    IVMM_ASSIGN(const auto attributes, stat_object(target));
    IVMM_ASSIGN(Inode* const inode, known(directory, name, {attributes, {{top, path, false}}}));
    return entry_for(*inode);
}

PosixResult<View::Entry> View::make_node(Inode& directory, const std::string& name, mode_t mode,
                                         dev_t device, const Caller& caller) {
    if (S_ISCHR(mode) && device == 0) {
        return posix_error(EPERM);  // it would be a whiteout
    }
    return create(directory, name, {mode, device, {}}, caller);
}

PosixResult<View::Entry> View::make_directory(Inode& directory, const std::string& name,
                                              mode_t mode, const Caller& caller) {
    return create(directory, name, {(mode & 07777) | S_IFDIR, 0, {}}, caller);
}

PosixResult<View::Entry> View::make_symlink(Inode& directory, const std::string& name,
                                            const std::string& target, const Caller& caller) {
    return create(directory, name, {S_IFLNK | 0777, 0, target}, caller);
}

PosixResult<View::Entry> View::make_link(Inode& inode, Inode& directory, const std::string& name) {
    return run([&]() -> PosixResult<Entry> {
        IVMM_ASSIGN(Layer* const top, writable_top());
        IVMM_TRY(refresh(inode));
        IVMM_TRY(check_directory(directory));
        if (inode.is_directory()) {
            return posix_error(EPERM);
        }
        if (inode.removed) {
            return posix_error(ENOENT);
        }
        IVMM_ASSIGN(const auto present, find(directory, name));
        if (present) {
            return posix_error(EEXIST);
        }
        IVMM_TRY(copy_up(inode));
        IVMM_TRY(copy_up(directory));
        IVMM_TRY(refresh(inode));
        const std::string path = join_path(directory.places.front().path, name);
        IVMM_TRY(add_link(inode, {top->tree(), path.c_str()}));
        IVMM_ASSIGN(const auto attributes, stat_object(at_of(inode)));
        if (const auto count = top->marks().link_count(at_of(inode))) {
            IVMM_TRY(top->marks().set_link_count(at_of(inode), *count + 1));
        }
        table_.set_hard_linked(inode, {top->number(), attributes.st_ino});
        table_.add_name(inode, directory, name);
        directory.note_name_change();
        return entry_for(inode);
    });
}

PosixResult<void> View::add_link(Inode& inode, At target) const {
    const At from = at_of(inode);
    const std::string by_descriptor = fmt::format("/proc/self/fd/{}", from.dir);
    const bool nameless = from.path[0] == '\0';
    const auto link_to = [&](At to) {
        return nameless
                   ? ::linkat(AT_FDCWD, by_descriptor.c_str(), to.dir, to.path, AT_SYMLINK_FOLLOW)
                   : ::linkat(from.dir, from.path, to.dir, to.path, 0);
    };
    if (link_to(target) == 0) {
        return {};
    }
    if (errno != EEXIST) {
        return last_posix_error();
    }
    // A whiteout is in the way.
    Staged link(*stack_.front());
    if (link_to(link.at()) != 0) {
        return last_posix_error();
    }
    return link.move_to(target, 0);
}

}  // namespace ivmm::storage
