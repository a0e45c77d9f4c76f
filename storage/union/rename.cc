#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "storage/union/object.h"
#include "storage/union/staged.h"
#include "storage/union/view.h"

namespace ivmm::storage {

struct View::Move {
    Inode& from;
    const std::string& from_name;
    Inode& moved;
    Inode& to;
    const std::string& to_name;
    Inode* replaced;  ///< null: the name is free

    std::string from_path() const { return join_path(from.places.front().path, from_name); }
    std::string to_path() const { return join_path(to.places.front().path, to_name); }
};

PosixResult<void> View::prepare_move(Inode& inode, Inode& directory, const std::string& name) {
    IVMM_TRY(copy_up(inode));
    IVMM_TRY(copy_up(directory));
    IVMM_TRY(refresh(inode));
    const std::string path = join_path(directory.places.front().path, name);
    const At at{stack_.front()->tree(), path.c_str()};
    if (!inode.is_directory()) {
        // Of a hard-linked file, this name may still be only below.
        const auto present = stat_object(at);
        if (!present && present.error().code == ENOENT) {
            return add_link(inode, at);
        }
        return present ? PosixResult<void>() : UnexpectedError{present.error()};
    }
    if (inode.places.size() == 1) {
        return {};
    }
    // Its lower part stays where it is, so it is told where that is.
    IVMM_ASSIGN(const auto redirect, lower_path(inode));
    return stack_.front()->marks().set_redirect(at, redirect);
}

PosixResult<void> View::hide_below(Inode& inode, Inode& directory, const std::string& name, At at) {
    if (!inode.is_directory() || inode.places.size() > 1) {
        return {};
    }
    IVMM_ASSIGN(const bool shows, shows_from_below(directory, name));
    return shows ? stack_.front()->marks().set_opaque(at) : PosixResult<void>();
}

PosixResult<void> View::rename(Inode& from, const std::string& from_name, Inode& to,
                               const std::string& to_name, unsigned flags) {
    constexpr unsigned kKnown = RENAME_NOREPLACE | RENAME_EXCHANGE;
    if ((flags & ~kKnown) != 0) {
        return posix_error(EINVAL);
    }
    return run([&]() -> PosixResult<void> {
        IVMM_TRY(writable_top());
        IVMM_TRY(check_directory(from));
        IVMM_TRY(check_directory(to));
        IVMM_ASSIGN(Inode* const moved, existing(from, from_name));
        if (moved == nullptr) {
            return posix_error(ENOENT);
        }
        IVMM_ASSIGN(Inode* const replaced, existing(to, to_name));
        if (replaced != nullptr && (flags & RENAME_NOREPLACE) != 0) {
            return posix_error(EEXIST);
        }
        if (replaced == nullptr && (flags & RENAME_EXCHANGE) != 0) {
            return posix_error(ENOENT);
        }
        if (moved == replaced) {
            return {};  // two names of one file
        }
        IVMM_TRY(copy_up(from));
        IVMM_TRY(copy_up(to));
        const Move move{from, from_name, *moved, to, to_name, replaced};
        return (flags & RENAME_EXCHANGE) != 0 ? exchange(move) : replace(move);
    });
}

PosixResult<void> View::exchange(const Move& move) {
    IVMM_TRY(prepare_move(move.moved, move.from, move.from_name));
    IVMM_TRY(prepare_move(*move.replaced, move.to, move.to_name));
    const int tree = stack_.front()->tree();
    const std::string from_path = move.from_path();
    const std::string to_path = move.to_path();
    const At from{tree, from_path.c_str()};
    const At to{tree, to_path.c_str()};
    IVMM_TRY(hide_below(move.moved, move.to, move.to_name, from));
    IVMM_TRY(hide_below(*move.replaced, move.from, move.from_name, to));
    if (::renameat2(from.dir, from.path, to.dir, to.path, RENAME_EXCHANGE) != 0) {
        return last_posix_error();
    }
    table_.remove_name(move.from, move.from_name);
    table_.remove_name(move.to, move.to_name);
    table_.add_name(move.moved, move.to, move.to_name);
    table_.add_name(*move.replaced, move.from, move.from_name);
    move.from.note_name_change();
    move.to.note_name_change();
    return {};
}

PosixResult<void> View::replace(const Move& move) {
    Inode* const replaced = move.replaced;
    if (replaced != nullptr) {
        if (move.moved.is_directory() && !replaced->is_directory()) {
            return posix_error(ENOTDIR);
        }
        if (!move.moved.is_directory() && replaced->is_directory()) {
            return posix_error(EISDIR);
        }
        IVMM_TRY(refresh(*replaced));
        if (replaced->is_directory()) {
            IVMM_ASSIGN(const bool empty, is_empty(*replaced));
            if (!empty) {
                return posix_error(ENOTEMPTY);
            }
        } else {
            IVMM_TRY(prepare_unlink(*replaced));
        }
    }
    IVMM_TRY(prepare_move(move.moved, move.from, move.from_name));
    const int tree = stack_.front()->tree();
    const std::string from_path = move.from_path();
    const std::string to_path = move.to_path();
    const At from{tree, from_path.c_str()};
    const At to{tree, to_path.c_str()};
    IVMM_TRY(hide_below(move.moved, move.to, move.to_name, from));
    if (replaced != nullptr && replaced->is_directory() && in_top(*replaced)) {
        IVMM_TRY(remove_whiteouts(to));
        replaced->nameless = UniqueFd(::openat(to.dir, to.path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    }
    IVMM_ASSIGN(const bool shows, shows_from_below(move.from, move.from_name));
    IVMM_ASSIGN(const bool onto_whiteout, whiteout_at(to_path));
    if (onto_whiteout && move.moved.is_directory()) {
        // A directory cannot replace a whiteout: it takes the directory's place.
        if (::renameat2(from.dir, from.path, to.dir, to.path, RENAME_EXCHANGE) != 0) {
            return last_posix_error();
        }
        if (!shows && ::unlinkat(from.dir, from.path, 0) != 0) {
            return last_posix_error();
        }
    } else if (::renameat2(from.dir, from.path, to.dir, to.path, shows ? RENAME_WHITEOUT : 0) !=
               0) {
        return last_posix_error();
    }
    PosixResult<void> outcome;
    if (replaced != nullptr && replaced->is_directory()) {
        replaced->removed = true;
        table_.remove_name(move.to, move.to_name);
        table_.drop_if_unused(replaced);
    } else if (replaced != nullptr) {
        outcome = finish_unlink(move.to, move.to_name, *replaced);
    }
    table_.remove_name(move.from, move.from_name);
    table_.add_name(move.moved, move.to, move.to_name);
    move.from.note_name_change();
    move.to.note_name_change();
    return outcome;
}

}  // namespace ivmm::storage
