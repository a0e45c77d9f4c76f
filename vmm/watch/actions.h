#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "vmm/control/json_rpc.h"
#include "vmm/watch/rules.h"

namespace ivmm::watch {

/// Carries out what was decided, one after the other on a thread of its own: asks the guest for a
/// fork, or a switch for a diversion. The caller bounds how many there are.
class Actions {
 public:
    /// What the guest or the switch has answered. An error with a code (ETIMEDOUT, EPIPE): nobody
    /// knows whether it was done.
    using Done = std::function<void(const Result<rpc::Json>&)>;

    /// `loop` is where `done` is called; it must outlive this.
    static Result<std::unique_ptr<Actions>> start(std::string guest, EventLoop& loop);
    Actions(const Actions&) = delete;
    Actions& operator=(const Actions&) = delete;
    /// What is under way is not waited for, what has not begun is not done.
    ~Actions() { ending_ = true; }

    /// `cause` is for the record of a clone that is forked.
    void carry_out(const Rule& rule, const End& attacker, const rpc::Json& cause, Done done);

 private:
    Actions(std::string guest, EventLoop& loop) : guest_(std::move(guest)), loop_(loop) {}
    Result<rpc::Json> fork(const rpc::Json& params) const;
    Result<rpc::Json> divert(const rpc::Json& diversion) const;

    const std::string guest_;
    EventLoop& loop_;
    std::atomic<bool> ending_ = false;
    std::unique_ptr<LoopThread> thread_;  // last: it uses the others
};

}  // namespace ivmm::watch
