#include "vmm/fork/clone_removal.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>

#include "storage/layer/store.h"
#include "vmm/fork/clone_claim.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm {
namespace {

using overlay::RunningServer;

/// Everything that was written goes to the disk; deleting many files takes its time.
constexpr std::chrono::hours kPatience{1};
/// The kernel closes the files of a process that was using io_uring a little after its end.
constexpr int kUnmountAttempts = 20;
constexpr std::chrono::milliseconds kBetweenAttempts{50};

/// Whether anything of ours is mounted there; unmounts what a dead server has left.
Result<bool> is_mounted(const std::string& mountpoint) {
    IVMM_ASSIGN(const auto mounts, overlay::read_mount_table());
    bool mounted = false;
    for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
        if (mount->mountpoint == mountpoint) {
            if (overlay::is_dead(mountpoint)) {
                IVMM_TRY(overlay::remove_dead_mount(*mount));
            } else {
                mounted = true;
            }
        }
    }
    return mounted;
}

Result<void> unmount_once(const CloneView& view, bool force) {
    IVMM_ASSIGN(auto served, overlay::find_mount(view.mountpoint));
    auto& client = served.server.client;
    IVMM_ASSIGN(const auto answer,
                client.call("umount", {{"view", served.view}, {"force", force}}, kPatience));
    if (answer.is_object() && answer.value("remaining", 0) == 0) {
        // The server ends; when it has, the store is free.
        IVMM_TRY(client.wait_for_end("overlay.unmounted", kPatience));
    }
    return {};
}

Result<void> unmount(const CloneView& view, bool force) {
    for (int attempt = 1;; ++attempt) {
        IVMM_ASSIGN(const bool mounted, is_mounted(view.mountpoint));
        if (!mounted) {
            return {};
        }
        auto outcome = unmount_once(view, force);
        if (outcome) {
            return {};
        }
        if (force || attempt == kUnmountAttempts) {
            return outcome;
        }
        std::this_thread::sleep_for(kBetweenAttempts);
    }
}

/// Whether the store has the view.
Result<bool> exists(storage::Store& store, const std::string& view) {
    IVMM_ASSIGN(const auto views, store.views());
    return std::ranges::find(views, view, &storage::Store::ViewInfo::name) != views.end();
}

/// A server of the store. Errors: the view's own server runs and does not answer, so nobody knows.
Result<std::optional<RunningServer>> find_server(const CloneView& view) {
    IVMM_ASSIGN(auto servers, overlay::running_servers());
    for (auto& server : servers) {
        if (server.status.is_null() && server.pid == std::to_string(view.server_pid)) {
            return fail(
                "the overlay server with pid {} does not answer; try again when it does, "
                "or end it",
                server.pid);
        }
        if (server.status.is_object() && server.status.value("store", "") == view.store) {
            return std::optional(std::move(server));
        }
    }
    return std::optional<RunningServer>();
}

Result<void> remove_view(const CloneView& view) {
    IVMM_ASSIGN(auto server, find_server(view));
    // The server first: it may yet have to carry out a fork that makes the view.
    auto removed = server ? server->client.call("remove_view", {{"view", view.view}}, kPatience)
                          : Result<rpc::Json>(rpc::Json());
    if (server && removed) {
        return {};
    }
    if (::access((view.store + "/STORE").c_str(), F_OK) != 0 && errno == ENOENT) {
        return {};  // the whole store is gone
    }
    IVMM_ASSIGN(const auto store, storage::Store::open(view.store));
    IVMM_ASSIGN(const bool there, exists(*store, view.view));
    if (!there) {
        return {};
    }
    return removed ? store->remove_view(view.view) : Result<void>(Unexpected{removed.error()});
}

Result<void> remove_folder(const std::string& folder) {
    if (::rmdir(folder.c_str()) != 0 && errno != ENOENT) {
        return fail_errno("cannot remove the folder '{}'", folder);
    }
    return {};
}

/// With the mount points in it, which are empty unless something is still mounted there.
Result<void> remove_clone_folder(const std::string& folder) {
    std::error_code error;
    std::vector<std::string> mountpoints;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        mountpoints.push_back(entry->path().string());
    }
    for (const auto& mountpoint : mountpoints) {
        IVMM_TRY(remove_folder(mountpoint));
    }
    return remove_folder(folder);
}

Result<void> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return fail_errno("cannot remove '{}'", path);
    }
    return {};
}

}  // namespace

Result<void> remove_claimed_clone_disks(const CloneRecord& record, bool force) {
    Result<void> first;
    const auto step = [&](Result<void> outcome) {
        if (!outcome && first) {
            first = annotate(std::move(outcome).error(),
                             fmt::format("clone '{}' is not removed", record.clone));
        }
        return first.has_value();
    };
    for (const auto& view : record.views) {
        auto unmounted = unmount(view, force);
        const bool free = unmounted.has_value();
        step(std::move(unmounted));
        if (free) {
            step(remove_view(view));
        }
    }
    for (const auto& disk : record.disks) {
        if (disk.method == "reflink" || disk.method == "copy" || disk.method == "sent") {
            step(remove_file(disk.path));
        }
    }
    step(remove_file(clone_testimony_path(record.clone)));
    // The record goes last: as long as it is there, all this can be done again.
    if (step({}) && step(remove_clone_folder(clone_folder(record.clone)))) {
        step(remove_file(clone_record_path(record.clone)));
    }
    return first;
}

Result<void> remove_clone_disks(const CloneRecord& record, bool force) {
    IVMM_ASSIGN(const auto claim, CloneClaim::take(record.clone));
    return remove_claimed_clone_disks(record, force);
}

}  // namespace ivmm
