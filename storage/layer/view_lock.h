#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

/// The files locks/NAME of a store: who serves a view holds a lock on its file, which has the
/// process number in it, for messages. The kernel releases the lock when the process dies.
namespace ivmm::storage {

/// Takes the lock of a view. Errors: it is held (by which process), in this process or another.
Result<UniqueFd> take_view_lock(int locks_dir, const std::string& view);
/// Whether somebody holds it.
PosixResult<bool> is_view_locked(int locks_dir, const std::string& view);
/// Deletes the file of a lock that the caller holds.
PosixResult<void> delete_view_lock(int locks_dir, const std::string& view);

}  // namespace ivmm::storage
