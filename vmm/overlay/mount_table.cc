#include "vmm/overlay/mount_table.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <array>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/unique_fd.h"

namespace ivmm::overlay {
namespace {

constexpr std::string_view kType = "fuse.ivmm";
/// Fields of a line: id, parent, device, root, mount point, options, then optional ones up to a
/// "-", then type and source.
constexpr size_t kDevice = 2;
constexpr size_t kRoot = 3;
constexpr size_t kMountpoint = 4;
constexpr size_t kFirstOptional = 6;

/// Without the three octal digits that stand for blanks and backslashes.
std::string unescape(std::string_view text) {
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
        unsigned code = 0;
        if (text[i] == '\\' && i + 3 < text.size() &&
            std::from_chars(&text[i + 1], &text[i + 1] + 3, code, 8).ptr == &text[i + 1] + 3) {
            result += static_cast<char>(code);
            i += 3;
        } else {
            result += text[i];
        }
    }
    return result;
}

std::vector<std::string_view> words(std::string_view line) {
    std::vector<std::string_view> result;
    while (!line.empty()) {
        const size_t end = line.find(' ');
        result.push_back(line.substr(0, end));
        line.remove_prefix(end == line.npos ? line.size() : end + 1);
    }
    return result;
}

std::optional<MountEntry> parse_line(std::string_view line) {
    const auto fields = words(line);
    size_t type = kFirstOptional;
    while (type < fields.size() && fields[type] != "-") {
        ++type;
    }
    ++type;
    if (type + 1 >= fields.size() || fields[type] != kType) {
        return std::nullopt;
    }
    MountEntry entry{.mountpoint = unescape(fields[kMountpoint]),
                     .source = unescape(fields[type + 1]),
                     .root = unescape(fields[kRoot])};
    const auto device = fields[kDevice];
    const size_t colon = device.find(':');
    if (colon == device.npos ||
        std::from_chars(device.data() + colon + 1, device.data() + device.size(), entry.minor).ec !=
            std::errc()) {
        return std::nullopt;
    }
    return entry;
}

}  // namespace

std::vector<MountEntry> parse_mount_table(std::string_view mountinfo) {
    std::vector<MountEntry> entries;
    while (!mountinfo.empty()) {
        const size_t end = mountinfo.find('\n');
        if (auto entry = parse_line(mountinfo.substr(0, end))) {
            entries.push_back(std::move(*entry));
        }
        mountinfo.remove_prefix(end == mountinfo.npos ? mountinfo.size() : end + 1);
    }
    return entries;
}

Result<std::vector<MountEntry>> read_mount_table() {
    std::ifstream file("/proc/self/mountinfo");
    std::ostringstream text;
    text << file.rdbuf();
    if (!file || text.str().empty()) {
        return fail("cannot read /proc/self/mountinfo");
    }
    return parse_mount_table(text.str());
}

std::optional<PlaceInView> place_in_view(const std::vector<MountEntry>& entries,
                                         const std::string& path, unsigned minor) {
    const auto without_slash = [](std::string_view folder) {
        return folder == "/" ? std::string_view() : folder;
    };
    std::optional<PlaceInView> place;
    for (const auto& entry : entries) {
        const auto folder = without_slash(entry.mountpoint);
        const bool below = entry.minor == minor && path.starts_with(folder) &&
                           (path.size() == folder.size() || path[folder.size()] == '/');
        if (below && (!place || folder.size() >= without_slash(place->mount->mountpoint).size())) {
            place = PlaceInView{
                &entry, std::string(without_slash(entry.root)) + path.substr(folder.size())};
        }
    }
    return place;
}

bool is_dead(const std::string& mountpoint) {
    // Unlike stat(2)'s, the answer is never one that the kernel has kept.
    struct statfs info {};
    return ::statfs(mountpoint.c_str(), &info) != 0 && errno == ENOTCONN;
}

Result<void> remove_dead_mount(const MountEntry& entry) {
    const std::string abort = fmt::format("/sys/fs/fuse/connections/{}/abort", entry.minor);
    // It is there only where the file system "fusectl" is mounted, and as long as the connection.
    const UniqueFd file(::open(abort.c_str(), O_WRONLY | O_CLOEXEC));
    if (file && ::write(file.get(), "1", 1) != 1) {
        return fail_errno("cannot end the connection of '{}' through '{}'", entry.mountpoint,
                          abort);
    }
    if (::umount2(entry.mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
        return fail_errno("cannot unmount '{}'", entry.mountpoint);
    }
    return {};
}

Result<std::string> resolve(const std::string& path) {
    std::array<char, PATH_MAX> buffer{};
    if (::realpath(path.c_str(), buffer.data()) != nullptr) {
        return std::string(buffer.data());
    }
    const int code = errno;
    std::string_view trimmed = path;
    while (trimmed.size() > 1 && trimmed.ends_with('/')) {
        trimmed.remove_suffix(1);
    }
    const std::filesystem::path full(trimmed);
    const std::string parent = full.has_parent_path() ? full.parent_path().string() : ".";
    if (code == ENOTCONN && ::realpath(parent.c_str(), buffer.data()) != nullptr) {
        return (std::filesystem::path(buffer.data()) / full.filename()).string();
    }
    if (code == ENOTCONN) {
        return dead_mount_of(path);
    }
    return fail_as(ErrorKind::kUsage, "'{}': {}", path, error_text(code));
}

Result<std::string> resolve_directory(std::string_view what, const std::string& path) {
    auto resolved = resolve(path);
    if (!resolved) {
        return annotate(std::move(resolved).error(), what);
    }
    if (is_dead(*resolved)) {
        return dead_mount(path);
    }
    struct stat info {};
    if (::stat(resolved->c_str(), &info) != 0) {
        const int code = errno;
        return fail_as(ErrorKind::kUsage, "{}: '{}': {}", what, path, error_text(code));
    }
    if (!S_ISDIR(info.st_mode)) {
        return fail_as(ErrorKind::kUsage, "{}: '{}' is not a directory", what, path);
    }
    return resolved;
}

Unexpected dead_mount(const std::string& path) {
    return fail("the server of the mount '{}' has died; `ivmm overlay check {}` removes it", path,
                path);
}

Unexpected dead_mount_of(const std::string& path) {
    const auto mounts = read_mount_table();
    for (const auto& mount : mounts ? *mounts : std::vector<MountEntry>()) {
        if (path.starts_with(mount.mountpoint + "/") && is_dead(mount.mountpoint)) {
            return dead_mount(mount.mountpoint);
        }
    }
    return dead_mount(path);
}

}  // namespace ivmm::overlay
