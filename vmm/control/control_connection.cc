#include "vmm/control/control_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

namespace ivmm {
namespace {

/// With this much unread output, a client's requests wait, and so does its source.
constexpr size_t kOutputMark = size_t{256} << 10;
/// With this much (answers below the mark, and events), it is disconnected.
constexpr size_t kOutputLimit = size_t{1} << 20;

}  // namespace

Result<void> ControlConnection::start(EventLoop& loop, std::function<void()> on_closed) {
    events_ = EPOLLIN;
    IVMM_ASSIGN(watch_,
                loop.watch(fd(), events_, [this, closed = std::move(on_closed)](uint32_t events) {
                    on_events(events);
                    if (broken_ || (ending_ && stream_.queued() == 0)) {
                        closed();
                    }
                }));
    return {};
}

void ControlConnection::on_events(uint32_t events) {
    if (events & EPOLLOUT) {
        flush();
    }
    if (held_ && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        broken_ = true;  // the client has gone; nobody waits for the answer any more
        return;
    }
    if (!held_ && !ending_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) &&
        stream_.queued() < kOutputMark) {
        const auto filled = stream_.fill();
        if (filled == LineStream::Fill::kTooLong) {
            send(rpc::make_error(nullptr, rpc::kInvalidRequest, "a line is longer than 1 MiB"));
        }
        ending_ = filled != LineStream::Fill::kOk;
    }
    waiting_for_room_ = false;
    serve_lines();
    pump();
}

bool ControlConnection::has_room() {
    if (stream_.queued() >= kOutputMark) {
        waiting_for_room_ = true;
    }
    return !broken_ && !waiting_for_room_;
}

void ControlConnection::serve_lines() {
    while (!held_ && has_room()) {
        const auto line = stream_.next_line();
        if (!line) {
            return;
        }
        serve_(*this, *line);
    }
}

void ControlConnection::send(std::string_view line) {
    if (broken_) {
        return;
    }
    stream_.queue(line);
    if (stream_.queued() > kOutputLimit) {
        drop();
        return;
    }
    flush();
    update_events();
}

void ControlConnection::hold() {
    held_ = true;
    update_events();
}

void ControlConnection::release() {
    held_ = false;
    serve_lines();
    update_events();
}

void ControlConnection::set_source(Source source) {
    source_ = std::move(source);
}

void ControlConnection::pump() {
    while (source_ && has_room()) {
        const auto line = source_();
        if (!line) {
            break;
        }
        send(*line);
    }
    update_events();
}

void ControlConnection::flush() {
    if (!broken_ && !stream_.flush()) {
        drop();
    }
}

void ControlConnection::drop() {
    broken_ = true;
    // The loop reports the hang-up, and the connection is closed from there.
    ::shutdown(fd(), SHUT_RDWR);
}

void ControlConnection::update_events() {
    if (!watch_) {
        return;
    }
    uint32_t events = 0;
    if (!held_ && !ending_ && stream_.queued() < kOutputMark) {
        events |= EPOLLIN;
    }
    if (stream_.queued() > 0 || waiting_for_room_) {
        events |= EPOLLOUT;
    }
    if (events != events_) {
        events_ = events;
        watch_.set_events(events);
    }
}

}  // namespace ivmm
