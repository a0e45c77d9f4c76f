#include "vmm/control/control_server.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "vmm/control/parameters.h"
#include "vmm/control/version.h"

namespace ivmm {
namespace {

constexpr auto kDrainTime = std::chrono::seconds(1);

/// Whether the peer of a Unix socket is this user or root.
bool may_connect(int socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == ::geteuid() || peer.uid == 0);
}

/// Nobody waits for the answer of a request without an id.
void answer(ControlConnection& client, const std::optional<rpc::Json>& id,
            const Result<rpc::Json>& result) {
    if (!id) {
        return;
    }
    if (result) {
        client.send(rpc::make_result(*id, *result));
    } else {
        const bool callers = result.error().kind == ErrorKind::kUsage;
        client.send(rpc::make_error(*id, callers ? rpc::kInvalidParams : rpc::kFailed,
                                    result.error().message));
    }
}

}  // namespace

ControlServer::ControlServer(EventLoop& loop) : loop_(loop) {
    add_method("version", [](ControlConnection&, const rpc::Json& params) -> Result<rpc::Json> {
        IVMM_TRY(rpc::check_parameters(params, {}));
        return rpc::Json{{"version", kVersion}};
    });
    add_method("subscribe",
               [](ControlConnection& client, const rpc::Json& params) -> Result<rpc::Json> {
                   IVMM_TRY(rpc::check_parameters(params, {}));
                   client.set_subscribed(true);
                   return rpc::Json::object();
               });
}

void ControlServer::add_method(std::string name, Method method) {
    methods_.emplace(std::move(name), std::move(method));
}

void ControlServer::add_deferred_method(std::string name, DeferredMethod method) {
    methods_.emplace(std::move(name), std::move(method));
}

Result<void> ControlServer::listen(UniqueFd socket) {
    listener_ = std::move(socket);
    IVMM_ASSIGN(listener_watch_,
                loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); }));
    return {};
}

Result<ControlConnection*> ControlServer::adopt(UniqueFd socket, std::function<void()> on_closed) {
    auto connection = std::make_shared<ControlConnection>(
        std::move(socket),
        [this](ControlConnection& client, std::string_view line) { serve(client, line); });
    ControlConnection* const client = connection.get();
    IVMM_TRY(client->start(loop_, [this, client, closed = std::move(on_closed)] {
        if (closed) {
            closed();
        }
        const auto at = std::find_if(connections_.begin(), connections_.end(),
                                     [client](const auto& c) { return c.get() == client; });
        connections_.erase(at);
        if (listener_watch_) {
            listener_watch_.set_events(EPOLLIN);
        }
    }));
    connections_.push_back(std::move(connection));
    return client;
}

void ControlServer::accept() {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            // Out of descriptors: until a client has gone, trying again would not help.
            listener_watch_.set_events(0);
            log::warning("control socket: cannot accept a client: {}", error_text(errno));
        }
        return;
    }
    if (!may_connect(socket.get())) {
        return;
    }
    if (connections_.size() >= kMaxConnections) {
        LineStream stream(std::move(socket));
        stream.queue(rpc::make_error(
            nullptr, rpc::kFailed,
            fmt::format("{} clients are connected, which is the most", kMaxConnections)));
        stream.flush();
        return;
    }
    if (auto adopted = adopt(std::move(socket)); !adopted) {
        log::warning("control socket: {}", adopted.error().message);
    }
}

void ControlServer::serve(ControlConnection& client, std::string_view line) {
    if (line.size() > LineStream::kMaxLine) {
        client.send(rpc::make_error(nullptr, rpc::kInvalidRequest, "a line is longer than 1 MiB"));
        return;
    }
    auto parsed = rpc::parse_request(line);
    if (const auto* const refusal = std::get_if<rpc::Refusal>(&parsed)) {
        client.send(rpc::make_error(refusal->id, refusal->code, refusal->message));
        return;
    }
    const auto& request = std::get<rpc::Request>(parsed);
    const auto method = methods_.find(request.method);
    if (method == methods_.end()) {
        if (request.id) {
            client.send(rpc::make_error(*request.id, rpc::kMethodNotFound, "no such method"));
        }
        return;
    }
    if (const auto* const now = std::get_if<Method>(&method->second)) {
        answer(client, request.id, (*now)(client, request.params));
    } else {
        defer(client, std::get<DeferredMethod>(method->second), request);
    }
}

void ControlServer::defer(ControlConnection& client, const DeferredMethod& method,
                          const rpc::Request& request) {
    client.hold();
    method(request.params,
           [this, weak = client.weak_from_this(), id = request.id](Result<rpc::Json> result) {
               loop_.post([weak, id, result = std::move(result)] {
                   if (const auto caller = weak.lock()) {
                       answer(*caller, id, result);
                       caller->release();
                   }
               });
           });
}

void ControlServer::broadcast(std::string_view event, const rpc::Json& params) {
    const std::string line = rpc::make_notification(event, params);
    for (const auto& connection : connections_) {
        if (connection->subscribed()) {
            connection->send(line);
        }
    }
}

void ControlServer::pump_sources() {
    for (const auto& connection : connections_) {
        connection->pump();
    }
}

void ControlServer::drain() {
    const auto end = std::chrono::steady_clock::now() + kDrainTime;
    while (std::chrono::steady_clock::now() < end) {
        std::vector<pollfd> waiting;
        for (const auto& connection : connections_) {
            connection->flush();
            if (connection->has_output()) {
                waiting.push_back({connection->fd(), POLLOUT, 0});
            }
        }
        if (waiting.empty()) {
            return;
        }
        ::poll(waiting.data(), waiting.size(), 10);
    }
}

}  // namespace ivmm
