#include "vmm/fork/fork_report.h"

#include "base/utc_time.h"

namespace ivmm {

void ForkHistory::note(const Result<ForkReport>& outcome) {
    constexpr double kUsPerSecond = 1e6;
    if (!outcome) {
        ++failed;
        return;
    }
    pauses.observe(outcome->pause_us / kUsPerSecond);
    starts.observe(outcome->trigger_to_run_us / kUsPerSecond);
    recent.push_back({outcome->clone, utc_time(), outcome->pause_us, outcome->trigger_to_run_us});
    if (recent.size() > kMostRecent) {
        recent.pop_front();
    }
}

}  // namespace ivmm
