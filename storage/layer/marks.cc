#include "storage/layer/marks.h"

#include <charconv>
#include <climits>

#include "base/log.h"

namespace ivmm::storage {

namespace {

constexpr std::string_view kTrusted = "trusted.overlay.";
constexpr std::string_view kUser = "user.overlay.";
constexpr std::string_view kOpaque = "opaque";
constexpr std::string_view kRedirect = "redirect";
constexpr std::string_view kInode = "ivmm.inode";
constexpr std::string_view kLinks = "ivmm.links";
constexpr std::string_view kLink = "ivmm.link";
constexpr std::string_view kImpure = "impure";
constexpr std::string_view kBlock = "ivmm.block";
constexpr std::string_view kProbe = "ivmm.probe";

std::string full_name(MarkStyle style, std::string_view mark) {
    return std::string(style == MarkStyle::kTrusted ? kTrusted : kUser).append(mark);
}

MarkStyle other(MarkStyle style) {
    return style == MarkStyle::kTrusted ? MarkStyle::kUser : MarkStyle::kTrusted;
}

/// A file system without extended attributes has no marks.
PosixResult<std::optional<std::string>> read_one(At at, MarkStyle style, std::string_view mark) {
    auto value = get_xattr(at, full_name(style, mark));
    if (!value && value.error().code == EOPNOTSUPP) {
        return std::optional<std::string>();
    }
    return value;
}

/// The own style's mark, or else the other's.
PosixResult<std::optional<std::string>> read_mark(At at, MarkStyle style, std::string_view mark) {
    auto value = read_one(at, style, mark);
    if (value && !*value) {
        value = read_one(at, other(style), mark);
    }
    return value;
}

/// One component of a path that stands for itself.
bool is_name(std::string_view name) {
    return !name.empty() && name.size() <= NAME_MAX && name != "." && name != ".." &&
           name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

/// An absolute path of names, at least one.
bool is_normal_path(std::string_view path) {
    if (path.size() >= PATH_MAX || !path.starts_with('/')) {
        return false;
    }
    while (!path.empty()) {
        path.remove_prefix(1);
        const auto name = path.substr(0, path.find('/'));
        if (!is_name(name)) {
            return false;
        }
        path.remove_prefix(name.size());
    }
    return true;
}

/// What a mark with a value of this kind may be: hostile ones are not to be used.
bool is_redirect(std::string_view target) {
    return is_name(target) || is_normal_path(target);
}
bool is_block_part(const Marks::BlockPart& part) {
    return is_name(part.map) && is_normal_path(part.lower_path);
}

template <class T>
std::optional<T> read_number(At at, MarkStyle style, std::string_view mark) {
    const auto text = read_mark(at, style, mark);
    if (!text || !*text) {
        return std::nullopt;
    }
    T number = 0;
    const char* const end = (*text)->data() + (*text)->size();
    const auto parsed = std::from_chars((*text)->data(), end, number);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
        return std::nullopt;
    }
    return number;
}

}  // namespace

std::string link_key(const LinkId& id) {
    return fmt::format("{}-{}", id.layer, id.inode);
}

std::optional<LinkId> parse_link_key(std::string_view key) {
    LinkId id;
    const char* const end = key.data() + key.size();
    const auto layer = std::from_chars(key.data(), end, id.layer);
    if (layer.ec != std::errc() || layer.ptr == end || *layer.ptr != '-') {
        return std::nullopt;
    }
    const auto inode = std::from_chars(layer.ptr + 1, end, id.inode);
    if (inode.ec != std::errc() || inode.ptr != end) {
        return std::nullopt;
    }
    return id;
}

Result<MarkStyle> usable_mark_style(int directory) {
    const At at{directory, ""};
    int code = 0;
    for (const auto style : {MarkStyle::kTrusted, MarkStyle::kUser}) {
        const auto name = full_name(style, kProbe);
        const auto set = set_xattr(at, name, "y");
        if (set) {
            std::ignore = remove_xattr(at, name);
            return style;
        }
        code = set.error().code;
        if (code != EPERM && code != EOPNOTSUPP) {
            break;
        }
    }
    return fail("extended attributes, which layers need, cannot be written: {}", error_text(code));
}

bool Marks::is_private(std::string_view xattr_name) {
    return xattr_name.starts_with(kTrusted) || xattr_name.starts_with(kUser);
}

bool Marks::is_opaque(At directory) const {
    const auto value = read_mark(directory, style_, kOpaque);
    if (value) {
        return *value == "y";
    }
    const int code = value.error().code;
    if (code == ENOENT || code == ENOTDIR) {
        return false;
    }
    // What has been deleted must not come back because of an error.
    static log::Throttle throttle;
    throttle.warning("cannot tell whether directory \"{}\" hides those below it, so it does: {}",
                     directory.path, error_text(code));
    return true;
}

PosixResult<void> Marks::set_opaque(At directory) const {
    return set_xattr(directory, full_name(style_, kOpaque), "y");
}

PosixResult<std::optional<std::string>> Marks::redirect(At directory) const {
    IVMM_ASSIGN(auto target, read_mark(directory, style_, kRedirect));
    if (target && !is_redirect(*target)) {
        return posix_error(EIO);
    }
    return target;
}

PosixResult<void> Marks::set_redirect(At directory, std::string_view target) const {
    if (!is_redirect(target)) {
        return posix_error(EINVAL);
    }
    return set_xattr(directory, full_name(style_, kRedirect), target);
}

PosixResult<void> Marks::remove_redirect(At directory) const {
    for (const auto style : {style_, other(style_)}) {
        const auto removed = remove_xattr(directory, full_name(style, kRedirect));
        // One that cannot be seen is not there.
        if (!removed && removed.error().code != ENODATA && removed.error().code != EOPNOTSUPP &&
            !(style != style_ && removed.error().code == EPERM)) {
            return removed;
        }
    }
    return {};
}

std::optional<uint64_t> Marks::origin_inode(At file) const {
    return read_number<uint64_t>(file, style_, kInode);
}

PosixResult<void> Marks::set_origin_inode(At file, uint64_t inode) const {
    return set_xattr(file, full_name(style_, kInode), fmt::format("{}", inode));
}

std::optional<uint32_t> Marks::link_count(At file) const {
    return read_number<uint32_t>(file, style_, kLinks);
}

PosixResult<void> Marks::set_link_count(At file, uint32_t count) const {
    return set_xattr(file, full_name(style_, kLinks), fmt::format("{}", count));
}

PosixResult<std::optional<LinkId>> Marks::link_id(At file) const {
    IVMM_ASSIGN(const auto key, read_one(file, style_, kLink));
    if (!key) {
        return std::optional<LinkId>();
    }
    auto id = parse_link_key(*key);
    if (!id) {
        return posix_error(EIO);
    }
    return id;
}

PosixResult<void> Marks::set_link_id(At file, const LinkId& id) const {
    return set_xattr(file, full_name(style_, kLink), link_key(id));
}

bool Marks::is_impure(At directory) const {
    const auto value = read_one(directory, style_, kImpure);
    return value && *value == "y";
}

PosixResult<void> Marks::set_impure(At directory) const {
    return set_xattr(directory, full_name(style_, kImpure), "y");
}

PosixResult<std::optional<Marks::BlockPart>> Marks::block_part(At file) const {
    IVMM_ASSIGN(const auto value, read_mark(file, style_, kBlock));
    if (!value) {
        return std::optional<BlockPart>();
    }
    const size_t slash = value->find('/');
    if (slash == std::string::npos) {
        return posix_error(EIO);
    }
    BlockPart part{value->substr(0, slash), value->substr(slash)};
    if (!is_block_part(part)) {
        return posix_error(EIO);
    }
    return std::optional(std::move(part));
}

PosixResult<void> Marks::set_block_part(At file, const BlockPart& part) const {
    if (!is_block_part(part)) {
        return posix_error(EINVAL);
    }
    return set_xattr(file, full_name(style_, kBlock), part.map + part.lower_path);
}

}  // namespace ivmm::storage
