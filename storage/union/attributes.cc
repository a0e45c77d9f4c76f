#include <fcntl.h>
#include <sys/xattr.h>

#include "storage/union/object.h"
#include "storage/union/view.h"

namespace ivmm::storage {

PosixResult<struct stat> View::stat_inode(Inode& inode) const {
    struct stat attributes {};
    // A content whose layer was flattened is of a file that may be deleted by now.
    if (const auto content = inode.current_content();
        content && content->layer() == inode.layer()) {
        if (::fstat(content->fd(), &attributes) != 0) {
            return last_posix_error();
        }
    } else {
        IVMM_ASSIGN(attributes, stat_object(at_of(inode)));
    }
    attributes.st_ino = inode.number;
    if (inode.is_directory()) {
        if (inode.removed) {
            attributes.st_nlink = 0;
        } else if (inode.places.size() > 1) {
            attributes.st_nlink = 1;  // "unknown": a merged directory is not counted
        }
    } else if (is_hard_linked(inode.places.front(), attributes) && inode.layer()->in_store()) {
        attributes.st_nlink = inode.layer()
                                  ->marks()
                                  .link_count(at_of(inode))
                                  .value_or(static_cast<uint32_t>(attributes.st_nlink));
    }
    return attributes;
}

PosixResult<struct stat> View::attributes(Inode& inode) {
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_TRY(refresh(inode));
    return stat_inode(inode);
}

PosixResult<struct stat> View::set_attributes(Inode& inode, const AttributeChange& change) {
    return run([&]() -> PosixResult<struct stat> {
        IVMM_TRY(refresh(inode));
        IVMM_TRY(copy_up(inode, change.size.value_or(UINT64_MAX)));
        if (change.size) {
            IVMM_ASSIGN(const auto content, content_of(inode));
            IVMM_TRY(content->truncate(*change.size));
            content->keep_until_flushed();
        }
        const At at = at_of(inode);
        if (change.uid || change.gid) {
            IVMM_TRY(change_owner(at, change.uid.value_or(static_cast<uid_t>(-1)),
                                  change.gid.value_or(static_cast<gid_t>(-1))));
        }
        if (change.mode) {
            IVMM_TRY(change_mode(at, *change.mode & 07777));
        }
        if (change.atime || change.mtime) {
            constexpr timespec kUnchanged{0, UTIME_OMIT};
            IVMM_TRY(change_times(at, change.atime.value_or(kUnchanged),
                                  change.mtime.value_or(kUnchanged)));
        }
        return stat_inode(inode);
    });
}

PosixResult<std::string> View::read_link(Inode& inode) {
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_TRY(refresh(inode));
    return read_link_target(at_of(inode));
}

PosixResult<std::optional<std::string>> View::xattr(Inode& inode, const std::string& name) {
    if (Marks::is_private(name)) {
        return std::optional<std::string>();
    }
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_TRY(refresh(inode));
    return get_xattr(at_of(inode), name);
}

PosixResult<std::vector<std::string>> View::xattrs(Inode& inode) {
    const Gate::Pass pass(gate_);
    const Tree tree = lock_tree();
    IVMM_TRY(refresh(inode));
    IVMM_ASSIGN(auto names, list_xattrs(at_of(inode)));
    std::erase_if(names, [](const std::string& name) { return Marks::is_private(name); });
    return names;
}

PosixResult<void> View::set_xattr(Inode& inode, const std::string& name, std::string_view value,
                                  int flags) {
    if (Marks::is_private(name)) {
        return posix_error(EPERM);
    }
    return run([&]() -> PosixResult<void> {
        IVMM_TRY(refresh(inode));
        if (flags != 0) {
            IVMM_ASSIGN(const auto present, get_xattr(at_of(inode), name));
            if (present && (flags & XATTR_CREATE) != 0) {
                return posix_error(EEXIST);
            }
            if (!present && (flags & XATTR_REPLACE) != 0) {
                return posix_error(ENODATA);
            }
        }
        IVMM_TRY(copy_up(inode));
        return storage::set_xattr(at_of(inode), name, value);
    });
}

PosixResult<void> View::remove_xattr(Inode& inode, const std::string& name) {
    if (Marks::is_private(name)) {
        return posix_error(EPERM);
    }
    return run([&]() -> PosixResult<void> {
        IVMM_TRY(refresh(inode));
        IVMM_ASSIGN(const auto present, get_xattr(at_of(inode), name));
        if (!present) {
            return posix_error(ENODATA);
        }
        IVMM_TRY(copy_up(inode));
        return storage::remove_xattr(at_of(inode), name);
    });
}

PosixResult<struct statvfs> View::statistics() {
    const Gate::Pass pass(gate_);
    struct statvfs statistics {};
    if (::fstatvfs(stack_.front()->tree(), &statistics) != 0) {
        return last_posix_error();
    }
    return statistics;
}

}  // namespace ivmm::storage
