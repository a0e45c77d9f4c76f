#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "base/utc_time.h"
#include "vmm/cli/guest_command.h"
#include "vmm/cli/progress.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/snapshot.h"
#include "vmm/control/version.h"
#include "vmm/evidence/collect.h"
#include "vmm/evidence/disk.h"
#include "vmm/evidence/memory.h"
#include "vmm/fork/clone_removal.h"

namespace ivmm::cli {
namespace {

using evidence::Bundle;
using rpc::Json;

struct EvidenceOptions {
    std::string clone;
    std::string folder;
    bool as_json = false;
};

/// A snapshot of a clone that runs, with its disks; goes with this object.
class Instant {
 public:
    static Result<Instant> take(const std::string& clone, const std::string& folder) {
        SnapshotOptions options;
        options.guest = clone;
        options.folder = folder;
        IVMM_ASSIGN(auto report, make_snapshot(options));
        return Instant(folder, std::move(report));
    }
    Instant(Instant&& other) noexcept
        : folder_(std::move(other.folder_)), report_(std::exchange(other.report_, Json())) {}
    Instant& operator=(Instant&&) = delete;
    ~Instant() {
        const std::string record =
            report_.is_object() ? report_.value("disks_of", "") : std::string();
        if (record.empty()) {
            return;
        }
        const auto disks = read_clone_record(record);
        const auto removed = disks ? remove_clone_disks(*disks) : fail("{}", disks.error().message);
        if (!removed) {
            say(fmt::format("`ivmm rm {}` has to be done by hand: {}", record,
                            removed.error().message));
        }
    }

    const std::string& folder() const { return folder_; }
    /// Of its disks; of a machine without disks: one that names nothing.
    Result<CloneRecord> record() const {
        const std::string name = report_.value("disks_of", "");
        return name.empty() ? CloneRecord() : read_clone_record(name);
    }
    double pause_us() const { return report_.value("pause_us", 0.0); }

 private:
    Instant(std::string folder, Json report)
        : folder_(std::move(folder)), report_(std::move(report)) {}
    std::string folder_;
    Json report_;
};

/// What the clone's process knows of it, or has left; null: nothing.
Json testimony_of(const std::string& clone, ControlClient* process) {
    if (process != nullptr) {
        auto answer = process->call("evidence");
        return answer ? *std::move(answer) : Json();
    }
    std::ifstream file(clone_testimony_path(clone));
    Json left = file ? Json::parse(file, nullptr, false) : Json();
    return left.is_object() ? left : Json();
}

Result<Json> export_to(const EvidenceOptions& options, const std::string& folder) {
    IVMM_ASSIGN(const auto record, read_clone_record(options.clone));
    IVMM_ASSIGN(const bool running, is_running(options.clone));
    const EndSignals blocked;
    IVMM_ASSIGN(const UniqueFd end, EndSignals::open());
    IVMM_ASSIGN(auto bundle, Bundle::begin(folder));
    std::optional<Progress> progress;
    std::string shown;
    const auto on_progress = [&](const std::string& what, double done) {
        if (shown != what) {
            progress.emplace(fmt::format("{} of {}", what, options.clone));
            shown = what;
        }
        progress->show(done);
        return !EndSignals::take(end.get());
    };
    Json about{{"version", 1},
               {"ivmm", kVersion},
               {"clone", record.clone},
               {"primary", record.primary},
               {"forked", record.created},
               {"exported", utc_time()},
               {"running", running}};
    std::optional<Instant> instant;
    evidence::Findings findings;
    findings.cause = record.cause;
    CloneRecord now = record;
    Json status;
    Json testimony;
    if (running) {
        IVMM_ASSIGN(auto client, connect_to_guest(options.clone));
        IVMM_ASSIGN(status, client.call("status"));
        testimony = testimony_of(options.clone, &client);
        IVMM_ASSIGN(auto taken, Instant::take(options.clone, bundle.scratch() + "/snapshot"));
        instant.emplace(std::move(taken));
        IVMM_ASSIGN(now, instant->record());
        about["pause_us"] = instant->pause_us();
        const Json fork_point =
            testimony.is_object() ? testimony.value("fork_point", Json()) : Json();
        IVMM_ASSIGN(findings.memory,
                    evidence::add_memory(bundle, instant->folder(), fork_point, on_progress));
    } else {
        testimony = testimony_of(options.clone, nullptr);
        bundle.add_missing("memory: the clone does not run any more");
    }
    IVMM_TRY(evidence::add_record(bundle, record, status));
    for (size_t i = 0; i < now.disks.size(); ++i) {
        IVMM_ASSIGN(auto files, evidence::add_disk(bundle, i, evidence::disk_states(record, now, i),
                                                   on_progress));
        findings.disks.push_back({fmt::format("disk{}", i), std::move(files)});
    }
    IVMM_TRY(evidence::add_network(bundle, options.clone, findings));
    IVMM_TRY(evidence::add_log(bundle, options.clone));
    IVMM_TRY(evidence::add_testimony(bundle, testimony, findings));
    findings.about = about;
    IVMM_TRY(evidence::add_report(bundle, findings));
    IVMM_TRY(bundle.finish(about));
    return about;
}

int export_evidence(const EvidenceOptions& options) {
    const std::string folder = absolute_folder(options.folder);
    const auto done = export_to(options, folder);
    if (!done) {
        return report(done.error());
    }
    if (options.as_json) {
        print("{}\n", done->dump(2));
    } else {
        print("{}: the evidence of {}; `sha256sum -c SHA256SUMS` there checks it\n", folder,
              options.clone);
    }
    return 0;
}

}  // namespace

void add_evidence(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("evidence", "Put what a clone was and did into a folder");
    const auto options = std::make_shared<EvidenceOptions>();
    command->add_option("CLONE", options->clone, "Name of a clone, whether it runs or has ended")
        ->required();
    command->add_option("DIR", options->folder, "Folder that is to be made")->required();
    command->add_flag("--json", options->as_json, "For programs");
    command->footer(
        "A clone that runs goes on; it stands still for as long as a snapshot takes.\n"
        "Example:\n"
        "  ivmm evidence trap /srv/evidence/trap-2026-01-31");
    command->callback(
        [&action, options] { action = [options] { return export_evidence(*options); }; });
}

}  // namespace ivmm::cli
