#include "vmm/peer/session.h"

#include <sys/wait.h>

#include <csignal>
#include <ctime>

#include "base/clock.h"
#include "base/log.h"
#include "vmm/config/size.h"
#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/fork/available_memory.h"
#include "vmm/kvm/host.h"
#include "vmm/peer/clock_shift.h"
#include "vmm/peer/cpu.h"
#include "vmm/peer/page_receiver.h"

namespace ivmm::peer {
namespace {

constexpr const char* kProgram = "/proc/self/exe";
/// What a clone needs besides its replica, and what the host keeps for itself.
constexpr uint64_t kSpareMemory = uint64_t{64} << 20;
/// Messages with pages between two looks at the host's memory.
constexpr uint64_t kLookEvery = 64;
/// A primary may have nothing to say for as long as it lives, whose end shows.
constexpr Link::Milliseconds kForever = std::chrono::hours(24 * 3650);
/// In the middle of a fork, there is always something to say.
constexpr Link::Milliseconds kForkPatience{120'000};
constexpr Link::Milliseconds kAdoptPatience{10'000};
constexpr size_t kMaxDevices = 64;
constexpr size_t kMaxSerial = 20;

/// Whether a guest of this configuration can be built here, without its kernel and its disks.
Result<void> check_config(const GuestConfig& config, const std::vector<uint64_t>& disk_sizes) {
    IVMM_TRY(check_guest_name(config.name));
    if (config.memory_bytes < kMinMemory || config.memory_bytes % kPageSize != 0 ||
        config.cpus == 0 || config.cpus > kMaxCpus || config.disks.size() > kMaxDevices ||
        config.nets.size() > kMaxDevices || disk_sizes.size() != config.disks.size()) {
        return fail("a guest with {} bytes of memory, {} vCPUs, {} disks and {} networks",
                    config.memory_bytes, config.cpus, config.disks.size(), config.nets.size());
    }
    for (const auto& disk : config.disks) {
        if (disk.serial.size() > kMaxSerial) {
            return fail("a disk with a serial number of {} bytes", disk.serial.size());
        }
    }
    return {};
}

/// Ends a clone that nobody wants.
void kill_clone(const ForkTarget::Child& child) {
    ::kill(child.pid, SIGKILL);
    while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    static_cast<void>(RuntimeDir::find().remove_leftovers());
}

}  // namespace

Result<std::unique_ptr<Session>> Session::create(const Hello& hello, const HostOptions& options) {
    if (auto checked = check_config(hello.config, hello.disk_sizes); !checked) {
        return annotate(std::move(checked).error(), "this guest cannot run here");
    }
    const auto kind = host_kind_name(detect_host_kind());
    IVMM_ASSIGN(const uint64_t cpu, cpu_fingerprint(hello.config.cpus));
    if (hello.host_kind != kind || hello.cpu != cpu) {
        return fail("this host ({}) has another processor than the guest's ({})", kind,
                    printable(hello.host_kind));
    }
    IVMM_TRY(check_memory(0));
    std::unique_ptr<Session> session(new Session(options, hello));
    IVMM_ASSIGN(session->replica_, Replica::create(hello.config.memory_bytes));
    return session;
}

Result<void> Session::check_memory(uint64_t needed) {
    if (const uint64_t available = available_memory(); available < needed + kSpareMemory) {
        return fail("a standby needs {} more and the host has {} left",
                    format_size(needed + kSpareMemory), format_size(available));
    }
    return {};
}

HelloMessage Session::hello_message() const {
    HelloMessage message;
    message.config = hello_.config;
    message.config.kernel.clear();
    message.config.initrd.clear();
    message.disk_sizes = hello_.disk_sizes;
    // No path of the other host is opened here, nor any TAP of it.
    message.all_disks_late = true;
    for (auto& disk : message.config.disks) {
        disk.path = "of another host";
    }
    for (auto& net : message.config.nets) {
        const auto mac = net.mac;
        net = NetConfig();
        net.mac = mac;
    }
    return message;
}

Error Session::serve(Link& link, bool fresh, const OnClone& on_clone) {
    auto outcome = [&]() -> Result<void> {
        Welcome welcome;
        welcome.fresh = fresh;
        welcome.applied = applied_;
        IVMM_TRY(link.send(welcome));
        return run(link, on_clone);
    }();
    // A standby that was named is of no use for another fork.
    if (standby_) {
        standby_.reset();
        static_cast<void>(RuntimeDir::find().remove_leftovers());
    }
    return std::move(outcome).error();
}

Result<void> Session::run(Link& link, const OnClone& on_clone) {
    while (true) {
        IVMM_TRY(stand_by());
        IVMM_TRY(link.send(Ready()));
        while (true) {
            IVMM_ASSIGN(const auto frame, link.receive_frame(kForever));
            if (frame.type == MessageType::kPrepare) {
                IVMM_ASSIGN(auto forking, prepare(link, frame));
                IVMM_TRY(fork(link, std::move(forking), on_clone));
                break;
            }
            IVMM_TRY(apply(link, frame));
        }
    }
}

Result<void> Session::stand_by() {
    IVMM_TRY(check_memory(0));
    IVMM_ASSIGN(auto image, replica_->open_for_reading());
    IVMM_ASSIGN(standby_, Standby::launch(kProgram, hello_message(), std::move(image)));
    return standby_->wait_ready();
}

Result<void> Session::apply(Link& link, const Frame& frame) {
    if (frame.type == MessageType::kFailed) {
        replica_.reset();  // nobody will come back for it
    }
    IVMM_ASSIGN(const auto message, message_in<Pages>(frame, link.name()));
    if (message.number != applied_ + 1) {
        return fail("pages {} come after {}", message.number, applied_);
    }
    if (message.number % kLookEvery == 0) {
        IVMM_TRY(check_memory(0));
    }
    IVMM_ASSIGN(const auto content,
                content_of(message, frame.tail, hello_.config.memory_bytes / kPageSize));
    ConstByteSpan rest(content);
    for (const auto& run : message.runs) {
        replica_->store(run.first, rest.first(run.count * kPageSize));
        rest = rest.subspan(run.count * kPageSize);
    }
    applied_ = message.number;
    return link.send(Applied{applied_});
}

Result<Session::Forking> Session::prepare(Link& link, const Frame& frame) {
    IVMM_ASSIGN(const auto order, message_in<Prepare>(frame, link.name()));
    IVMM_TRY(check_guest_name(order.primary));
    Forking forking;
    forking.clone = order.clone.empty() ? free_clone_name(order.primary) : order.clone;
    IVMM_TRY(check_guest_name(forking.clone));
    IVMM_ASSIGN(forking.disks, DiskReceiving::begin(forking.clone, order.primary, options_.disks));
    PrepareMessage becoming;
    becoming.clone = forking.clone;
    becoming.primary = order.primary;
    becoming.nets = options_.nets;
    becoming.nets.resize(std::min(becoming.nets.size(), hello_.config.nets.size()));
    becoming.hook = options_.hook;
    becoming.limits = options_.limits;
    IVMM_TRY(standby_->prepare(becoming));
    IVMM_TRY(link.send(Prepared{forking.clone}));
    return forking;
}

Result<void> Session::fork(Link& link, Forking forking, const OnClone& on_clone) {
    while (true) {
        IVMM_ASSIGN(const auto frame, link.receive_frame(kForkPatience));
        if (frame.type == MessageType::kDisks) {
            IVMM_ASSIGN(const auto offer, message_in<Disks>(frame, link.name()));
            IVMM_ASSIGN(const auto wanted,
                        forking.disks->take_offer(offer, hello_.config.disks, hello_.disk_sizes));
            IVMM_TRY(link.send(wanted));
        } else if (frame.type == MessageType::kDiskData) {
            IVMM_ASSIGN(const auto data, message_in<DiskData>(frame, link.name()));
            IVMM_TRY(forking.disks->take_data(data, frame.tail));
        } else if (frame.type == MessageType::kStart) {
            return start(link, frame, forking, on_clone);
        } else {
            IVMM_TRY(apply(link, frame));
        }
    }
}

Result<void> Session::start(Link& link, const Frame& frame, Forking& forking,
                            const OnClone& on_clone) {
    const uint64_t received = clock_ns(CLOCK_MONOTONIC);
    IVMM_ASSIGN(auto order, message_in<Start>(frame, link.name()));
    IVMM_ASSIGN(const auto disks, forking.disks->finish());
    if (disks.size() != hello_.config.disks.size()) {
        return fail("the clone's disks were not offered");
    }
    Running running;
    std::vector<std::string> paths;
    for (const auto& disk : disks) {
        paths.push_back(disk.path);
        running.disks.push_back(disk.path);
        running.methods.push_back(disk.method);
    }
    move_to_this_host(order.state, order.age_ns + (clock_ns(CLOCK_MONOTONIC) - received));
    IVMM_ASSIGN(const auto begun, standby_->start(order.state, std::move(paths)));
    ForkTarget::Child child{standby_->pid(), standby_->take_pidfd()};
    standby_.reset();
    running.pid = static_cast<uint32_t>(child.pid);
    running.private_bytes = begun.private_bytes;
    running.hook_us = begun.hook_us;
    const uint64_t now = clock_ns(CLOCK_MONOTONIC);
    running.age_ns = now > begun.first_run_ns ? now - begun.first_run_ns : 0;
    auto told = link.send(running);
    auto adopted = told ? link.receive<Adopted>(kAdoptPatience)
                        : Result<Adopted>(Unexpected{std::move(told).error()});
    if (!adopted) {
        // Better no clone than one of which nobody knows.
        kill_clone(child);
        return Unexpected{std::move(adopted).error()};
    }
    forking.disks->keep();
    forking.disks.reset();
    log::info("clone '{}' of {} runs (process {})", forking.clone, link.name(), child.pid);
    on_clone(std::move(child));
    // The clone keeps the image; the next one begins with a copy.
    const auto clones = std::exchange(replica_, nullptr);
    IVMM_TRY(clones->seal());
    IVMM_TRY(check_memory(clones->resident_bytes()));
    IVMM_ASSIGN(replica_, clones->copy());
    return {};
}

}  // namespace ivmm::peer
