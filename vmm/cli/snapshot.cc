#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "vmm/cli/guest_command.h"
#include "vmm/cli/progress.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/snapshot.h"
#include "vmm/config/size.h"

namespace ivmm::cli {
namespace {

using rpc::Json;
using Clock = std::chrono::steady_clock;

/// Between two looks at how far it is, and at signals.
constexpr std::chrono::milliseconds kLook{200};
/// Shorter snapshots show no progress.
constexpr std::chrono::seconds kQuick{1};

void show_snapshot(const Json& report) {
    const auto ms = [&](const char* key) { return report.value(key, 0.0) / 1000; };
    print("snapshot in {}: {} of memory, {} in the file\n", report.value("folder", ""),
          format_size(report.value("memory_bytes", uint64_t{0})),
          format_size(report.value("written_bytes", uint64_t{0})));
    print(
        "the guest stood still for {:.3f} ms: {} pages of memory {:.3f}, state {:.3f}, disks "
        "{:.3f}\n",
        ms("pause_us"), report.value("residual_pages", 0), ms("residual_copy_us"), ms("state_us"),
        ms("disk_fork_us"));
    for (const auto& disk : report.value("disks", Json::array())) {
        print("disk {} ({})\n", disk.value("path", ""), disk.value("method", ""));
    }
    if (const std::string disks = report.value("disks_of", ""); !disks.empty()) {
        print("`ivmm rm {}` removes the disks when the snapshot is not needed any more\n", disks);
    }
}

/// Waits for the answer of a call that has been asked. Meanwhile shows how far it is; a signal
/// cancels it. The caller holds an EndSignals.
Result<Json> wait_for(ControlClient& call, const SnapshotOptions& options) {
    IVMM_ASSIGN(auto other, connect_to_guest(options.guest));
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    const auto begin = Clock::now();
    std::optional<Progress> progress;
    auto on_instant = options.on_instant;
    while (true) {
        auto answer = call.answer(Clock::now() + kLook);
        if (answer || answer.error().code != ETIMEDOUT) {
            return answer;
        }
        if (EndSignals::take(signals.get())) {
            IVMM_TRY(other.call("snapshot.cancel"));
        }
        IVMM_ASSIGN(const auto status, other.call("snapshot.status"));
        const double done = status.value("done", 0.0);
        if (on_instant && done > 0) {
            std::exchange(on_instant, {})();
        }
        if (Clock::now() - begin > kQuick) {
            if (!progress) {
                progress.emplace("snapshot of " + options.guest);
            }
            progress->show(done);
        }
    }
}

}  // namespace

std::string absolute_folder(const std::string& path) {
    std::string whole = std::filesystem::absolute(path).lexically_normal().string();
    while (whole.size() > 1 && whole.ends_with('/')) {
        whole.pop_back();
    }
    return whole;
}

Result<Json> make_snapshot(const SnapshotOptions& options) {
    IVMM_ASSIGN(auto client, connect_to_guest(options.guest));
    // From before the call, so that whoever interrupts it leaves nothing behind.
    const EndSignals blocked;
    Json params = {{"folder", absolute_folder(options.folder)}, {"stop", options.stop}};
    if (options.base) {
        params["base"] = absolute_folder(*options.base);
    }
    IVMM_TRY(client.ask("snapshot", params, Clock::now() + ControlClient::kPatience));
    IVMM_ASSIGN(auto report, wait_for(client, options));
    if (options.stop) {
        IVMM_TRY(client.wait_for_end("guest.stopped", kStopPatience));
    }
    return report;
}

namespace {

int snapshot(const SnapshotOptions& options) {
    const auto made = make_snapshot(options);
    if (!made) {
        return report(made.error());
    }
    if (options.as_json) {
        print("{}\n", made->dump(2));
    } else {
        show_snapshot(*made);
    }
    return 0;
}

}  // namespace

void add_snapshot(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("snapshot", "Save a running guest in a folder, from which it can go on");
    const auto options = std::make_shared<SnapshotOptions>();
    command->add_option("NAME", options->guest, "Name of the guest, as `ivmm ls` shows it")
        ->required();
    command->add_option("DIR", options->folder, "Folder that is to be made")->required();
    command->add_option("--base", options->base,
                        "Folder of a snapshot: keep only what of the memory is different there");
    command->add_flag("--stop", options->stop,
                      "End the guest with it; its disks are kept as they are, not copied");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer(
        "The guest goes on, and its disks are forked at the instant of the snapshot.\n"
        "Example:\n"
        "  ivmm snapshot web /srv/web-monday\n"
        "  ivmm snapshot web /srv/web-tuesday --base /srv/web-monday\n"
        "  ivmm restore /srv/web-monday --name web-again");
    command->callback([&action, options] { action = [options] { return snapshot(*options); }; });
}

}  // namespace ivmm::cli
