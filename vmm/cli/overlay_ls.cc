#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <memory>
#include <optional>

#include "storage/layer/files.h"
#include "storage/layer/store.h"
#include "vmm/cli/guest_command.h"
#include "vmm/cli/overlay.h"
#include "vmm/config/size.h"
#include "vmm/control/json_rpc.h"
#include "vmm/overlay/layer_tree.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

struct OverlayLsOptions {
    std::string store;
    bool as_json = false;
};

/// Seconds since a file was made, where the file system knows.
std::optional<double> age(const std::string& path) {
    struct statx info {};
    if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME, &info) != 0 ||
        (info.stx_mask & STATX_BTIME) == 0) {
        return std::nullopt;
    }
    return std::max(0.0, std::difftime(std::time(nullptr), info.stx_btime.tv_sec));
}

Json layer_json(const std::string& store, const overlay::LayerRow& row) {
    const std::string folder = fmt::format("{}/layers/{}", store, row.number);
    Json layer = {
        {"number", row.number},
        {"parent", row.parent},
        {"state", row.state},
        {"views", row.views},
        {"bytes", storage::disk_usage(folder + "/tree") + storage::disk_usage(folder + "/maps")},
        {"indent", row.indent}};
    if (const auto seconds = age(folder)) {
        layer["age_s"] = *seconds;
    }
    return layer;
}

Result<Json> list(const std::string& path) {
    IVMM_ASSIGN(const auto found, overlay::find_store(path));
    IVMM_ASSIGN(const auto store, storage::Store::open(found.directory));
    IVMM_ASSIGN(const auto manifests, store->manifests());
    IVMM_ASSIGN(const auto views, store->views());
    Json branches = Json::array();
    for (const auto& branch : store->lower()) {
        branches.push_back({{"number", branch->number()}, {"path", branch->name()}});
    }
    Json layers = Json::array();
    for (const auto& row : overlay::arrange_layers(manifests, views)) {
        layers.push_back(layer_json(found.directory, row));
    }
    Json view_list = Json::array();
    for (const auto& view : views) {
        view_list.push_back({{"name", view.name}, {"layer", view.top}, {"mounted", view.served}});
    }
    return Json{{"store", found.directory},
                {"uuid", store->uuid()},
                {"branches", std::move(branches)},
                {"layers", std::move(layers)},
                {"views", std::move(view_list)}};
}

void print_row(std::string_view layer, std::string_view state, std::string_view size,
               std::string_view age, std::string_view views) {
    print("{:<16} {:<7} {:>8} {:>10}  {}\n", layer, state, size, age, views);
}

void show_layers(const Json& listing) {
    print_row("LAYER", "STATE", "SIZE", "AGE", "VIEWS");
    const Json& branches = listing["branches"];
    for (auto branch = branches.rbegin(); branch != branches.rend(); ++branch) {
        print_row(fmt::format("{}", branch->value("number", 0)), "branch", "-", "-",
                  branch->value("path", ""));
    }
    std::map<std::string, bool> mounted;
    for (const auto& view : listing["views"]) {
        mounted[view.value("name", "")] = view.value("mounted", false);
    }
    for (const auto& layer : listing["layers"]) {
        std::string views;
        for (const auto& view : layer["views"]) {
            const auto name = view.get<std::string>();
            views += (views.empty() ? "" : ", ") + name + (mounted[name] ? " (mounted)" : "");
        }
        const std::string indent(2 * layer.value("indent", size_t{0}), ' ');
        print_row(fmt::format("{}{}", indent, layer.value("number", 0)), layer.value("state", ""),
                  format_size(layer.value("bytes", uint64_t{0})),
                  layer.contains("age_s") ? format_duration(layer.value("age_s", 0.0)) : "-",
                  views);
    }
}

Result<void> ls(const OverlayLsOptions& options) {
    IVMM_ASSIGN(const auto listing, list(options.store));
    if (options.as_json) {
        print("{}\n", listing.dump(2));
    } else {
        show_layers(listing);
    }
    return {};
}

}  // namespace

void add_overlay_ls(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand("ls", "List the layers of a store and its views");
    const auto options = std::make_shared<OverlayLsOptions>();
    command->add_option("STORE|MNT", options->store, "The upper, or where a view of it is mounted")
        ->required();
    command->add_flag("--json", options->as_json, "For programs");
    command->footer(
        "A layer stands below the one it is made on. States: branch (read-only, of others), open\n"
        "(a view writes it), frozen (on its way to the disk), sealed, spare (ready for a fork).\n"
        "Example:\n  ivmm overlay ls /srv/web");
    command->callback([&action, options] { action = [options] { return finish(ls(*options)); }; });
}

}  // namespace ivmm::cli
