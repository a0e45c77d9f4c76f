#include <CLI/CLI.hpp>
#include <future>
#include <memory>

#include "storage/flatten/flatten.h"
#include "vmm/cli/overlay.h"
#include "vmm/cli/progress.h"
#include "vmm/cli/signals.h"
#include "vmm/config/size.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/overlay/overlay_json.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

/// Copying large images takes its time.
constexpr std::chrono::hours kFlattenPatience{24};
constexpr std::chrono::milliseconds kLookAgain{500};

struct OverlayFlattenOptions {
    std::string store;
    std::string view;
    bool as_json = false;
};

/// Asks a server to do it, and looks how far it is.
Result<Json> flatten_served(overlay::RunningServer& server, const std::string& view) {
    auto answer = std::async(std::launch::async, [&] {
        return server.client.call("flatten", {{"view", view}}, kFlattenPatience);
    });
    Progress progress("flatten");
    while (answer.wait_for(kLookAgain) != std::future_status::ready) {
        const auto servers = overlay::running_servers();
        if (!servers) {
            continue;
        }
        for (const auto& running : *servers) {
            if (running.pid == server.pid && running.status.contains("flattening")) {
                progress.show(running.status["flattening"].value("done", 0.0));
            }
        }
    }
    return answer.get();
}

Result<Json> flatten_here(const std::string& directory, const std::string& view) {
    const EndSignals signals;
    IVMM_ASSIGN(const UniqueFd end, EndSignals::open());
    IVMM_ASSIGN(const auto store, storage::Store::open(directory));
    Progress progress("flatten");
    storage::FlattenOptions how;
    how.progress = [&](double done) {
        progress.show(done);
        return !EndSignals::take(end.get());
    };
    IVMM_ASSIGN(const auto report, storage::flatten(*store, view, how));
    return overlay::to_json(report);
}

/// The server that has the view mounted; else any, or none.
overlay::RunningServer* server_of(overlay::NamedStore& store, const std::string& view) {
    for (auto& server : store.servers) {
        for (const auto& mount : server.status.value("mounts", Json::array())) {
            if (mount.value("view", "") == view) {
                return &server;
            }
        }
    }
    return store.servers.empty() ? nullptr : &store.servers.front();
}

/// The view that is mounted there, or the first one of a store.
Result<std::string> view_of(const std::string& path, const overlay::NamedStore& store) {
    IVMM_ASSIGN(const auto resolved, overlay::resolve(path));
    for (const auto& server : store.servers) {
        for (const auto& mount : server.status.value("mounts", Json::array())) {
            if (mount.value("mountpoint", "") == resolved) {
                return mount.value("view", "");
            }
        }
    }
    return std::string("main");
}

void show_flattened(const Json& report) {
    const auto merged = report.value("merged", Json::array());
    const std::string view = report.value("view", "");
    for (const auto& run : merged) {
        const auto& layers = run["layers"];
        print("view {}: {} layers, {} to {}, are one now: {}\n", view, layers.size(),
              layers.back().get<uint32_t>(), layers.front().get<uint32_t>(),
              run["into"].get<uint32_t>());
    }
    for (const auto& reason : report.value("kept", Json::array())) {
        print("view {}: {}\n", view, reason.get<std::string>());
    }
    if (merged.empty()) {
        print("view {}: nothing to flatten\n", view);
    } else {
        print("they took {} on the disk, now {}\n",
              format_size(report.value("bytes_before", uint64_t{0})),
              format_size(report.value("bytes_after", uint64_t{0})));
    }
}

Result<void> flatten(const OverlayFlattenOptions& options) {
    IVMM_ASSIGN(auto found, overlay::find_store(options.store));
    std::string view = options.view;
    if (view.empty()) {
        IVMM_ASSIGN(view, view_of(options.store, found));
    }
    auto* const server = server_of(found, view);
    IVMM_ASSIGN(const Json report, server != nullptr ? flatten_served(*server, view)
                                                     : flatten_here(found.directory, view));
    if (options.as_json) {
        print("{}\n", report.dump(2));
    } else {
        show_flattened(report);
    }
    return {};
}

}  // namespace

void add_overlay_flatten(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand(
        "flatten", "Merge frozen layers of a view, while it is in use, so that there are fewer");
    const auto options = std::make_shared<OverlayFlattenOptions>();
    command->add_option("STORE|MNT", options->store, "The upper, or where a view of it is mounted")
        ->required();
    command->add_option(
        "--view", options->view,
        "The view whose layers are meant (default: the one mounted there, or main)");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm overlay flatten /mnt/web");
    command->callback(
        [&action, options] { action = [options] { return finish(flatten(*options)); }; });
}

}  // namespace ivmm::cli
