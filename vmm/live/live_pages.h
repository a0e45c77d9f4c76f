#pragma once

#include <chrono>
#include <string>

#include "vmm/live/http_server.h"
#include "vmm/live/running_processes.h"

namespace ivmm::live {

/// What `ivmm metrics` and `ivmm web` serve. The processes are asked at most once in half a second,
/// however many want to know. One thread.
class LivePages {
 public:
    /// The page at a path: /metrics. Errors: there is none (kUsage), or it cannot be made.
    Result<Page> get(const std::string& path);
    /// That, /api/state.json (host_state()), and the page that shows it.
    Result<Page> get_site(const std::string& path);

 private:
    using Clock = std::chrono::steady_clock;
    struct Made {
        std::string body;
        Clock::time_point at;
    };
    template <class Make>
    static Result<std::string> fresh(Made& made, Make make);

    RunningProcesses processes_;
    Made metrics_;
    Made state_;
};

}  // namespace ivmm::live
