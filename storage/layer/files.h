#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

/// Files and directories under an open directory. Names are not followed if they are links.
namespace ivmm::storage {

/// Opens a directory for *at() calls, reading and fsync.
PosixResult<UniqueFd> open_directory(int dir, const char* path);

/// Visits the entries of a directory ("." and ".." left out) with their DT_* type, which is always
/// known. The visitor may remove what it is given. Ends at the first error.
PosixResult<void> for_each_entry(
    int dir, const std::function<PosixResult<void>(const char* name, unsigned char type)>& visit);

/// Reads a regular file of at most `limit` bytes; EFBIG if there is more.
PosixResult<std::string> read_small_file(int dir, const char* name, size_t limit);
/// Writes a new file (mode 0600) or one that is there and may be overwritten, and syncs it; its
/// name is not synced.
PosixResult<void> write_small_file(int dir, const char* name, std::string_view text);
/// Writes a file so that after a crash it has either its former contents or these.
PosixResult<void> replace_small_file(int dir, const std::string& name, std::string_view text);

PosixResult<void> sync_fd(int fd);

/// What the files below a directory take on the disk, in bytes; each file once, however many names
/// it has. What cannot be read is left out.
uint64_t disk_usage(const std::string& directory);

/// Deletes all that is in a directory, however deep, with a bounded number of descriptors.
PosixResult<void> empty_directory(int dir);
/// Deletes a file or a directory with all that is in it. Not there: fine.
PosixResult<void> remove_tree(int dir, const char* name);

}  // namespace ivmm::storage
