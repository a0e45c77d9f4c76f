#include "vmm/guest/guest_metrics.h"

#include "memory/guest_memory.h"

namespace ivmm {
namespace {

void add_machine(const MachineStatus& status, Metrics& metrics) {
    metrics.gauge("ivmm_guest_running", "1 while vCPUs run, 0 while the guest is paused.",
                  status.state == RunState::kRunning ? 1 : 0);
    metrics.gauge("ivmm_guest_memory_bytes", "The memory that the guest believes to have.",
                  static_cast<double>(status.memory_bytes));
    metrics.gauge("ivmm_guest_memory_private_bytes",
                  "Of its memory, what takes memory of the host for this guest alone.",
                  static_cast<double>(status.memory_resident_bytes));
    metrics.gauge("ivmm_guest_memory_shared_bytes",
                  "The memory image of a clone's fork point, which its clones share.",
                  static_cast<double>(status.memory_shared_bytes));
    metrics.counter("ivmm_guest_disk_written_bytes_total", "Written to disks by the guest.",
                    static_cast<double>(status.disk_written_bytes));
    for (size_t i = 0; i < status.vcpus.size(); ++i) {
        metrics.counter("ivmm_guest_vcpu_exits_total", "Returns from the guest's code to ivmm.",
                        static_cast<double>(status.vcpus[i].exits), {{"vcpu", std::to_string(i)}});
    }
}

void add_standby(const StandbyStatus& status, Metrics& metrics) {
    constexpr double kUsPerSecond = 1e6;
    constexpr double kMsPerSecond = 1e3;
    metrics.gauge("ivmm_standby_in_sync", "1 when a fork can begin at once.",
                  status.phase == StandbyStatus::Phase::kInSync ? 1 : 0);
    metrics.gauge("ivmm_standby_replica_bytes", "Memory of the host that the replica takes.",
                  static_cast<double>(status.replica_bytes));
    metrics.gauge(
        "ivmm_standby_behind_bytes",
        "What the last round found to be written; on another host, what is not there yet.",
        static_cast<double>(status.behind_pages() * kPageSize));
    metrics.gauge("ivmm_standby_round_seconds", "How long the last round took.",
                  status.last_round_us / kUsPerSecond);
    metrics.gauge("ivmm_standby_interval_seconds", "Time between two rounds.",
                  status.interval_ms / kMsPerSecond);
    metrics.counter("ivmm_standby_sent_bytes_total", "Sent to a standby on another host.",
                    static_cast<double>(status.sent_bytes));
}

void add_forks(const StandbyStatus& status, Metrics& metrics) {
    metrics.histogram("ivmm_fork_pause_seconds", "For how long forks made the guest stand still.",
                      status.history.pauses);
    metrics.histogram("ivmm_fork_start_seconds",
                      "From the call for a fork until the clone's first instruction.",
                      status.history.starts);
    metrics.counter("ivmm_fork_failures_total", "Forks that were asked for and did not succeed.",
                    static_cast<double>(status.history.failed));
    metrics.gauge("ivmm_guest_clones", "Clones of this guest that run on this host.",
                  status.clones);
}

}  // namespace

Metrics guest_metrics(const MachineStatus& machine, const StandbyStatus& standby) {
    Metrics metrics = process_metrics();
    add_machine(machine, metrics);
    add_standby(standby, metrics);
    add_forks(standby, metrics);
    return metrics;
}

}  // namespace ivmm
