#include "vmm/fork/fork_transaction.h"

namespace ivmm {
namespace {

Unexpected at_step(Error error, const char* step) {
    return annotate(std::move(error), step);
}

/// Microseconds from a moment to one that another process has seen.
double us_until(uint64_t monotonic_ns, const Stopwatch& since) {
    const auto begin = std::chrono::nanoseconds(since.begin().time_since_epoch()).count();
    constexpr double kNsPerUs = 1000;
    return static_cast<double>(static_cast<int64_t>(monotonic_ns) - begin) / kNsPerUs;
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
    Result<void> done = net_ ? net_->hold() : Result<void>();
    if (!done) {
        return at_step(std::move(done).error(), "holding the attacker's frames");
    }
    control_.call([&] {
        report_.trigger_to_pause_us = trigger.us();
        done = instant();
    });
    if (!done) {
        return Unexpected{std::move(done).error()};
    }
    if (done = begin_clone(request, trigger); !done) {
        disks_->roll_back();
        return at_step(std::move(done).error(), "starting the clone");
    }
    return std::move(report_);
}

Result<void> ForkTransaction::prepare(const ForkRequest& request) {
    IVMM_TRY(launch_siblings(request));
    // The disks first: they refuse more often, and a target can be prepared but once.
    IVMM_ASSIGN(disks_, DiskFork::prepare(machine_.config().disks, machine_.config().name,
                                          request.clone, request.cause));
    return prepare_target(request);
}

Result<void> ForkTransaction::prepare_target(const ForkRequest& request) {
    if (!request.divert) {
        return target_.prepare(request);
    }
    ForkRequest on_switch = request;
    IVMM_ASSIGN(net_, NetFork::prepare(machine_.config().nets, request.clone, *request.divert));
    on_switch.nets = net_->nets();
    return target_.prepare(on_switch);
}

Result<void> ForkTransaction::launch_siblings(const ForkRequest& request) {
    for (uint32_t i = 2; i <= request.clones; ++i) {
        IVMM_ASSIGN(auto image, target_.open_image());
        IVMM_ASSIGN(auto sibling,
                    SiblingClone::launch(program_, machine_.config(), std::move(image),
                                         fmt::format("{}-{}", request.clone, i)));
        report_.siblings.push_back({});
        report_.siblings.back().clone = sibling->name();
        siblings_.push_back(std::move(sibling));
    }
    return {};
}

void ForkTransaction::fork_sibling_disks(const std::vector<ForkedDisk>& first) {
    for (size_t i = 0; i < siblings_.size(); ++i) {
        if (const auto done = siblings_[i]->fork_disks(first); !done) {
            report_.siblings[i].error = done.error().message;
        }
    }
}

void ForkTransaction::start_siblings(const ForkRequest& request, const Stopwatch& trigger) {
    for (size_t i = 0; i < siblings_.size(); ++i) {
        auto& report = report_.siblings[i];
        if (!report.error.empty()) {
            continue;
        }
        auto started = siblings_[i]->start(request, state_);
        if (!started) {
            report.error = started.error().message;
            continue;
        }
        report.clone_pid = started->pid;
        report.trigger_to_run_us = us_until(started->first_run_ns, trigger);
        report.clone_private_bytes = started->private_bytes;
        report.hook_us = started->hook_us;
        report.disks = std::move(started->disks);
        children_.push_back(siblings_[i]->take_child());
    }
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
    if (net_) {
        const Stopwatch diverting;
        if (auto diverted = net_->commit(); !diverted) {
            return at_step(std::move(diverted).error(), "diverting the attacker's flows");
        }
        report_.net_commit_us = diverting.us();
        report_.net = net_->report();
    }
    return {};
}

Result<void> ForkTransaction::begin_clone(const ForkRequest& request, const Stopwatch& trigger) {
    IVMM_ASSIGN(const auto disks, disks_->finish());
    fork_sibling_disks(disks);
    IVMM_ASSIGN(auto started, target_.start(state_, disks));
    report_.trigger_to_run_us = us_until(started.first_run_ns, trigger);
    report_.clone_private_bytes = started.private_bytes;
    report_.hook_us = started.hook_us;
    report_.clone_pid = started.pid;
    report_.disks = std::move(started.disks);
    if (!started.clone.empty()) {
        report_.clone = started.clone;
    }
    if (auto child = target_.take_child()) {
        children_.push_back(*std::move(child));
    }
    if (net_) {
        net_->keep();
    }
    start_siblings(request, trigger);
    if (!target_.uses_disks()) {
        disks_->roll_back();
    }
    return {};
}

}  // namespace ivmm
