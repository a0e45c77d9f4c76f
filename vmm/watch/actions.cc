#include "vmm/watch/actions.h"

#include <algorithm>

#include "vmm/control/control_client.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/switch/running_switches.h"

namespace ivmm::watch {
namespace {

using rpc::Json;

/// Without a standby, the whole memory is copied first.
constexpr std::chrono::minutes kPatience{5};
/// How soon the end of this process is noticed.
constexpr std::chrono::milliseconds kSlice{200};

/// What `fork` and `divert` have in common.
Json diversion_of(const Rule& rule, const End& attacker) {
    Json diversion{{"remote", to_string(attacker.address)}};
    if (rule.scope == "flow") {
        diversion["remote_port"] = attacker.port;
    } else {
        diversion["scope"] = rule.scope;
    }
    if (rule.ttl_s > 0) {
        diversion["ttl_s"] = rule.ttl_s;
    }
    return diversion;
}

Json fork_of(const Rule& rule, Json diversion, const Json& cause) {
    if (!rule.policy.empty()) {
        diversion["policy"] = rule.policy;
    }
    Json params{{"divert", std::move(diversion)}, {"cause", cause}};
    if (rule.lifetime_s > 0) {
        params["lifetime_s"] = rule.lifetime_s;
    }
    return params;
}

}  // namespace

Result<std::unique_ptr<Actions>> Actions::start(std::string guest, EventLoop& loop) {
    std::unique_ptr<Actions> actions(new Actions(std::move(guest), loop));
    IVMM_ASSIGN(actions->thread_, LoopThread::start("actions"));
    return actions;
}

void Actions::carry_out(const Rule& rule, const End& attacker, const Json& cause, Done done) {
    Json params = diversion_of(rule, attacker);
    const bool forks = rule.action == Action::kFork;
    if (forks) {
        params = fork_of(rule, std::move(params), cause);
    } else {
        params["clone"] = rule.clone;
    }
    thread_->loop().post([this, forks, params = std::move(params), done = std::move(done)] {
        if (ending_) {
            return;
        }
        auto outcome = forks ? fork(params) : divert(params);
        loop_.post([outcome = std::move(outcome), done] { done(outcome); });
    });
}

Result<Json> Actions::fork(const Json& params) const {
    IVMM_ASSIGN(auto socket, RuntimeDir::find().connect(guest_));
    ControlClient client(std::move(socket));
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    IVMM_TRY(client.ask("fork", params, deadline));
    while (true) {
        const auto now = std::chrono::steady_clock::now();
        auto answer = client.answer(std::min(deadline, now + kSlice));
        if (answer || answer.error().code != ETIMEDOUT || now >= deadline || ending_) {
            return answer;
        }
    }
}

Result<Json> Actions::divert(const Json& diversion) const {
    IVMM_ASSIGN(auto found, find_switch_port(diversion.value("clone", "")));
    return found.owner.client.call("divert", diversion);
}

}  // namespace ivmm::watch
