#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/overlay.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

struct OverlayStatusOptions {
    std::string mountpoint;
    bool as_json = false;
};

/// A mount together with what is the same for all mounts of its server.
Json with_server(const overlay::RunningServer& server, Json mount) {
    mount["pid"] = server.status.value("pid", 0);
    mount["store"] = server.status.value("store", "");
    mount["uptime_s"] = server.status.value("uptime_s", 0.0);
    return mount;
}

Result<Json> all_mounts() {
    IVMM_ASSIGN(const auto servers, overlay::running_servers());
    Json rows = Json::array();
    for (const auto& server : servers) {
        if (!server.status.is_object()) {
            say(fmt::format("the overlay server with pid {} does not answer", server.pid));
            continue;
        }
        for (const auto& mount : server.status.value("mounts", Json::array())) {
            rows.push_back(with_server(server, mount));
        }
    }
    return rows;
}

void print_row(std::string_view view, std::string_view layer, std::string_view depth,
               std::string_view files, std::string_view forks, std::string_view pid,
               std::string_view mountpoint) {
    print("{:<16} {:>6} {:>6} {:>6} {:>6} {:>8}  {}\n", view, layer, depth, files, forks, pid,
          mountpoint);
}

void show_mounts(const Json& rows) {
    const auto number = [](const Json& row, const char* key) {
        return fmt::format("{}", row.value(key, uint64_t{0}));
    };
    print_row("VIEW", "LAYER", "DEPTH", "OPEN", "FORKS", "PID", "MOUNTED AT");
    for (const auto& row : rows) {
        print_row(row.value("view", ""), number(row, "layer"), number(row, "depth"),
                  number(row, "open_files"), number(row, "forks"), number(row, "pid"),
                  row.value("mountpoint", ""));
        if (const std::string error = row.value("error", ""); !error.empty()) {
            print("  not durable any more: {}\n", error);
        }
    }
}

Result<void> status(const OverlayStatusOptions& options) {
    if (options.mountpoint.empty()) {
        IVMM_ASSIGN(const auto rows, all_mounts());
        options.as_json ? print("{}\n", rows.dump(2)) : show_mounts(rows);
        return {};
    }
    IVMM_ASSIGN(const auto served, overlay::find_mount(options.mountpoint));
    const Json row = with_server(served.server, served.mount);
    options.as_json ? print("{}\n", row.dump(2)) : show_mounts(Json::array({row}));
    return {};
}

}  // namespace

void add_overlay_status(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand("status", "Show what is mounted");
    const auto options = std::make_shared<OverlayStatusOptions>();
    command->add_option("MNT", options->mountpoint, "This mount alone");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm overlay status --json");
    command->callback(
        [&action, options] { action = [options] { return finish(status(*options)); }; });
}

}  // namespace ivmm::cli
