#include "vmm/fork/fork_transaction.h"

namespace ivmm {
namespace {

Unexpected at_step(Error error, const char* step) {
    return annotate(std::move(error), step);
}

}  // namespace

Result<ForkReport> ForkTransaction::run(const ForkRequest& request, Stopwatch trigger) {
    report_.clone = request.clone;
    if (auto done = prepare(request); !done) {
        return at_step(std::move(done).error(), "preparing the clone");
    }
    auto rounds = synchroniser_.approach();
    if (!rounds) {
        return at_step(std::move(rounds).error(), "bringing the replica up to date");
    }
    report_.rounds = *rounds;
    Result<void> done;
    control_.call([&] {
        report_.trigger_to_pause_us = trigger.us();
        done = instant();
    });
    if (!done) {
        return Unexpected{std::move(done).error()};
    }
    if (done = begin_clone(trigger); !done) {
        disks_->roll_back();
        return at_step(std::move(done).error(), "starting the clone");
    }
    return std::move(report_);
}

Result<void> ForkTransaction::prepare(const ForkRequest& request) {
    // The disks first: they refuse more often, and a standby can be prepared but once.
    IVMM_ASSIGN(disks_,
                DiskFork::prepare(machine_.config().disks, machine_.config().name, request.clone));
    standby_lost_ = true;
    return standby_.prepare(request.clone, request.nets);
}

Result<void> ForkTransaction::instant() {
    // Whoever has paused the guest will resume it.
    const bool was_running = machine_.state() == RunState::kRunning;
    const Stopwatch pause;
    if (auto paused = machine_.pause(); !paused) {
        return at_step(std::move(paused).error(), "pausing the guest");
    }
    report_.stop_us = pause.us();
    auto done = instant_while_paused();
    const Stopwatch resuming;
    auto resumed = was_running ? machine_.resume() : Result<void>();
    report_.resume_us = resuming.us();
    report_.pause_us = pause.us();
    IVMM_TRY(std::move(done));
    if (!resumed) {
        return at_step(std::move(resumed).error(), "resuming the guest");
    }
    return {};
}

Result<void> ForkTransaction::instant_while_paused() {
    auto round = synchroniser_.last_round();
    if (!round) {
        return at_step(std::move(round).error(), "copying the last pages");
    }
    report_.residual_pages = round->dirty;
    report_.residual_copy_us = round->us;
    const Stopwatch saving;
    auto state = machine_.save();
    if (!state) {
        return at_step(std::move(state).error(), "saving the machine's state");
    }
    state_ = *std::move(state);
    report_.state_us = saving.us();
    const Stopwatch forking;
    if (auto forked = disks_->commit(); !forked) {
        return at_step(std::move(forked).error(), "forking the disks");
    }
    report_.disk_fork_us = forking.us();
    return {};
}

Result<void> ForkTransaction::begin_clone(const Stopwatch& trigger) {
    IVMM_ASSIGN(const auto disks, disks_->finish());
    std::vector<std::string> paths;
    for (const auto& disk : disks) {
        paths.push_back(disk.path);
        report_.disks.push_back({disk.path, disk.method});
    }
    IVMM_ASSIGN(const auto running, standby_.start(state_, std::move(paths)));
    const auto begin = std::chrono::nanoseconds(trigger.begin().time_since_epoch()).count();
    constexpr double kNsPerUs = 1000;
    report_.trigger_to_run_us =
        static_cast<double>(static_cast<int64_t>(running.first_run_ns) - begin) / kNsPerUs;
    report_.clone_private_bytes = running.private_bytes;
    report_.clone_pid = standby_.pid();
    return {};
}

}  // namespace ivmm
