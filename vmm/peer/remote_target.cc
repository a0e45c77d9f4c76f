#include "vmm/peer/remote_target.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "vmm/config/size.h"
#include "vmm/fork/stopwatch.h"
#include "vmm/kvm/host.h"
#include "vmm/peer/clock_shift.h"
#include "vmm/peer/cpu.h"
#include "vmm/peer/disk_sending.h"

namespace ivmm::peer {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// A round is no longer; what is left comes in the next.
constexpr milliseconds kSlice{100};
/// Batches on their way: about the product of a good link's bandwidth and delay.
constexpr uint64_t kWindow = 32;
/// Pages that may be left for a fork's pause, where they are copied, and for the way of them.
constexpr uint64_t kMaxResidue = 4096;
/// So few are left for it: more are written until it begins.
constexpr uint64_t kEnoughResidue = kMaxResidue - kMaxResidue / 4;
/// So few that another round would not find fewer.
constexpr uint64_t kFewPages = 64;
/// For how long a fork tries to get to kEnoughResidue, and, that reached, lower still.
constexpr seconds kApproachPatience{60};
constexpr seconds kApproachEnough{2};
constexpr milliseconds kRetry{1000};
constexpr milliseconds kAnswer{10'000};
/// For a machine to be built, and a replica to be copied.
constexpr milliseconds kBuild{60'000};
/// For disks that were sent to be on the medium, the clone's hook, and the clone to start.
constexpr milliseconds kStart{60'000 + CloneHook::kMostSeconds * 1000};
/// A round that took less of the processor than this waits for the link, not for the processor.
constexpr double kBusyShare = 0.25;

Result<std::vector<uint64_t>> disk_sizes(const GuestConfig& config) {
    std::vector<uint64_t> sizes;
    for (const auto& disk : config.disks) {
        const UniqueFd file(::open(disk.path.c_str(), O_RDONLY | O_CLOEXEC));
        const off_t size = file ? ::lseek(file.get(), 0, SEEK_END) : -1;
        if (size < 0) {
            return fail_errno("cannot look at disk {}", disk.path);
        }
        sizes.push_back(static_cast<uint64_t>(size));
    }
    return sizes;
}

}  // namespace

RemoteTarget::RemoteTarget(Machine& machine, Options options)
    : machine_(machine),
      options_(std::move(options)),
      sender_(machine.memory().size() / kPageSize) {}

Result<std::unique_ptr<ForkTarget>> RemoteTarget::create(Machine& machine, Options options) {
    auto target = std::unique_ptr<RemoteTarget>(new RemoteTarget(machine, std::move(options)));
    Hello& hello = target->hello_;
    hello.id = {random_number(), random_number()};
    hello.config = machine.config();
    hello.host_kind = host_kind_name(detect_host_kind());
    IVMM_ASSIGN(hello.cpu, cpu_fingerprint(hello.config.cpus));
    IVMM_ASSIGN(hello.disk_sizes, disk_sizes(hello.config));
    IVMM_TRY(target->connect());
    return std::unique_ptr<ForkTarget>(std::move(target));
}

RemoteTarget::~RemoteTarget() {
    if (link_) {
        Failed end;
        end.reason = "the guest needs no standby any more";
        // If it does not get there, the other host waits in vain for a while.
        static_cast<void>(link_->send(end));
    }
}

Result<void> RemoteTarget::connect() {
    IVMM_ASSIGN(auto stream,
                TlsStream::connect(options_.address, options_.keys, options_.interrupt));
    Link link(std::move(stream));
    IVMM_TRY(link.send(hello_));
    IVMM_ASSIGN(const auto welcome, link.receive<Welcome>(kBuild));
    if (welcome.fresh) {
        sender_.start_over();
        complete_ = false;
        first_copy_.reset();
    } else {
        sender_.resume(welcome.applied);
        first_copy_.reset();
    }
    link_.emplace(std::move(link));
    ready_ = prepared_ = false;
    trouble_.clear();
    return {};
}

void RemoteTarget::cut(const Error& error) {
    if (link_) {
        sent_before_ += link_->stream().bytes_written();
        link_.reset();
        warnings_.warning("the standby at {} lags behind: {}", options_.address, error.message);
    }
    trouble_ = error.message;
    ready_ = prepared_ = false;
    retry_at_ = Clock::now() + kRetry;
}

Synchroniser* RemoteTarget::lend_synchroniser() {
    tracker_.reset();
    return nullptr;
}

Result<void> RemoteTarget::collect() {
    auto& pending = sender_.pending();
    if (tracker_) {
        IVMM_TRY(tracker_->collect(pending));
        dirty_ = pending.count();
        return {};
    }
    IVMM_ASSIGN(tracker_, machine_.track_dirty());
    IVMM_TRY(tracker_->collect(pending));
    // Everything counts as written. Looking at what the guest has never touched would make it take
    // memory.
    uint64_t page = 0;
    const auto forget_until = [&](uint64_t end) {
        for (; page < end; ++page) {
            if (sender_.is_zero_there(page)) {
                pending.erase(page);
            }
        }
    };
    while (const auto data = machine_.memory().next_data(page)) {
        forget_until(data->first);
        page = data->first + data->count;
    }
    forget_until(pending.pages());
    dirty_ = pending.count();
    return {};
}

Result<void> RemoteTarget::take(const Frame& frame) {
    if (frame.type == MessageType::kReady) {
        ready_ = true;
        return {};
    }
    IVMM_ASSIGN(const auto applied, message_in<Applied>(frame, link_->name()));
    sender_.applied(applied.number);
    return {};
}

Result<void> RemoteTarget::hear(Clock::time_point until) {
    const auto left = [&] {
        return std::max(milliseconds{0}, std::chrono::ceil<milliseconds>(until - Clock::now()));
    };
    // Bounded, however much the other side has to say.
    for (uint64_t i = 0; i < 2 * kWindow; ++i) {
        IVMM_ASSIGN(const bool readable, link_->wait_readable(i == 0 ? left() : milliseconds{0}));
        if (!readable) {
            break;
        }
        IVMM_ASSIGN(const auto frame, link_->receive_frame(kAnswer));
        IVMM_TRY(take(frame));
    }
    return {};
}

template <StateStruct Message>
Result<Message> RemoteTarget::answer(milliseconds patience) {
    const auto end = Clock::now() + patience;
    while (true) {
        const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
        if (left.count() <= 0) {
            // It has not come to what was asked yet, if there are pages on their way before it.
            return sender_.in_flight() > 0
                       ? fail(
                             "pages lag behind after {} s: the link is too slow for what the guest "
                             "writes, or for the first copy",
                             std::chrono::duration_cast<std::chrono::seconds>(patience).count())
                       : fail("{} does not answer", link_->name());
        }
        IVMM_ASSIGN(const auto frame, link_->receive_frame(left));
        if (frame.type != MessageType::kApplied || Message::kType == MessageType::kApplied) {
            return message_in<Message>(frame, link_->name());
        }
        IVMM_TRY(take(frame));
    }
}

Result<void> RemoteTarget::send_batch(const PageSender::Source& source) {
    if (const auto batch = sender_.next(source)) {
        IVMM_TRY(link_->send(batch->message, batch->packed));
    }
    return {};
}

Result<void> RemoteTarget::send_pages(Clock::time_point end) {
    const GuestMemory& memory = machine_.memory();
    const auto source = [&](uint64_t first, uint64_t count, std::byte* out) {
        memory.copy_pages(first, count, out);
    };
    const auto& pending = sender_.pending();
    while (ready_ && pending.next(0) && Clock::now() < end) {
        if (sender_.in_flight() < kWindow) {
            IVMM_TRY(send_batch(source));
            IVMM_TRY(hear(Clock::now()));
        } else {
            IVMM_TRY(hear(end));
        }
    }
    // What was sent counts when it has arrived.
    while (Clock::now() < end && (!ready_ || sender_.in_flight() > 0)) {
        IVMM_TRY(hear(end));
    }
    return {};
}

Result<ForkTarget::Progress> RemoteTarget::sync() {
    const double cpu = thread_cpu_us();
    const auto begin = Clock::now();
    if (prepared_) {
        // A fork that was not carried out: the other side makes another standby.
        cut({ErrorKind::kFailed, 0, "a fork was broken off"});
        retry_at_ = begin;
    }
    if (!link_ && begin >= retry_at_) {
        if (const auto connected = connect(); !connected) {
            cut(connected.error());
        }
    }
    Progress progress;
    IVMM_TRY(collect());
    progress.round.dirty = dirty_;
    if (link_) {
        if (const auto sent = send_pages(begin + kSlice); !sent) {
            cut(sent.error());
        }
    }
    const uint64_t lag = sender_.pending().count();
    if (!complete_ && !first_copy_ && ready_ && lag == 0) {
        first_copy_ = sender_.last();
    }
    complete_ = complete_ || (first_copy_ && sender_.arrived() >= *first_copy_);
    const bool arrived = lag == 0 && sender_.in_flight() == 0;
    progress.lag_pages = lag;
    progress.sent_bytes = sent_before_ + (link_ ? link_->stream().bytes_written() : 0);
    progress.trouble = trouble_;
    progress.round.us = thread_cpu_us() - cpu;
    const double busy =
        progress.round.us / std::chrono::duration<double, std::micro>(kSlice).count();
    progress.more = link_ && !arrived && (!complete_ || busy < kBusyShare);
    return progress;
}

Unexpected RemoteTarget::failed(Error error, const char* step) {
    cut(error);
    return annotate(std::move(error), step);
}

Result<void> RemoteTarget::prepare(const ForkRequest& request) {
    if (request.divert) {
        return fail_as(ErrorKind::kUsage,
                       "flows can only be diverted to a clone on the guest's own host");
    }
    if (request.life_is_asked_for) {
        return fail_as(
            ErrorKind::kUsage,
            "hook, lifetime and memory limit of a clone on another host are given there, "
            "to `ivmm standby --listen`");
    }
    if (!request.nets.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "the network of a clone on another host is given there, to `ivmm standby "
                       "--listen`");
    }
    if (!link_) {
        if (auto connected = connect(); !connected) {
            return failed(std::move(connected).error(), "there is no link to the standby's host");
        }
    }
    Prepare order;
    order.clone = request.name_is_made_up ? "" : request.clone;
    order.primary = machine_.config().name;
    const auto agree = [&]() -> Result<Prepared> {
        if (!ready_) {
            IVMM_TRY(answer<Ready>(kBuild));
            ready_ = true;
        }
        IVMM_TRY(link_->send(order));
        prepared_ = true;
        return answer<Prepared>(kAnswer);
    };
    auto prepared = agree();
    if (!prepared) {
        return failed(std::move(prepared).error(), "the standby's host");
    }
    clone_ = printable(prepared->clone);
    return {};
}

Result<uint32_t> RemoteTarget::approach() {
    const auto begin = Clock::now();
    uint64_t before = UINT64_MAX;
    for (uint32_t rounds = 1;; ++rounds) {
        // Decided on what was found just now: while the link is full, sending takes long.
        IVMM_TRY(collect());
        const uint64_t found = dirty_;
        const auto taken = Clock::now() - begin;
        const bool no_fewer = found <= kFewPages || found > before - before / 4;
        if (found <= kEnoughResidue && (no_fewer || taken > kApproachEnough)) {
            complete_ = true;
            // Memory that is there: no page of it is to be found in the pause.
            const uint64_t expected = std::min(kMaxResidue, 2 * found + kFewPages);
            residue_.assign(expected * kPageSize, std::byte{0});
            return rounds;
        }
        if (taken > kApproachPatience) {
            return failed(
                {ErrorKind::kFailed, 0,
                 fmt::format("{} lag behind after {} s: the link is too slow for what the guest "
                             "writes, or for the first copy",
                             format_size(found * kPageSize), kApproachPatience.count())},
                "sending pages");
        }
        if (auto sent = send_pages(Clock::now() + kSlice); !sent) {
            return failed(std::move(sent).error(), "sending pages");
        }
        before = found;
    }
}

Result<Synchroniser::Round> RemoteTarget::last_round() {
    const Stopwatch watch;
    auto& pending = sender_.pending();
    IVMM_TRY(tracker_->collect_paused(pending));
    Synchroniser::Round round;
    round.dirty = pending.count();
    if (round.dirty > kMaxResidue) {
        return fail("{} were written meanwhile, more than the pause has time for",
                    format_size(round.dirty * kPageSize));
    }
    residue_.resize(std::max<size_t>(residue_.size(), round.dirty * kPageSize));
    residue_runs_.clear();
    std::byte* out = residue_.data();
    pending.for_each_run([&](uint64_t first, uint64_t count) {
        machine_.memory().copy_pages(first, count, out);
        out += count * kPageSize;
        residue_runs_.push_back({first, static_cast<uint32_t>(count)});
    });
    round.copied = round.dirty;
    round.us = watch.us();
    return round;
}

Result<void> RemoteTarget::send_residue() {
    // The pages are asked for in the order in which they lie there.
    auto run = residue_runs_.begin();
    const std::byte* from = residue_.data();
    const auto source = [&](uint64_t first, uint64_t /*count*/, std::byte* out) {
        while (first >= run->first + run->count) {
            from += run->count * kPageSize;
            ++run;
        }
        std::copy_n(from + (first - run->first) * kPageSize, kPageSize, out);
    };
    sender_.rewind();
    while (sender_.pending().next(0)) {
        IVMM_TRY(send_batch(source));
        IVMM_TRY(hear(Clock::now()));
    }
    return {};
}

Result<void> RemoteTarget::send_disks(const std::vector<ForkedDisk>& disks) {
    std::vector<std::string> paths;
    paths.reserve(disks.size());
    for (const auto& disk : disks) {
        paths.push_back(disk.path);
    }
    IVMM_ASSIGN(const auto sending, DiskSending::open(paths));
    IVMM_TRY(link_->send(sending.offer()));
    IVMM_ASSIGN(const auto wanted, answer<Wanted>(kAnswer));
    if (wanted.send.size() != disks.size()) {
        return fail("{} wants {} disks of {}", link_->name(), wanted.send.size(), disks.size());
    }
    uses_disks_ = std::ranges::count(wanted.send, 0) > 0;
    return sending.send(*link_, wanted.send);
}

Result<ForkTarget::Started> RemoteTarget::start_clone(const MachineState& state) {
    Start order;
    order.state = state;
    order.age_ns = age_of(state);
    IVMM_TRY(link_->send(order));
    IVMM_ASSIGN(const auto running, answer<Running>(kStart));
    const auto now = std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
    Started started;
    started.clone = clone_;
    started.pid = static_cast<int>(running.pid);
    started.private_bytes = running.private_bytes;
    started.hook_us = running.hook_us;
    started.first_run_ns =
        static_cast<uint64_t>(now) -
        std::min<uint64_t>(running.age_ns, std::chrono::nanoseconds(kStart).count());
    for (size_t i = 0; i < std::min(running.disks.size(), running.methods.size()); ++i) {
        started.disks.push_back({printable(running.disks[i]), printable(running.methods[i])});
    }
    IVMM_TRY(link_->send(Adopted()));
    return started;
}

Result<ForkTarget::Started> RemoteTarget::start(const MachineState& state,
                                                const std::vector<ForkedDisk>& disks) {
    if (auto sent = send_residue(); !sent) {
        return failed(std::move(sent).error(), "sending the last pages");
    }
    if (auto sent = send_disks(disks); !sent) {
        return failed(std::move(sent).error(), "sending the disks");
    }
    auto started = start_clone(state);
    if (!started) {
        return failed(std::move(started).error(), "the clone at the other host");
    }
    // The next one is being made there.
    ready_ = prepared_ = false;
    return started;
}

}  // namespace ivmm::peer
