#include "vmm/fork/view_fork.h"

#include <chrono>

namespace ivmm {
namespace {

using rpc::Json;

/// What waits for the disk.
constexpr std::chrono::minutes kServerPatience{5};
/// The guest stands still: better no clone than that for longer.
constexpr std::chrono::seconds kViewCommitPatience{5};

}  // namespace

Unexpected ViewFork::failed(const Error& error) const {
    return {{error.kind, error.code,
             fmt::format("the overlay at '{}' cannot be forked for the clone: {}",
                         parent_.mountpoint, error.message)}};
}

Result<Json> ViewFork::call(const char* method, const Json& params,
                            ControlClient::Milliseconds patience) {
    auto answer = parent_.server.client.call(method, params, patience);
    return answer ? std::move(answer) : failed(answer.error());
}

Result<void> ViewFork::prepare() {
    const Json targets = Json::array({{{"view", view_.view}}});
    IVMM_TRY(call("prepare_fork", {{"view", parent_.view}, {"targets", targets}}, kServerPatience));
    return {};
}

Result<void> ViewFork::begin_commit() {
    deadline_ = std::chrono::steady_clock::now() + kViewCommitPatience;
    may_exist_ = true;  // whatever goes wrong from here on
    const Json targets = Json::array({{{"view", view_.view}}});
    if (const auto asked = parent_.server.client.ask(
            "fork", {{"view", parent_.view}, {"targets", targets}}, deadline_);
        !asked) {
        return failed(asked.error());
    }
    return {};
}

Result<void> ViewFork::end_commit() {
    const auto report = parent_.server.client.answer(deadline_);
    if (!report) {
        // Only if the server was there and has said no is it certain.
        may_exist_ = report.error().code == ETIMEDOUT || report.error().code == EPIPE;
        return failed(report.error());
    }
    if (report->is_object()) {
        pause_us_ = report->value("pause_us", 0.0);
        view_.fork_point = report->value("frozen_layer", uint64_t{0});
    }
    return {};
}

Result<void> ViewFork::mount() {
    IVMM_TRY(
        call("mount", {{"view", view_.view}, {"mountpoint", view_.mountpoint}}, kServerPatience));
    return {};
}

}  // namespace ivmm
