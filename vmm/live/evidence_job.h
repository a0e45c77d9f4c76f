#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm::live {

/// `ivmm evidence`, as a process beside `ivmm top`, which goes on meanwhile. On the loop's thread.
class EvidenceJob {
 public:
    /// Collects the evidence of a clone in a folder. `on_end` is called once, on the loop's thread,
    /// with what the process has said last; it may destroy this object.
    static Result<std::unique_ptr<EvidenceJob>> start(EventLoop& loop, const std::string& clone,
                                                      const std::string& folder,
                                                      std::function<void(std::string)> on_end);
    EvidenceJob(const EvidenceJob&) = delete;
    EvidenceJob& operator=(const EvidenceJob&) = delete;
    /// Interrupts it, if it has not ended, and waits until it has left nothing.
    ~EvidenceJob();

 private:
    explicit EvidenceJob(std::function<void(std::string)> on_end) : on_end_(std::move(on_end)) {}
    void read();

    std::function<void(std::string)> on_end_;
    pid_t pid_ = -1;
    UniqueFd output_;
    std::string said_;
    EventLoop::Watch watch_;
};

}  // namespace ivmm::live
