#include "vmm/control/control_server.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"

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

}  // namespace

void ControlServer::add_method(std::string name, Method method) {
    methods_.emplace(std::move(name), std::move(method));
}

Result<void> ControlServer::listen(UniqueFd socket) {
    listener_ = std::move(socket);
    IVMM_ASSIGN(listener_watch_,
                loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); }));
    return {};
}

Result<ControlConnection*> ControlServer::adopt(UniqueFd socket, std::function<void()> on_closed) {
    auto connection = std::make_unique<ControlConnection>(
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
    const auto answer = [&](const std::string& text) {
        if (request.id) {
            client.send(text);
        }
    };
    const rpc::Json id = request.id.value_or(nullptr);
    const auto method = methods_.find(request.method);
    if (method == methods_.end()) {
        answer(rpc::make_error(id, rpc::kMethodNotFound, "no such method"));
        return;
    }
    const auto result = method->second(client, request.params);
    if (result) {
        answer(rpc::make_result(id, *result));
    } else {
        const bool callers = result.error().kind == ErrorKind::kUsage;
        answer(rpc::make_error(id, callers ? rpc::kInvalidParams : rpc::kFailed,
                               result.error().message));
    }
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
