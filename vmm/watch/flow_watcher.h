#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "vmm/control/control_client.h"
#include "vmm/watch/detectors.h"

namespace ivmm::watch {

/// Asks the guest's switch for its flows twice a second and shows them to the detectors, on a
/// thread of its own. A switch that is not there is waited for.
class FlowWatcher {
 public:
    /// Takes what has been found, on that thread.
    using Report = std::function<void(std::vector<Alert>)>;

    FlowWatcher(std::string guest, const Detect& detect, Report report);

 private:
    void run(const std::stop_token& stop);
    Result<void> look(uint64_t now_ms);
    Result<void> look_at_fresh(uint64_t now_ms);
    Result<void> look_at_logins(uint64_t now_ms);
    void report(std::vector<Alert> alerts);

    const std::string guest_;
    const std::vector<uint16_t> login_ports_;
    const Report report_;
    Detectors detectors_;
    std::optional<ControlClient> client_;
    uint32_t after_ = 0;  // the flows up to this serial have been seen
    std::mutex mutex_;    // guards nothing; it is what stopped_ waits with
    std::condition_variable_any stopped_;
    std::jthread thread_;  // last: it uses the others
};

}  // namespace ivmm::watch
