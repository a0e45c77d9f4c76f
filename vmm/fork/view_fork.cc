#include "vmm/fork/view_fork.h"

#include <chrono>

namespace ivmm {
namespace {

using rpc::Json;

/// What waits for the disk.
constexpr std::chrono::minutes kPatience{5};
/// The guest stands still: better no clone than that for longer.
constexpr std::chrono::seconds kCommitPatience{5};

}  // namespace

Result<Json> ViewFork::call(const char* method, const Json& params,
                            ControlClient::Milliseconds patience) {
    auto answer = parent_.server.client.call(method, params, patience);
    if (!answer) {
        return Unexpected{{answer.error().kind, answer.error().code,
                           fmt::format("the overlay at '{}' cannot be forked for the clone: {}",
                                       parent_.mountpoint, answer.error().message)}};
    }
    return answer;
}

Result<void> ViewFork::prepare() {
    const Json targets = Json::array({{{"view", view_.view}}});
    IVMM_TRY(call("prepare_fork", {{"view", parent_.view}, {"targets", targets}}, kPatience));
    return {};
}

Result<void> ViewFork::commit() {
    const Json targets = Json::array({{{"view", view_.view}}});
    const auto report =
        call("fork", {{"view", parent_.view}, {"targets", targets}}, kCommitPatience);
    // With these errors the server was asked and has not said no.
    may_exist_ = report || report.error().code == ETIMEDOUT || report.error().code == EPIPE;
    if (!report) {
        return Unexpected{report.error()};
    }
    pause_us_ = report->is_object() ? report->value("pause_us", 0.0) : 0.0;
    return {};
}

Result<void> ViewFork::mount() {
    IVMM_TRY(call("mount", {{"view", view_.view}, {"mountpoint", view_.mountpoint}}, kPatience));
    return {};
}

}  // namespace ivmm
