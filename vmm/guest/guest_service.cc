#include "vmm/guest/guest_service.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/standard_files.h"
#include "vmm/control/guest_control.h"
#include "vmm/control/parameters.h"
#include "vmm/fork/clone_record.h"
#include "vmm/fork/fork_control.h"
#include "vmm/fork/standby_keeper.h"
#include "vmm/guest/clone_life.h"
#include "vmm/guest/guest_metrics.h"
#include "vmm/peer/peer_control.h"
#include "vmm/snapshot/snapshot_control.h"

namespace ivmm {

Result<std::unique_ptr<GuestService>> GuestService::create() {
    IVMM_ASSIGN(auto loop, EventLoop::create());
    IVMM_ASSIGN(auto console, ConsoleHub::create());
    return std::unique_ptr<GuestService>(new GuestService(std::move(loop), std::move(console)));
}

Result<int> GuestService::run(Guest guest, const std::function<void()>& on_started) {
    std::optional<GuestLock> lock(std::move(guest.lock));
    auto machine = std::move(guest.machine);
    const std::string name = machine->config().name;

    GuestControl control(name, *machine, *console_, server_, [&] {
        redirect(RuntimeDir::find().log_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND,
                 {STDERR_FILENO});
    });
    StandbyKeeper::Options keeping;
    keeping.max_clones = guest.clones.at_most;
    keeping.recycle = guest.clones.recycle;
    IVMM_ASSIGN(auto keeper, StandbyKeeper::create(*machine, *loop_, keeping));
    const ForkControl forks(*keeper, guest.clones, server_, *loop_);
    IVMM_ASSIGN(const auto peers, peer::PeerControl::create(*machine, *keeper, server_));
    SnapshotControl snapshots(*machine, *keeper, server_, *loop_);
    IVMM_ASSIGN(auto listener, lock->listen());
    IVMM_TRY(server_.listen(std::move(listener)));
    if (guest.owner) {
        IVMM_TRY(control.adopt_owner(std::move(guest.owner)));
    }
    IVMM_ASSIGN(const auto console_watch,
                loop_->watch(console_->ready_fd(), EPOLLIN, [&](uint32_t) {
                    console_->acknowledge();
                    server_.pump_sources();
                }));
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto signal_watch, loop_->watch(signals.get(), EPOLLIN, [&](uint32_t) {
        if (EndSignals::take(signals.get())) {
            machine->stop();
        }
    }));

    Ending ending;
    IVMM_TRY(machine->start([&](const Ending& how) {
        loop_->post([&, how] {
            ending = how;
            control.announce_end(ending);
            if (!control.has_owner() && ending.exit_code() != 0) {
                log::error("guest '{}': {}", name, ending.message);
            }
            loop_->stop();
        });
    }));
    IVMM_ASSIGN(const auto life, CloneLife::begin(guest.limits, *loop_,
                                                  {.stop = [&] { machine->stop(); },
                                                   .pause = [&] { control.pause(); }}));
    server_.add_method("metrics",
                       [&](ControlConnection&, const rpc::Json& params) -> Result<rpc::Json> {
                           IVMM_TRY(rpc::check_parameters(params, {}));
                           auto metrics = guest_metrics(machine->status(), keeper->status());
                           life->add_to(metrics);
                           return metrics.to_json();
                       });
    std::unique_ptr<CloneWitness> witness;
    if (guest.fork_point) {
        IVMM_ASSIGN(witness,
                    CloneWitness::begin(*std::move(guest.fork_point), *machine, *console_, *loop_));
        server_.add_method("evidence",
                           [&](ControlConnection&, const rpc::Json& params) -> Result<rpc::Json> {
                               IVMM_TRY(rpc::check_parameters(params, {}));
                               return witness->testify();
                           });
    }
    control.describe_with([&](rpc::Json& status) { life->describe(status); });
    if (machine->config().standby) {
        keeper->keep_standby({});
    }
    if (on_started) {
        on_started();
    }
    loop_->run();

    if (witness) {
        if (const auto left = witness->leave(clone_testimony_path(name)); !left) {
            log::warning("{}", left.error().message);
        }
    }
    snapshots.cancel();
    peers->cancel();
    keeper.reset();
    machine.reset();
    lock.reset();
    server_.drain();
    return ending.exit_code();
}

}  // namespace ivmm
