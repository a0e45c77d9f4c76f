#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

/// What a layer says about the layers below it, compatible with the kernel's overlayfs
/// (Documentation/filesystems/overlayfs.rst): whiteouts are character devices 0/0, the rest are
/// extended attributes, named `trusted.overlay.…`, or `user.overlay.…` where trusted ones may not
/// be written. ivmm's own are `….overlay.ivmm.…`: an overlayfs takes them for its private ones,
/// hides them and passes them by.
namespace ivmm::storage {

/// A file system object as a system call wants it: a path under a directory descriptor. The path
/// never ends in a symbolic link that is to be followed, and never leaves the directory.
struct At {
    int dir = -1;
    const char* path = "";
};

enum class MarkStyle { kTrusted, kUser };

/// What a file with several names is known by: the layer that it was made in or copied up to, and
/// its inode there. Stays the same when a flatten moves it to another layer.
struct LinkId {
    uint32_t layer = 0;
    uint64_t inode = 0;

    // NOLINTNEXTLINE(modernize-use-nullptr): the comparison that the compiler writes
    auto operator<=>(const LinkId&) const = default;
};
/// What it is called in the links/ of a layer that has copied it up.
std::string link_key(const LinkId& id);
std::optional<LinkId> parse_link_key(std::string_view key);

/// Which style can be written in this directory (by trying it); trusted is preferred. Errors: it
/// takes no extended attributes at all.
Result<MarkStyle> usable_mark_style(int directory);

/// Extended attributes of the object itself (links are not followed), with any errno. Absent: no
/// value.
PosixResult<std::optional<std::string>> get_xattr(At at, const std::string& name);
PosixResult<void> set_xattr(At at, const std::string& name, std::string_view value);
PosixResult<void> remove_xattr(At at, const std::string& name);
/// The names, as the file system gives them.
PosixResult<std::vector<std::string>> list_xattrs(At at);

/// The marks of a layer. A layer that another program has made may carry either style, so both are
/// read; own marks are written in the layer's style.
class Marks {
 public:
    explicit Marks(MarkStyle style) : style_(style) {}
    MarkStyle style() const { return style_; }

    /// Whether the name is private to union file systems: hidden from users.
    static bool is_private(std::string_view xattr_name);

    bool is_opaque(At directory) const;
    PosixResult<void> set_opaque(At directory) const;
    /// Where the lower part of a renamed directory is: a name in the same parent, or an absolute
    /// path from the union's root.
    PosixResult<std::optional<std::string>> redirect(At directory) const;
    PosixResult<void> set_redirect(At directory, std::string_view target) const;
    PosixResult<void> remove_redirect(At directory) const;

    /// The inode number that the file had before it was copied up.
    std::optional<uint64_t> origin_inode(At file) const;
    PosixResult<void> set_origin_inode(At file, uint64_t inode) const;

    /// How many names a hard-linked file has in the union, if that differs from its nlink.
    std::optional<uint32_t> link_count(At file) const;
    PosixResult<void> set_link_count(At file, uint32_t count) const;

    /// Of a hard-linked file that was moved to this layer by a flatten: what it is still known by.
    PosixResult<std::optional<LinkId>> link_id(At file) const;
    PosixResult<void> set_link_id(At file, const LinkId& id) const;

    /// A directory with objects that have an origin_inode() although nothing is below it.
    bool is_impure(At directory) const;
    PosixResult<void> set_impure(At directory) const;

    /// A file that is a part of a block file: the name of its map in the layer's maps/, and the
    /// absolute path, in the union of the layers below, of the file that it is a part over.
    struct BlockPart {
        std::string map;
        std::string lower_path;
    };
    PosixResult<std::optional<BlockPart>> block_part(At file) const;
    PosixResult<void> set_block_part(At file, const BlockPart& part) const;

 private:
    MarkStyle style_;
};

}  // namespace ivmm::storage
