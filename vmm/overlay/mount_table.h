#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

/// The overlays among the mounts that this process sees.
namespace ivmm::overlay {

struct MountEntry {
    std::string mountpoint;
    std::string source;      ///< the store's directory
    unsigned minor = 0;      ///< of its device number, and the name of its FUSE connection
    std::string root = "/";  ///< what of the view is mounted: a bind mount may show a part
};

/// The overlays in a text of the form of /proc/self/mountinfo, in its order: what is mounted over
/// something else comes behind it.
std::vector<MountEntry> parse_mount_table(std::string_view mountinfo);
Result<std::vector<MountEntry>> read_mount_table();

/// Where a file is: given its absolute path, and the device number's minor that stat(2) tells.
/// Through which of these mounts the path leads to it, and its path from the root of the view.
struct PlaceInView {
    const MountEntry* mount = nullptr;  ///< one of `entries`
    std::string path;                   ///< begins with "/"
};
std::optional<PlaceInView> place_in_view(const std::vector<MountEntry>& entries,
                                         const std::string& path, unsigned minor);

/// Whether the server of a mount has died: every access fails with ENOTCONN.
bool is_dead(const std::string& mountpoint);

/// The error for whoever wants to use such a mount.
Unexpected dead_mount(const std::string& path);
/// The same for a path in one.
Unexpected dead_mount_of(const std::string& path);

/// Takes a mount whose server has died out of the way: ends the connection, so that everybody who
/// still waits for an answer gets an error, and unmounts, whoever uses it.
Result<void> remove_dead_mount(const MountEntry& entry);

/// An absolute path without links and dots. Its last part may be a mount whose server has died.
/// Errors (kUsage): it does not exist.
Result<std::string> resolve(const std::string& path);
/// As resolve(), for what must be a directory that works. `what` it is, for messages.
Result<std::string> resolve_directory(std::string_view what, const std::string& path);

}  // namespace ivmm::overlay
