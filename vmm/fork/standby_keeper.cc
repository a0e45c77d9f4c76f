#include "vmm/fork/standby_keeper.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include "base/log.h"
#include "vmm/config/validate.h"
#include "vmm/fork/clone_record.h"
#include "vmm/fork/fork_transaction.h"
#include "vmm/fork/local_target.h"

namespace ivmm {
namespace {

constexpr double kUsPerMs = 1000;
constexpr double kRetryMs = 1000;
/// When whoever waits for the answer of a fork has it.
constexpr double kAtOnceMs = 1;
/// For a clone that is to end.
constexpr int kEndPatienceMs = 5000;

}  // namespace

Result<std::unique_ptr<StandbyKeeper>> StandbyKeeper::create(Machine& machine, EventLoop& control,
                                                             Options options) {
    auto keeper =
        std::unique_ptr<StandbyKeeper>(new StandbyKeeper(machine, control, std::move(options)));
    keeper->timer_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!keeper->timer_) {
        return fail_errno("cannot create a timer");
    }
    return keeper;
}

StandbyKeeper::~StandbyKeeper() {
    if (thread_) {
        thread_->loop().call([this] {
            discard();
            timer_watch_.reset();
            clones_.clear();
        });
    }
}

void StandbyKeeper::post(EventLoop::Task task) {
    if (!thread_) {
        auto thread = LoopThread::start("standby");
        if (!thread) {
            log::error("no thread for the standby: {}", thread.error().message);
            return;
        }
        thread_ = *std::move(thread);
        thread_->loop().post([this] {
            auto watch = thread_->loop().watch(timer_.get(), EPOLLIN, [this](uint32_t) { tick(); });
            if (watch) {
                timer_watch_ = *std::move(watch);
            } else {
                log::error("no timer for the standby: {}", watch.error().message);
            }
        });
    }
    thread_->loop().post(std::move(task));
}

TargetFactory StandbyKeeper::local() const {
    return [this] { return LocalTarget::create(machine_, options_.program); };
}

void StandbyKeeper::keep_standby(Done<void> done) {
    keep_target({}, local(), std::move(done));
}

void StandbyKeeper::keep_target(std::string where, TargetFactory make, Done<void> done) {
    post([this, where = std::move(where), make = std::move(make), done = std::move(done)] {
        if (where != where_) {
            discard();
        }
        const auto before = std::exchange(make_, make);
        const auto where_before = std::exchange(where_, where);
        auto built = is_ready() ? Result<void>() : build();
        if (!built) {
            log::error("no standby: {}", built.error().message);
        }
        if (!built && where != where_before) {
            make_ = before;
            where_ = where_before;
            set_phase(make_ ? StandbyStatus::Phase::kBuilding : StandbyStatus::Phase::kNone);
            arm(make_ ? kAtOnceMs : 0);
        }
        if (done) {
            done(std::move(built));
        }
    });
}

void StandbyKeeper::drop_standby(Done<void> done) {
    post([this, done = std::move(done)] {
        make_ = {};
        where_.clear();
        discard();
        set_phase(StandbyStatus::Phase::kNone);
        done({});
    });
}

void StandbyKeeper::fork(ForkRequest request, Done<ForkReport> done) {
    post([this, request = std::move(request), trigger = Stopwatch(), done = std::move(done)] {
        auto report = fork_now(request, trigger);
        {
            const std::scoped_lock lock(mutex_);
            status_.history.note(report);
        }
        done(std::move(report));
        // Nobody waits any more for what is left to do.
        recycle();
        if (stale_) {
            make_ ? arm(kAtOnceMs) : discard();
        }
    });
}

void StandbyKeeper::use_synchroniser(std::function<void(Result<Synchroniser*>)> use) {
    post([this, use = std::move(use)] {
        if (stale_) {
            discard();
            arm(make_ ? kAtOnceMs : 0);  // when this is done
        }
        if (auto* const kept = target_ ? target_->lend_synchroniser() : nullptr) {
            use(kept);
            return;
        }
        auto own = start_synchroniser(machine_, "a copy of the memory");
        use(own ? Result<Synchroniser*>(own->get())
                : Result<Synchroniser*>(Unexpected{std::move(own).error()}));
    });
}

StandbyStatus StandbyKeeper::status() const {
    const std::scoped_lock lock(mutex_);
    return status_;
}

void StandbyKeeper::set_phase(StandbyStatus::Phase phase, std::string error) {
    const std::scoped_lock lock(mutex_);
    status_.phase = phase;
    status_.error = std::move(error);
    status_.pid = is_ready() ? target_->pid() : 0;
    status_.where = where_;
    status_.clones = static_cast<uint32_t>(clones_.size());
    status_.forks = forks_;
    if (!is_ready()) {
        status_.replica_bytes = status_.rounds = status_.last_dirty_pages = 0;
        status_.lag_pages = status_.sent_bytes = 0;
        status_.last_round_us = status_.interval_ms = 0;
    }
}

Result<void> StandbyKeeper::build() {
    set_phase(StandbyStatus::Phase::kBuilding);
    auto built = build_target();
    if (!built) {
        discard();
        set_phase(StandbyStatus::Phase::kFailed, built.error().message);
    }
    return built;
}

Result<void> StandbyKeeper::build_target() {
    if (target_) {
        IVMM_ASSIGN(const bool renewed, target_->renew());
        if (!renewed) {
            target_.reset();
        }
    }
    if (!target_) {
        IVMM_ASSIGN(target_, make_ ? make_() : local()());
    }
    stale_ = false;
    IVMM_TRY(sync());
    if (target_->lost_fd() >= 0) {
        IVMM_ASSIGN(target_watch_,
                    thread_->loop().watch(target_->lost_fd(), EPOLLIN, [this](uint32_t) {
                        log::warning("the standby's process has ended; the next one is made");
                        replace_target();
                        arm(make_ ? kRetryMs : 0);
                    }));
    }
    return {};
}

void StandbyKeeper::discard() {
    target_watch_.reset();
    target_.reset();
    stale_ = false;
    arm(0);
}

void StandbyKeeper::replace_target() {
    target_watch_.reset();
    stale_ = true;
    set_phase(make_ ? StandbyStatus::Phase::kBuilding : StandbyStatus::Phase::kNone);
}

StandbyStatus::Phase StandbyKeeper::phase_of_target() const {
    return target_->in_sync() ? StandbyStatus::Phase::kInSync : StandbyStatus::Phase::kBuilding;
}

Result<void> StandbyKeeper::sync() {
    const double before_us = thread_cpu_us();
    IVMM_ASSIGN(const auto progress, target_->sync());
    // What it has cost, not how long others have held it up.
    const double cost_us = thread_cpu_us() - before_us;
    set_phase(phase_of_target(), progress.trouble);
    const auto interval = std::clamp(cost_us / kUsPerMs / options_.cpu_share, options_.interval_ms,
                                     options_.max_interval_ms);
    {
        const std::scoped_lock lock(mutex_);
        ++status_.rounds;
        status_.last_dirty_pages = progress.round.dirty;
        status_.last_round_us = progress.round.us;
        status_.replica_bytes = progress.replica_bytes;
        status_.lag_pages = progress.lag_pages;
        status_.sent_bytes = progress.sent_bytes;
        status_.interval_ms = interval;
    }
    arm(progress.more ? kAtOnceMs : interval);
    return {};
}

void StandbyKeeper::arm(double milliseconds) {
    constexpr double kNsPerMs = 1e6;
    constexpr int64_t kNsPerSecond = 1'000'000'000;
    const auto ns = static_cast<int64_t>(milliseconds * kNsPerMs);
    itimerspec when{};
    when.it_value = {ns / kNsPerSecond, ns % kNsPerSecond};
    ::timerfd_settime(timer_.get(), 0, &when, nullptr);
}

void StandbyKeeper::tick() {
    uint64_t expirations = 0;
    if (::read(timer_.get(), &expirations, sizeof expirations) < 0) {
        return;
    }
    if (!is_ready()) {
        // One that was used or lost, or could not be had at the last try.
        if (const auto built = make_ ? build() : Result<void>(); !built) {
            arm(kRetryMs);
        }
        return;
    }
    if (const auto done = sync(); !done) {
        log::error("the standby cannot be kept in sync: {}", done.error().message);
        discard();
        set_phase(StandbyStatus::Phase::kFailed, done.error().message);
    }
}

Result<void> StandbyKeeper::check_room(uint32_t more) const {
    // With recycle, the oldest ones go when the new ones run: a fork that fails costs none.
    const size_t before = options_.recycle ? 0 : clones_.size();
    if (before + more > options_.max_clones) {
        return fail("{} clones of this guest run, and there may be {} at most: stop one",
                    clones_.size(), options_.max_clones);
    }
    return {};
}

void StandbyKeeper::recycle() {
    while (clones_.size() > options_.max_clones) {
        end_oldest_clone();
    }
}

void StandbyKeeper::end_oldest_clone() {
    const auto oldest = std::ranges::min_element(
        clones_, {}, [](const auto& entry) { return entry.second.number; });
    const pid_t pid = oldest->first;
    log::info("there are {} clones: the oldest (process {}) is stopped", clones_.size(), pid);
    // As for everybody who ends it; one that does not listen has no more time than its disks need.
    ::kill(pid, SIGTERM);
    pollfd ended{oldest->second.pidfd.get(), POLLIN, 0};
    if (::poll(&ended, 1, kEndPatienceMs) <= 0) {
        log::warning("the process {} of the oldest clone does not end, and is killed", pid);
        ::kill(pid, SIGKILL);
    }
    forget_clone(pid);
}

Result<ForkReport> StandbyKeeper::fork_now(const ForkRequest& request, const Stopwatch& trigger) {
    ForkRequest named = request;
    if (named.clone.empty()) {
        named.clone = free_clone_name(machine_.config().name);
        named.name_is_made_up = true;
    }
    IVMM_TRY(check_guest_name(named.clone));
    IVMM_TRY(check_room(named.clones));
    const bool waited_for_sync = status().phase != StandbyStatus::Phase::kInSync;
    if (!is_ready()) {
        IVMM_TRY(build());
    }
    ForkTransaction transaction(machine_, control_, *target_, options_.program);
    auto report = transaction.run(named, trigger);
    if (report) {
        report->waited_for_sync = waited_for_sync;
        report->where = where_;
        ++forks_;
        report->fork_point = fmt::format("{}@{}", machine_.config().name, forks_);
        target_watch_.reset();  // it is the clone's process now
        for (auto& child : transaction.take_children()) {
            adopt(std::move(child));
        }
    }
    if (target_->spent() || !make_) {
        replace_target();
    } else {
        set_phase(phase_of_target());
        arm(kAtOnceMs);
    }
    return report;
}

void StandbyKeeper::adopt(ForkTarget::Child child) {
    const pid_t pid = child.pid;
    Clone clone;
    clone.number = ++adopted_;
    clone.pidfd = std::move(child.pidfd);
    auto watch = thread_->loop().watch(clone.pidfd.get(), EPOLLIN,
                                       [this, pid](uint32_t) { forget_clone(pid); });
    if (watch) {
        clone.watch = *std::move(watch);
    }
    clones_.emplace(pid, std::move(clone));
}

void StandbyKeeper::forget_clone(pid_t pid) {
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    clones_.erase(pid);
    const std::scoped_lock lock(mutex_);
    status_.clones = static_cast<uint32_t>(clones_.size());
}

}  // namespace ivmm
