#include "vmm/overlay/running_servers.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <optional>

#include "vmm/control/runtime_dir.h"
#include "vmm/overlay/mount_table.h"

namespace ivmm::overlay {
namespace {

using rpc::Json;

/// One server that does not answer must not make the others wait for long.
constexpr std::chrono::seconds kPatience{5};

Json mounts_of(const RunningServer& server) {
    return server.status.is_object() ? server.status.value("mounts", Json::array()) : Json::array();
}

/// What the silent ones serve is not known; so a "no" may be wrong.
std::string silent_ones(const std::vector<RunningServer>& servers) {
    std::string text;
    for (const auto& server : servers) {
        if (server.status.is_null()) {
            text += fmt::format("; the overlay server with pid {} does not answer", server.pid);
        }
    }
    return text;
}

/// The mounts of all servers whose member `key` has this value.
std::vector<ServedMount> select(std::vector<RunningServer>& servers, const char* key,
                                const std::string& value) {
    std::vector<ServedMount> found;
    for (auto& server : servers) {
        const Json mounts = mounts_of(server);
        for (const auto& mount : mounts) {
            if (mount.value(key, "") == value) {
                found.push_back({std::move(server), mount, mount.value("view", ""),
                                 mount.value("mountpoint", "")});
                break;  // a server serves a view and a mount point at most once
            }
        }
    }
    return found;
}

Result<ServedMount> mount_at(std::vector<RunningServer> servers, const std::string& path) {
    IVMM_ASSIGN(const auto mountpoint, resolve(path));
    const std::string silent = silent_ones(servers);
    auto found = select(servers, "mountpoint", mountpoint);
    if (!found.empty()) {
        return std::move(found.front());
    }
    if (is_dead(mountpoint)) {
        return dead_mount(path);
    }
    return fail("no overlay is mounted at '{}'; `ivmm overlay status` shows those that are{}", path,
                silent);
}

}  // namespace

Result<std::vector<RunningServer>> running_servers() {
    const RuntimeDir runtime = RuntimeDir::find_overlay();
    IVMM_ASSIGN(const auto pids, runtime.running());
    std::vector<RunningServer> servers;
    for (const auto& pid : pids) {
        auto socket = runtime.connect(pid);
        if (!socket) {
            continue;  // it is about to begin, or has just ended
        }
        ControlClient client(*std::move(socket), fmt::format("the overlay server (pid {})", pid));
        auto status = client.call("status", Json::object(), kPatience);
        servers.push_back({pid, std::move(client), status ? *std::move(status) : Json()});
    }
    return servers;
}

Result<ServedMount> find_mount(const std::string& path) {
    IVMM_ASSIGN(auto servers, running_servers());
    return mount_at(std::move(servers), path);
}

Result<std::optional<ServedFile>> find_mount_of_file(const std::string& path) {
    IVMM_ASSIGN(const auto real, resolve(path));
    IVMM_ASSIGN(const auto mounts, read_mount_table());
    struct stat info {};
    if (::stat(real.c_str(), &info) != 0) {
        return errno == ENOTCONN ? dead_mount_of(real) : fail_errno("'{}'", path);
    }
    // File systems without a block device have major number 0.
    const auto place = major(info.st_dev) == 0 ? place_in_view(mounts, real, minor(info.st_dev))
                                               : std::optional<PlaceInView>();
    if (!place) {
        return std::optional<ServedFile>();
    }
    IVMM_ASSIGN(auto servers, running_servers());
    const std::string silent = silent_ones(servers);
    for (const auto& mount : mounts) {
        if (mount.minor == place->mount->minor && mount.root == "/") {
            if (auto found = select(servers, "mountpoint", mount.mountpoint); !found.empty()) {
                return std::optional(ServedFile{std::move(found.front()), place->path});
            }
        }
    }
    if (is_dead(place->mount->mountpoint)) {  // what stat() has told was the kernel's memory
        return dead_mount(place->mount->mountpoint);
    }
    return fail(
        "'{}' is on the overlay mounted at '{}', but no overlay server of this user serves "
        "that; `ivmm overlay status` shows those that run{}",
        path, place->mount->mountpoint, silent);
}

Result<ServedMount> find_mount_or_view(const std::string& name) {
    IVMM_ASSIGN(auto servers, running_servers());
    if (name.find('/') != name.npos) {
        return mount_at(std::move(servers), name);
    }
    const std::string silent = silent_ones(servers);
    if (const auto mountpoint = resolve(name)) {
        auto found = select(servers, "mountpoint", *mountpoint);
        if (!found.empty()) {
            return std::move(found.front());
        }
        if (is_dead(*mountpoint)) {
            return dead_mount(name);
        }
    }
    auto found = select(servers, "view", name);
    if (found.size() > 1) {
        return fail_as(ErrorKind::kUsage,
                       "views named '{}' of several stores are mounted; name the mount point "
                       "instead: '{}' or '{}'",
                       name, found[0].mountpoint, found[1].mountpoint);
    }
    if (!found.empty()) {
        return std::move(found.front());
    }
    return fail("no view or mount point '{}'; `ivmm overlay status` shows those that are mounted{}",
                name, silent);
}

Result<NamedStore> find_store(const std::string& path) {
    NamedStore store;
    IVMM_ASSIGN(store.directory, resolve(path));
    IVMM_ASSIGN(store.servers, running_servers());
    for (const auto& server : store.servers) {
        for (const auto& mount : mounts_of(server)) {
            if (mount.value("mountpoint", "") == store.directory) {
                store.directory = server.status.value("store", "");
                if (store.directory.empty()) {
                    return fail("'{}' is a read-only union, without a store", path);
                }
                break;
            }
        }
    }
    if (is_dead(store.directory)) {
        return dead_mount(path);
    }
    std::erase_if(store.servers, [&](const RunningServer& server) {
        return !server.status.is_object() || server.status.value("store", "") != store.directory;
    });
    return store;
}

}  // namespace ivmm::overlay
