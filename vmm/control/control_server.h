#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/control/control_connection.h"
#include "vmm/control/json_rpc.h"

namespace ivmm {

/// Serves JSON-RPC 2.0 to the clients of a control socket (docs/control-socket.md).
/// All on the control thread, which runs the loop; the loop must outlive the server.
class ControlServer {
 public:
    static constexpr size_t kMaxConnections = 64;

    /// Carries out a method. An error of kind kUsage is the client's (wrong parameters), every
    /// other one is the method's.
    using Method =
        std::function<Result<rpc::Json>(ControlConnection& client, const rpc::Json& params)>;

    /// Takes the outcome of a method. Any thread; at most once, and while the loop lives.
    using Answer = std::function<void(Result<rpc::Json>)>;
    /// Begins to carry out a method; `answer` may be called after it has returned. Until then no
    /// other request of the client is served.
    using DeferredMethod = std::function<void(const rpc::Json& params, Answer answer)>;

    /// With the methods `version` and `subscribe`, which every process has.
    explicit ControlServer(EventLoop& loop);

    void add_method(std::string name, Method method);
    void add_deferred_method(std::string name, DeferredMethod method);

    /// Accepts clients of this user and of root from a listening, non-blocking socket.
    Result<void> listen(UniqueFd socket);
    /// Serves a socket that is connected already. `on_closed` is called when the client has gone,
    /// right before the connection is destroyed.
    Result<ControlConnection*> adopt(UniqueFd socket, std::function<void()> on_closed = {});

    /// Notifies the clients that have subscribed.
    void broadcast(std::string_view event, const rpc::Json& params);
    /// To be called when the clients' sources may have more.
    void pump_sources();
    /// While no loop runs: waits, at most a second, until all clients have taken their output.
    void drain();

 private:
    void accept();
    void serve(ControlConnection& client, std::string_view line);
    void defer(ControlConnection& client, const DeferredMethod& method,
               const rpc::Request& request);

    EventLoop& loop_;
    std::map<std::string, std::variant<Method, DeferredMethod>, std::less<>> methods_;
    UniqueFd listener_;
    EventLoop::Watch listener_watch_;
    std::vector<std::shared_ptr<ControlConnection>> connections_;
};

}  // namespace ivmm
