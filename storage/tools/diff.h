#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/tools/reader.h"

namespace ivmm::storage {

struct ByteRange {
    uint64_t offset = 0;
    uint64_t length = 0;

    bool operator==(const ByteRange&) const = default;
};

/// One difference between two trees. Something that has become another type of object is removed
/// and added; something that has got another name, too.
struct DiffEntry {
    enum class Kind { kAdded, kRemoved, kChanged };
    Kind kind = Kind::kChanged;
    std::string path;  ///< absolute; the root is "/"
    mode_t type = 0;   ///< S_IFMT bits
    /// Of changed ones. Content: the bytes of a regular file, where a link leads, which device it
    /// is.
    bool content = false;
    /// Permissions, owner, extended attributes; of a regular file with the same content, also when
    /// it was modified.
    bool metadata = false;
    /// Of a regular file whose content has changed, if asked for: the blocks of 4 KiB that are not
    /// the same, in order, adjacent ones as one, up to the end of the larger file.
    std::vector<ByteRange> ranges = {};
    /// Why the contents cannot be compared: one is damaged. They are taken as changed.
    std::string error = {};
};

/// What type of object the S_IFMT bits of a mode stand for: "file", "directory", "link", "fifo",
/// "socket" or "device".
std::string_view type_name(mode_t mode);

/// Tells what is different in `to`, directory by directory, each sorted by name, until `visit`
/// gives an error. Both are trees of one store, opened from the same Store object.
///
/// What both have in common is not read: only directories of layers that one of them has and the
/// other has not, and of block files only what does not come from the same file of the same layer.
Result<void> diff(const StoredTree& from, const StoredTree& to, bool with_ranges,
                  const std::function<Result<void>(const DiffEntry&)>& visit);

/// As the ranges of a DiffEntry. `first_only`: any one difference will do.
PosixResult<std::vector<ByteRange>> changed_ranges(const BlockFile& from, const BlockFile& to,
                                                   bool first_only);

}  // namespace ivmm::storage
