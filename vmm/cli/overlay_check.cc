#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string_view>

#include "storage/tools/check.h"
#include "vmm/cli/overlay.h"
#include "vmm/cli/progress.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;
using storage::CheckFinding;

struct OverlayCheckOptions {
    std::string path;
    bool dry_run = false;
    bool as_json = false;
};

struct Leftovers {
    std::vector<std::string> mounts;
    std::vector<std::string> stores;  ///< of those
    std::vector<std::string> pids;    ///< of killed servers that had left their sockets
};

/// Removes the mounts at the path, or of the store at the path, whose server has died.
Result<void> remove_dead_mounts(const std::string& path, Leftovers* removed) {
    IVMM_ASSIGN(const auto mounts, overlay::read_mount_table());
    // From the end: what lies on top goes first.
    for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
        if ((mount->mountpoint == path || mount->source == path) &&
            overlay::is_dead(mount->mountpoint)) {
            IVMM_TRY(overlay::remove_dead_mount(*mount));
            removed->mounts.push_back(mount->mountpoint);
            removed->stores.push_back(mount->source);
        }
    }
    return {};
}

Result<Leftovers> remove_leftovers(const std::string& path) {
    Leftovers removed;
    IVMM_ASSIGN(removed.pids, RuntimeDir::find_overlay().remove_leftovers());
    IVMM_TRY(remove_dead_mounts(path, &removed));
    return removed;
}

std::string_view severity_name(CheckFinding::Severity severity) {
    return severity == CheckFinding::Severity::kNote       ? "note"
           : severity == CheckFinding::Severity::kLeftover ? "leftover"
                                                           : "damage";
}

void show_check(const Leftovers& removed) {
    for (const auto& mount : removed.mounts) {
        print("'{}': its server had died; unmounted\n", mount);
    }
    for (const auto& pid : removed.pids) {
        print("the overlay server with pid {} had died; removed its socket\n", pid);
    }
}

void show_check(const std::string& store, const storage::CheckReport& report) {
    for (const auto& finding : report.findings) {
        print("{}: {}: {}{}\n", severity_name(finding.severity), finding.path, finding.what,
              finding.mended ? " (mended)" : "");
    }
    print("{}: layers {}, files and directories {}, parts of block files {}: {}\n", store,
          report.layers, report.objects, report.block_files,
          report.clean() ? "good" : "there is more to be mended");
}

Json to_json(const std::string& store, const storage::CheckReport& report) {
    Json findings = Json::array();
    for (const auto& finding : report.findings) {
        findings.push_back({{"severity", severity_name(finding.severity)},
                            {"path", finding.path},
                            {"what", finding.what},
                            {"mended", finding.mended}});
    }
    return {{"store", store},
            {"layers", report.layers},
            {"objects", report.objects},
            {"block_files", report.block_files},
            {"findings", std::move(findings)},
            {"good", report.clean()}};
}

/// The store that is meant; none: where nothing is mounted any more, and no store.
Result<std::optional<std::string>> store_of(const std::string& path, const Leftovers& removed) {
    if (!removed.stores.empty()) {
        return std::optional(removed.stores.front());
    }
    IVMM_ASSIGN(const auto found, overlay::find_store(path));
    if (::access((found.directory + "/STORE").c_str(), F_OK) != 0) {
        return std::optional<std::string>();
    }
    return std::optional(found.directory);
}

Result<storage::CheckReport> check_store(const std::string& store, bool repair) {
    Progress progress(store);
    storage::CheckOptions how;
    how.repair = repair;
    how.progress = [&](double done) { progress.show(done); };
    return storage::check_store(store, how);
}

Result<int> check(const OverlayCheckOptions& options) {
    IVMM_ASSIGN(const auto path, overlay::resolve(options.path));
    IVMM_ASSIGN(const auto removed, remove_leftovers(path));
    if (!options.as_json) {
        show_check(removed);
    }
    IVMM_ASSIGN(const auto store, store_of(path, removed));
    Json json = {{"unmounted", removed.mounts}, {"dead_servers", removed.pids}};
    bool good = true;
    if (store) {
        IVMM_ASSIGN(const auto report, check_store(*store, !options.dry_run));
        good = report.clean();
        if (options.as_json) {
            json["check"] = to_json(*store, report);
        } else {
            show_check(*store, report);
        }
    } else if (!options.as_json && removed.mounts.empty() && removed.pids.empty()) {
        print("'{}': neither a dead mount nor a store\n", options.path);
    }
    if (options.as_json) {
        print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
    }
    return good ? 0 : 1;
}

int run(const OverlayCheckOptions& options) {
    const auto code = check(options);
    return code ? *code : report(code.error());
}

}  // namespace

void add_overlay_check(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand(
        "check", "Clean up behind a server that has died; check a store, and mend what can be");
    const auto options = std::make_shared<OverlayCheckOptions>();
    command
        ->add_option("MNT|STORE", options->path,
                     "Where a view is mounted, or the upper that its server has served")
        ->required();
    command->add_flag("--json", options->as_json, "For programs");
    command->add_flag("-n,--dry-run", options->dry_run,
                      "Only say what is wrong with the store (dead mounts go all the same)");
    command->footer(
        "What is served is only read. Exit code 1: something is left that is wrong.\n"
        "Example:\n  ivmm overlay check /mnt/web");
    command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace ivmm::cli
