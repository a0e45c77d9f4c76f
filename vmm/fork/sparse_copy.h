#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>

#include "base/result.h"

/// Copies of files within a file system. Both files are open descriptors, which the caller owns;
/// whoever calls is the only one to use the position of `source`.
namespace ivmm {

/// Calls `use(begin, end)` for each range that is no hole, up to the first error.
Result<void> for_each_data(int source,
                           const std::function<Result<void>(off_t begin, off_t end)>& use);

/// How many bytes of the file are not holes.
Result<uint64_t> data_bytes(int source);

/// Whether the target's file system can share the source's blocks (FICLONE). Tries it, and leaves
/// the target empty. Whatever the source has not flushed is written back.
Result<bool> can_reflink(int source, int target);

/// Makes the target, an empty file, the same as the source; their blocks are shared until one side
/// writes them.
Result<void> reflink(int source, int target);

/// Makes the target, an empty file, the same as the source, holes included; returns how many bytes
/// were copied. A source that was opened with O_DIRECT is read without the page cache.
Result<uint64_t> copy_sparse(int source, int target);

}  // namespace ivmm
