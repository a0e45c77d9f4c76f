#include "vmm/fork/standby_keeper.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>

#include "base/log.h"
#include "vmm/config/size.h"
#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/fork/fork_transaction.h"

namespace ivmm {
namespace {

/// What a standby needs besides the replica, and what the host keeps for itself.
constexpr uint64_t kSpareMemory = uint64_t{64} << 20;

constexpr double kUsPerMs = 1000;
constexpr double kRetryMs = 1000;
/// When whoever waits for the answer of a fork has it.
constexpr double kAtOnceMs = 1;

/// Bytes that programs can have without the host swapping (proc(5), meminfo).
uint64_t available_memory() {
    std::ifstream meminfo("/proc/meminfo");
    for (std::string word; meminfo >> word;) {
        uint64_t kibibytes = 0;
        if (word == "MemAvailable:" && meminfo >> kibibytes) {
            return kibibytes << 10;
        }
    }
    return 0;
}

/// What the calling thread has had of a processor.
double thread_cpu_us() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

/// A name that no guest and no clone has.
std::string free_name(const std::string& primary) {
    const std::string folder = RuntimeDir::find().path();
    for (uint32_t i = 1;; ++i) {
        std::string name = fmt::format("{}-clone-{}", primary, i);
        const std::string base = fmt::format("{}/{}", folder, name);
        if (::access((base + ".clone").c_str(), F_OK) != 0 &&
            ::access((base + ".lock").c_str(), F_OK) != 0) {
            return name;
        }
    }
}

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

void StandbyKeeper::keep_standby(Done<void> done) {
    post([this, done = std::move(done)] {
        wanted_ = true;
        auto built = standby_ ? Result<void>() : build();
        if (!built) {
            log::error("no standby: {}", built.error().message);
        }
        if (done) {
            done(std::move(built));
        }
    });
}

void StandbyKeeper::drop_standby(Done<void> done) {
    post([this, done = std::move(done)] {
        wanted_ = false;
        discard();
        set_phase(StandbyStatus::Phase::kNone);
        done({});
    });
}

void StandbyKeeper::fork(ForkRequest request, Done<ForkReport> done) {
    post([this, request = std::move(request), trigger = Stopwatch(), done = std::move(done)] {
        auto report = fork_now(request, trigger);
        const bool forked = report.has_value();
        done(std::move(report));
        if (forked) {
            leave_fork_point();
        }
    });
}

void StandbyKeeper::use_synchroniser(std::function<void(Result<Synchroniser*>)> use) {
    post([this, use = std::move(use)] {
        if (synchroniser_) {
            use(synchroniser_.get());
            return;
        }
        auto own = start_synchroniser("a copy of the memory");
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
    status_.pid = standby_ ? standby_->pid() : 0;
    status_.clones = static_cast<uint32_t>(clones_.size());
    status_.forks = forks_;
    if (!standby_) {
        status_.replica_bytes = status_.rounds = status_.last_dirty_pages = 0;
        status_.last_round_us = status_.interval_ms = 0;
    }
}

Result<void> StandbyKeeper::build() {
    set_phase(StandbyStatus::Phase::kBuilding);
    auto built = build_in_sync();
    if (built) {
        set_phase(StandbyStatus::Phase::kInSync);
        arm(options_.interval_ms);
    } else {
        discard();
        set_phase(StandbyStatus::Phase::kFailed, built.error().message);
    }
    return built;
}

Result<void> StandbyKeeper::check_memory(const char* what) const {
    const uint64_t present = synchroniser_ ? synchroniser_->replica().resident_bytes() : 0;
    const uint64_t whole = machine_.memory().resident_bytes() + kSpareMemory;
    const uint64_t needed = whole - std::min(whole, present);
    if (const uint64_t available = available_memory(); available < needed) {
        return fail("{} needs about {} and the host has {} left: stop clones or other guests", what,
                    format_size(needed), format_size(available));
    }
    return {};
}

Result<std::unique_ptr<Synchroniser>> StandbyKeeper::start_synchroniser(const char* what) const {
    IVMM_TRY(check_memory(what));
    return Synchroniser::start(machine_);
}

Result<void> StandbyKeeper::build_in_sync() {
    if (synchroniser_) {
        IVMM_TRY(check_memory("a standby"));
    } else {
        IVMM_ASSIGN(synchroniser_, start_synchroniser("a standby"));
    }
    IVMM_ASSIGN(auto image, synchroniser_->replica().open_for_reading());
    IVMM_ASSIGN(standby_, Standby::launch(options_.program, machine_.config(), std::move(image)));
    // While its process builds the clone.
    IVMM_TRY(sync());
    IVMM_TRY(standby_->wait_ready());
    IVMM_TRY(sync());
    IVMM_ASSIGN(standby_watch_, thread_->loop().watch(standby_->pidfd(), EPOLLIN, [this](uint32_t) {
        log::warning("the standby's process has ended; the next one is made");
        drop_process();
        rebuild_later(kRetryMs);
    }));
    return {};
}

void StandbyKeeper::discard() {
    drop_process();
    synchroniser_.reset();
}

void StandbyKeeper::drop_process() {
    standby_watch_.reset();
    standby_.reset();
    arm(0);
}

void StandbyKeeper::rebuild_later(double milliseconds) {
    set_phase(wanted_ ? StandbyStatus::Phase::kBuilding : StandbyStatus::Phase::kNone);
    if (wanted_) {
        arm(milliseconds);
    }
}

Result<void> StandbyKeeper::sync() {
    const double before_us = thread_cpu_us();
    IVMM_ASSIGN(const auto round, synchroniser_->round());
    // What it has cost, not how long others have held it up.
    const double cost_us = thread_cpu_us() - before_us;
    const std::scoped_lock lock(mutex_);
    ++status_.rounds;
    status_.last_dirty_pages = round.dirty;
    status_.last_round_us = round.us;
    status_.replica_bytes = synchroniser_->replica().resident_bytes();
    status_.interval_ms = std::clamp(cost_us / kUsPerMs / options_.cpu_share, options_.interval_ms,
                                     options_.max_interval_ms);
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
    if (!standby_) {
        // One that was lost, or could not be had at the last try.
        if (const auto built = wanted_ ? build() : Result<void>(); !built) {
            arm(kRetryMs);
        }
        return;
    }
    if (const auto done = sync(); !done) {
        log::error("the standby cannot be kept in sync: {}", done.error().message);
        discard();
        set_phase(StandbyStatus::Phase::kFailed, done.error().message);
        return;
    }
    arm(status().interval_ms);
}

Result<void> StandbyKeeper::check_limits() const {
    if (clones_.size() >= options_.max_clones) {
        return fail("{} clones of this guest run, and there may be no more: stop one",
                    clones_.size());
    }
    return {};
}

Result<ForkReport> StandbyKeeper::fork_now(const ForkRequest& request, const Stopwatch& trigger) {
    ForkRequest named = request;
    if (named.clone.empty()) {
        named.clone = free_name(machine_.config().name);
    }
    IVMM_TRY(check_guest_name(named.clone));
    IVMM_TRY(check_limits());
    const bool waited_for_sync = !standby_;
    if (!standby_) {
        IVMM_TRY(build());
    }
    ForkTransaction transaction(machine_, control_, *synchroniser_, *standby_);
    auto report = transaction.run(named, trigger);
    if (!report) {
        if (!wanted_) {
            discard();
            set_phase(StandbyStatus::Phase::kNone);
        } else if (transaction.standby_lost()) {
            drop_process();
            rebuild_later(kAtOnceMs);
        }
        return report;
    }
    report->waited_for_sync = waited_for_sync;
    ++forks_;
    report->fork_point = fmt::format("{}@{}", machine_.config().name, forks_);
    adopt(std::move(standby_));
    drop_process();
    set_phase(wanted_ ? StandbyStatus::Phase::kBuilding : StandbyStatus::Phase::kNone);
    return report;
}

void StandbyKeeper::leave_fork_point() {
    auto image = synchroniser_->begin_anew();
    if (!image) {
        log::error("no next standby: {}", image.error().message);
    } else if (const auto sealed = (*image)->seal(); !sealed) {
        // The clone has the image mapped, and keeps it; nobody is to change it any more.
        log::warning("{}", sealed.error().message);
    }
    if (!image || !wanted_) {
        synchroniser_.reset();
    }
    rebuild_later(kAtOnceMs);
}

void StandbyKeeper::adopt(std::unique_ptr<Standby> standby) {
    const pid_t pid = standby->pid();
    Clone clone;
    clone.pidfd = standby->take_pidfd();
    auto watch = thread_->loop().watch(clone.pidfd.get(), EPOLLIN, [this, pid](uint32_t) {
        ::waitpid(pid, nullptr, WNOHANG);
        clones_.erase(pid);
        const std::scoped_lock lock(mutex_);
        status_.clones = static_cast<uint32_t>(clones_.size());
    });
    if (watch) {
        clone.watch = *std::move(watch);
    }
    clones_.emplace(pid, std::move(clone));
}

}  // namespace ivmm
