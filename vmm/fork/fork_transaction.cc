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
    auto rounds = target_.approach();
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
    // The disks first: they refuse more often, and a target can be prepared but once.
    IVMM_ASSIGN(disks_,
                DiskFork::prepare(machine_.config().disks, machine_.config().name, request.clone));
    return target_.prepare(request);
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
    auto round = target_.last_round();
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
    IVMM_ASSIGN(auto started, target_.start(state_, disks));
    if (!target_.uses_disks()) {
        disks_->roll_back();
    }
    const auto begin = std::chrono::nanoseconds(trigger.begin().time_since_epoch()).count();
    constexpr double kNsPerUs = 1000;
    report_.trigger_to_run_us =
        static_cast<double>(static_cast<int64_t>(started.first_run_ns) - begin) / kNsPerUs;
    report_.clone_private_bytes = started.private_bytes;
    report_.clone_pid = started.pid;
    report_.disks = std::move(started.disks);
    if (!started.clone.empty()) {
        report_.clone = started.clone;
    }
    return {};
}

}  // namespace ivmm
