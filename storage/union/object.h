#pragma once

#include <sys/stat.h>

#include <string>

#include "base/result.h"
#include "storage/layer/marks.h"

/// System calls on an object given by an At. The object itself is meant, links are not followed;
/// an empty path stands for what the descriptor refers to.
namespace ivmm::storage {

/// What a system call that returns 0 or -1 has come to.
PosixResult<void> outcome(int result);

PosixResult<struct stat> stat_object(At at);
/// Not of symbolic links, which have no mode.
PosixResult<void> change_mode(At at, mode_t mode);
PosixResult<void> change_owner(At at, uid_t uid, gid_t gid);
PosixResult<void> change_times(At at, const timespec& atime, const timespec& mtime);
PosixResult<std::string> read_link_target(At at);

/// Owner, mode, times and all extended attributes but a union's private ones. (Those of other
/// namespaces than user.* only where the target's file system takes them.)
PosixResult<void> copy_metadata(At from, const struct stat& attributes, At to);

}  // namespace ivmm::storage
