#include "vmm/fork/standby_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/standard_files.h"
#include "vmm/config/device_spec.h"
#include "vmm/fork/channel.h"
#include "vmm/fork/clone_backends.h"
#include "vmm/fork/clone_hook.h"
#include "vmm/fork/stopwatch.h"
#include "vmm/guest/guest_service.h"

namespace ivmm {
namespace {

/// A standby waits for as long as its primary lives, whose end shows at once.
constexpr Channel::Milliseconds kForever = std::chrono::years(10);

/// What this process alone has in memory, in bytes: what it has written, and not what it shares.
uint64_t private_bytes() {
    std::ifstream smaps("/proc/self/smaps_rollup");
    uint64_t kibibytes = 0;
    for (std::string word; smaps >> word;) {
        if (word == "Private_Dirty:") {
            smaps >> kibibytes;
            break;
        }
    }
    return kibibytes << 10;
}

/// Tells the primary why its standby is none, and gives the reason on.
Error failed(Channel& channel, Error error) {
    FailedMessage message;
    message.reason = error.message;
    // The primary may be gone; then nobody wants to know.
    static_cast<void>(channel.send(message));
    return error;
}

/// A clone without its name, its disks, its network and its state.
struct Standing {
    GuestConfig config;
    std::unique_ptr<GuestService> service;
    std::unique_ptr<CloneBackends> backends;
    std::unique_ptr<KvmMachine> machine;
    UniqueFd image;        // of its memory
    Registers registers;   // at the instant of the fork
    PrepareMessage order;  // once there is one
    uint64_t hook_us = 0;
};

Result<Standing> build(Channel& channel) {
    std::vector<UniqueFd> descriptors;
    IVMM_ASSIGN(auto hello, channel.receive<HelloMessage>(kForever, &descriptors));
    if (descriptors.size() != 1) {
        return fail("a standby needs one memory image and got {}", descriptors.size());
    }
    Standing standing;
    IVMM_ASSIGN(standing.service, GuestService::create());
    standing.image = UniqueFd(::fcntl(descriptors.front().get(), F_DUPFD_CLOEXEC, 0));
    IVMM_ASSIGN(auto memory,
                GuestMemory::map_image(std::move(descriptors.front()), hello.config.memory_bytes));
    standing.backends = std::make_unique<CloneBackends>(hello.disk_sizes, hello.all_disks_late);
    IVMM_ASSIGN(standing.machine, KvmMachine::create_empty(hello.config, std::move(memory),
                                                           standing.backends->backends(),
                                                           standing.service->console()));
    standing.config = std::move(hello.config);
    return standing;
}

Result<GuestLock> prepare(Channel& channel, Standing& standing) {
    IVMM_ASSIGN(standing.order, channel.receive<PrepareMessage>(kForever));
    auto& order = standing.order;
    const RuntimeDir runtime = RuntimeDir::find();
    IVMM_ASSIGN(auto lock, runtime.lock(order.clone));
    for (size_t i = 0; i < order.nets.size(); ++i) {
        if (order.nets[i].port.empty() && !order.nets[i].switch_name.empty()) {
            order.nets[i].port = default_port(order.clone, i);
        }
    }
    IVMM_TRY(standing.backends->plug_nets(*standing.machine, order.nets));
    standing.config.name = order.clone;
    standing.config.standby = false;
    for (size_t i = 0; i < standing.config.nets.size(); ++i) {
        auto& net = standing.config.nets[i];
        const auto mac = net.mac;
        net = i < order.nets.size() ? order.nets[i] : NetConfig();
        net.mac = mac;
    }
    redirect(runtime.log_path(order.clone), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND,
             {STDERR_FILENO});
    return lock;
}

Result<void> run_hook(Standing& standing, const std::vector<std::string>& disks) {
    const Stopwatch running;
    HookedClone clone;
    clone.clone = standing.order.clone;
    clone.primary = standing.order.primary;
    clone.attacker = standing.order.attacker;
    clone.memory = fmt::format("/proc/{}/fd/{}", ::getpid(), standing.image.get());
    clone.disks = disks;
    for (size_t i = 0; i < clone.disks.size() && i < standing.config.disks.size(); ++i) {
        if (standing.config.disks[i].read_only) {
            clone.disks[i].clear();
        }
    }
    IVMM_ASSIGN(const auto changes, run_clone_hook(standing.order.hook, clone));
    IVMM_TRY(apply(changes, standing.machine->memory()));
    standing.hook_us = static_cast<uint64_t>(running.us());
    return {};
}

Result<void> restore(Channel& channel, Standing& standing) {
    IVMM_ASSIGN(const auto order, channel.receive<StartMessage>(kForever));
    if (!standing.order.hook.program.empty()) {
        IVMM_TRY(run_hook(standing, order.disks));
    }
    standing.registers.vcpus = order.state.vcpus;
    IVMM_TRY(standing.backends->plug_disks(*standing.machine, order.disks));
    for (size_t i = 0; i < standing.config.disks.size(); ++i) {
        standing.config.disks[i].path = order.disks[i];
    }
    standing.machine->set_config(standing.config);
    return standing.machine->restore(order.state, GuestTime::kGoesOn);
}

Result<int> stand_by(Channel& channel) {
    auto standing = build(channel);
    if (!standing) {
        return Unexpected{failed(channel, std::move(standing).error())};
    }
    IVMM_TRY(channel.send(ReadyMessage()));
    auto lock = prepare(channel, *standing);
    if (!lock) {
        return Unexpected{failed(channel, std::move(lock).error())};
    }
    IVMM_TRY(channel.send(PreparedMessage()));
    if (auto restored = restore(channel, *standing); !restored) {
        return Unexpected{failed(channel, std::move(restored).error())};
    }
    KvmMachine& machine = *standing->machine;
    auto code = standing->service->run(
        {.lock = *std::move(lock),
         .machine = std::move(standing->machine),
         .owner = UniqueFd(),
         .clones = {},
         .limits = standing->order.limits,
         .fork_point = ForkPoint{std::move(standing->image), std::move(standing->registers)}},
        [&] {
            RunningMessage running;
            running.first_run_ns = machine.first_run_ns();
            running.private_bytes = private_bytes();
            running.hook_us = standing->hook_us;
            static_cast<void>(channel.send(running));
        });
    if (!code) {
        return Unexpected{failed(channel, std::move(code).error())};
    }
    return code;
}

}  // namespace

int run_standby_process(UniqueFd socket) {
    ::prctl(PR_SET_NAME, "ivmm-standby");
    // Ends with the primary by the channel; signals are for the clone, later.
    const EndSignals signals;
    Channel channel(std::move(socket), "the primary's process");
    const auto code = stand_by(channel);
    return code ? *code : cli::report(code.error());
}

}  // namespace ivmm
