#include "vmm/live/host_metrics.h"

#include "vmm/fork/clone_record.h"

namespace ivmm::live {

Result<Metrics> host_metrics(RunningProcesses& processes) {
    const auto began = std::chrono::steady_clock::now();
    const std::vector<std::string> methods = {"metrics"};
    IVMM_ASSIGN(
        const auto all,
        processes.ask(
            {{"guest", methods}, {"overlay", methods}, {"switch", methods}, {"watch", methods}}));
    Metrics metrics;
    for (const auto& process : all) {
        const Metrics::Labels labels{{process.kind, process.name}};
        bool up = process.up;
        if (const auto answer = process.results.find("metrics"); answer != process.results.end()) {
            const auto told = Metrics::from_json(answer->second);
            up = up && told;
            if (told) {
                metrics.add(*told, labels);
            }
        }
        metrics.gauge("ivmm_up", "1: the process has answered; 0: it hangs or was killed.",
                      up ? 1 : 0, labels);
        if (process.kind == "guest") {
            if (const auto record = read_clone_record(process.name)) {
                metrics.gauge("ivmm_clone_info", "Always 1; the labels say whose clone it is.", 1,
                              {{"guest", process.name}, {"primary", record->primary}});
            }
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    metrics.gauge("ivmm_collect_seconds", "How long it took to ask all of them.", took.count());
    return metrics;
}

}  // namespace ivmm::live
