#include "vmm/control/control_client.h"

#include <poll.h>

#include <algorithm>

namespace ivmm {

Result<void> ControlClient::wait(short poll_events, Deadline deadline) {
    const auto now = std::chrono::steady_clock::now();
    const auto left = std::chrono::ceil<Milliseconds>(deadline - now).count();
    pollfd wanted{stream_.fd(), poll_events, 0};
    if (left <= 0 || ::poll(&wanted, 1, static_cast<int>(left)) == 0) {
        return Unexpected{
            {ErrorKind::kFailed, ETIMEDOUT, fmt::format("{} does not answer", peer_)}};
    }
    return {};
}

Unexpected ControlClient::ended() const {
    return {{ErrorKind::kFailed, EPIPE, fmt::format("{} has ended", peer_)}};
}

Result<std::optional<rpc::Message>> ControlClient::receive(Deadline deadline) {
    while (true) {
        if (const auto line = stream_.next_line()) {
            IVMM_ASSIGN(auto message, rpc::parse_message(*line));
            return std::optional(std::move(message));
        }
        IVMM_TRY(wait(POLLIN, deadline));
        if (stream_.fill() != LineStream::Fill::kOk) {
            return std::optional<rpc::Message>();
        }
    }
}

Result<rpc::Json> ControlClient::call(std::string_view method, const rpc::Json& params,
                                      Milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    IVMM_TRY(ask(method, params, deadline));
    return answer(deadline);
}

Result<void> ControlClient::ask(std::string_view method, const rpc::Json& params,
                                Deadline deadline) {
    stream_.queue(rpc::make_request(++last_id_, method, params));
    while (stream_.queued() > 0) {
        if (!stream_.flush()) {
            return ended();
        }
        if (stream_.queued() > 0) {
            IVMM_TRY(wait(POLLOUT, deadline));
        }
    }
    return {};
}

Result<rpc::Json> ControlClient::answer(Deadline deadline) {
    while (true) {
        IVMM_ASSIGN(auto message, receive(deadline));
        if (!message) {
            return ended();
        }
        if (!message->method.empty()) {
            last_event_ = std::move(message);
        } else if (message->error) {
            return fail("{}", *message->error);
        } else if (message->id == last_id_) {
            return std::move(message->result);
        }
    }
}

Result<std::optional<rpc::Json>> ControlClient::wait_for_end(std::string_view event,
                                                             Milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (true) {
        IVMM_ASSIGN(auto message, receive(deadline));
        if (!message) {
            break;
        }
        if (!message->method.empty()) {
            last_event_ = std::move(message);
        }
    }
    if (last_event_ && last_event_->method == event) {
        return std::optional(std::move(last_event_->params));
    }
    return std::optional<rpc::Json>();
}

}  // namespace ivmm
