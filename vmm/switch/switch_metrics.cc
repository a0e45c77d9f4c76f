#include "vmm/switch/switch_metrics.h"

namespace ivmm {

Metrics switch_metrics(const net::Switch& net) {
    Metrics metrics = process_metrics();
    for (const auto& port : net.ports()) {
        const Metrics::Labels labels{{"port", port.name}, {"role", to_string(port.role)}};
        const auto counter = [&](const char* name, const char* help, uint64_t value) {
            metrics.counter(name, help, static_cast<double>(value), labels);
        };
        counter("ivmm_switch_frames_in_total", "Frames that came into the switch.",
                port.counters.frames_in);
        counter("ivmm_switch_bytes_in_total", "Bytes that came into the switch.",
                port.counters.bytes_in);
        counter("ivmm_switch_frames_out_total", "Frames that the switch has sent.",
                port.counters.frames_out);
        counter("ivmm_switch_bytes_out_total", "Bytes that the switch has sent.",
                port.counters.bytes_out);
        for (size_t i = 0; i < port.counters.drops.size(); ++i) {
            Metrics::Labels with_reason = labels;
            with_reason["reason"] = to_string(static_cast<net::Drop>(i));
            metrics.counter("ivmm_switch_drops_total", "Frames that went no further.",
                            static_cast<double>(port.counters.drops[i]), std::move(with_reason));
        }
    }
    for (const auto& table : net.tables()) {
        const Metrics::Labels labels{{"guest", table.guest}};
        metrics.gauge("ivmm_switch_flows", "Flows of a guest and its clones in the table.",
                      table.flows, labels);
        metrics.counter("ivmm_switch_flows_evicted_total", "Flows that were forgotten for room.",
                        static_cast<double>(table.evicted), labels);
    }
    for (const auto& clone : net.clone_flows(0)) {
        metrics.gauge("ivmm_switch_clone_flows", "Flows that a clone owns.",
                      static_cast<double>(clone.flows),
                      {{"clone", clone.clone}, {"guest", clone.guest}});
    }
    metrics.gauge("ivmm_switch_diversions", "Diversions.",
                  static_cast<double>(net.diversions().size()));
    return metrics;
}

}  // namespace ivmm
