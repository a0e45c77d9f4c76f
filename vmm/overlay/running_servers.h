#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/control/control_client.h"

/// The overlay servers of this user, as their clients find them.
namespace ivmm::overlay {

struct RunningServer {
    std::string pid;
    ControlClient client;
    rpc::Json status;  ///< null when it does not answer
};

/// All that run, asked for their status. Removes what killed ones have left behind.
Result<std::vector<RunningServer>> running_servers();

/// A mount and the server that serves it.
struct ServedMount {
    RunningServer server;
    rpc::Json mount;  ///< one of the `mounts` of its status
    std::string view;
    std::string mountpoint;
};

/// The mount at a path, resolved as by resolve(). Errors: nothing is mounted there, its server has
/// died.
Result<ServedMount> find_mount(const std::string& path);
/// As find_mount(), or the only mount of a view of this name.
Result<ServedMount> find_mount_or_view(const std::string& name);

/// The mount that a file is in.
struct ServedFile {
    ServedMount mount;
    std::string path;  ///< of the file, from the root of the view; begins with "/"
};
/// None: the file is in no overlay. Errors: it does not exist; the server of its mount has died or
/// is not one of this user's.
Result<std::optional<ServedFile>> find_mount_of_file(const std::string& path);

/// A store as a user names it: by its directory, or by a mount of one of its views.
struct NamedStore {
    std::string directory;
    std::vector<RunningServer> servers;  ///< that serve views of it
};
Result<NamedStore> find_store(const std::string& path);

}  // namespace ivmm::overlay
