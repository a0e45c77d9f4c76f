#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
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
    /// `on_instant`: as in SnapshotOptions.
    static Result<Instant> take(const std::string& clone, const std::string& folder,
                                std::function<void()> on_instant) {
        SnapshotOptions options;
        options.on_instant = std::move(on_instant);
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
    /// Of its disks; `own`, the clone's, if it has none that it writes.
    Result<CloneRecord> record(const CloneRecord& own) const {
        const std::string name = report_.value("disks_of", "");
        return name.empty() ? own : read_clone_record(name);
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

/// One export. What the clone was at its fork and what it is now are brought into the bundle side
/// by side, as far as one does not need the other.
class Export {
 public:
    Export(Bundle& bundle, CloneRecord record, int signals)
        : bundle_(bundle), record_(std::move(record)), signals_(signals) {
        for (size_t i = 0; i < record_.disks.size(); ++i) {
            disks_.emplace_back(bundle_, record_, i);
        }
    }

    Result<Json> run(bool is_running) {
        about_ = {{"version", 1},
                  {"ivmm", kVersion},
                  {"clone", record_.clone},
                  {"primary", record_.primary},
                  {"forked", record_.created},
                  {"exported", utc_time()},
                  {"running", is_running}};
        findings_.cause = record_.cause;
        IVMM_TRY(is_running ? collect_running() : collect_ended());
        for (auto& disk : disks_) {
            IVMM_ASSIGN(auto files, disk.add_files());
            findings_.disks.push_back({disk.name(), std::move(files)});
        }
        IVMM_TRY(evidence::add_network(bundle_, record_.clone, findings_));
        IVMM_TRY(evidence::add_log(bundle_, record_.clone));
        IVMM_TRY(evidence::add_testimony(bundle_, testimony_, findings_));
        findings_.about = about_;
        IVMM_TRY(evidence::add_report(bundle_, findings_));
        return about_;
    }

 private:
    Result<void> collect_running() {
        IVMM_ASSIGN(auto client, connect_to_guest(record_.clone));
        IVMM_ASSIGN(const auto status, client.call("status"));
        IVMM_TRY(evidence::add_record(bundle_, record_, status));
        testimony_ = testimony_of(record_.clone, &client);
        fork_point_ = testimony_.is_object() ? testimony_.value("fork_point", Json()) : Json();
        // What it was at the fork is there already, but nobody uses the disk before the instant:
        // the clone would stand still for longer.
        std::promise<void> past;
        past_ = past.get_future().share();
        std::promise<Result<CloneRecord>> instant;
        const auto now = instant.get_future().share();
        auto memory = std::async(std::launch::async, [this, now] { return add_memory(now); });
        auto disks = std::async(std::launch::async, [this, now] { return add_disks(now); });
        instant.set_value(take_instant([&] { past.set_value(); }));
        const auto memory_done = memory.get();
        auto disks_done = disks.get();
        IVMM_TRY(now.get());
        IVMM_TRY(memory_done);
        return disks_done;
    }

    Result<CloneRecord> take_instant(const std::function<void()>& on_instant) {
        bool is_past = false;
        auto taken = Instant::take(record_.clone, bundle_.scratch() + "/snapshot", [&] {
            is_past = true;
            on_instant();
        });
        if (!taken) {
            stopped_ = true;
        }
        if (!is_past) {
            on_instant();
        }
        if (!taken) {
            return Unexpected{std::move(taken).error()};
        }
        about_["pause_us"] = taken->pause_us();
        instant_.emplace(*std::move(taken));
        return instant_->record(record_);
    }

    using Moment = std::shared_future<Result<CloneRecord>>;

    Result<void> add_memory(const Moment& now) {
        past_.wait();
        IVMM_TRY(evidence::add_fork_memory(bundle_, fork_point_, unseen()));
        IVMM_TRY(now.get());
        IVMM_ASSIGN(findings_.memory,
                    evidence::add_memory(bundle_, instant_->folder(), fork_point_, unseen()));
        return {};
    }

    Result<void> add_disks(const Moment& now) {
        past_.wait();
        for (auto& disk : disks_) {
            IVMM_TRY(disk.add_past(unseen()));
        }
        IVMM_TRY(now.get());
        return add_present(*now.get(), shown());
    }

    Result<void> add_present(const CloneRecord& now, const evidence::OnProgress& progress) {
        if (now.disks.size() != disks_.size()) {
            return fail("the clone's record has {} disks, and it has {}", disks_.size(),
                        now.disks.size());
        }
        for (auto& disk : disks_) {
            IVMM_TRY(disk.add_present(now, progress));
        }
        return {};
    }

    Result<void> collect_ended() {
        testimony_ = testimony_of(record_.clone, nullptr);
        bundle_.add_missing("memory: the clone does not run any more");
        IVMM_TRY(evidence::add_record(bundle_, record_, Json()));
        for (auto& disk : disks_) {
            IVMM_TRY(disk.add_past(shown()));
        }
        return add_present(record_, shown());
    }

    /// For the thread that waits, and shows how far it is.
    evidence::OnProgress shown() {
        return [this](const std::string& what, double done) {
            if (shown_ != what) {
                progress_.emplace(fmt::format("{} of {}", what, record_.clone));
                shown_ = what;
            }
            progress_->show(done);
            return go_on();
        };
    }
    /// For the others.
    evidence::OnProgress unseen() {
        return [this](const std::string&, double) { return go_on(); };
    }
    bool go_on() {
        if (EndSignals::take(signals_)) {
            stopped_ = true;
        }
        return !stopped_;
    }

    Bundle& bundle_;
    const CloneRecord record_;
    const int signals_;
    std::atomic<bool> stopped_ = false;
    std::shared_future<void> past_;  // the instant is
    std::optional<Instant> instant_;
    std::vector<evidence::DiskExport> disks_;
    evidence::Findings findings_;
    Json about_;
    Json testimony_;
    Json fork_point_;
    std::optional<Progress> progress_;
    std::string shown_;
};

Result<Json> export_to(const EvidenceOptions& options, const std::string& folder) {
    IVMM_ASSIGN(auto record, read_clone_record(options.clone));
    IVMM_ASSIGN(const bool running, is_running(options.clone));
    // The clone and its primary go first.
    constexpr int kNice = 10;
    static_cast<void>(::setpriority(PRIO_PROCESS, 0, kNice));
    const EndSignals blocked;
    IVMM_ASSIGN(const UniqueFd end, EndSignals::open());
    IVMM_ASSIGN(auto bundle, Bundle::begin(folder));
    IVMM_ASSIGN(auto about, Export(bundle, std::move(record), end.get()).run(running));
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
