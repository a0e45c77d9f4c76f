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

}  // namespace

Result<std::unique_ptr<Actions>> Actions::start(std::string guest, EventLoop& loop) {
    std::unique_ptr<Actions> actions(new Actions(std::move(guest), loop));
    IVMM_ASSIGN(actions->thread_, LoopThread::start("actions"));
    return actions;
}

void Actions::carry_out(const Rule& rule, const End& attacker, Done done) {
    Json diversion = diversion_of(rule, attacker);
    if (rule.action == Action::kDivert) {
        diversion["clone"] = rule.clone;
    }
    thread_->loop().post([this, diversion = std::move(diversion), done = std::move(done)] {
        if (ending_) {
            return;
        }
        auto outcome = diversion.contains("clone") ? divert(diversion) : fork(diversion);
        loop_.post([outcome = std::move(outcome), done] { done(outcome); });
    });
}

Result<Json> Actions::fork(const Json& diversion) const {
    IVMM_ASSIGN(auto socket, RuntimeDir::find().connect(guest_));
    ControlClient client(std::move(socket));
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    IVMM_TRY(client.ask("fork", {{"divert", diversion}}, deadline));
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
