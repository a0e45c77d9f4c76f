#include "vmm/net/tap_backend.h"

#include <sys/epoll.h>

namespace ivmm {

Result<std::unique_ptr<TapBackend>> TapBackend::create(EventLoop& loop, Tap tap) {
    std::unique_ptr<TapBackend> self(new TapBackend(std::move(tap)));
    IVMM_ASSIGN(self->watch_, loop.watch(self->tap_.fd(), 0, [raw = self.get()](uint32_t events) {
        raw->on_events(events);
    }));
    return self;
}

void TapBackend::set_callbacks(Callback on_receivable, Callback on_sendable) {
    on_receivable_ = std::move(on_receivable);
    on_sendable_ = std::move(on_sendable);
}

void TapBackend::want_receive(bool want_it) {
    want(want_it ? wanted_ | EPOLLIN : wanted_ & ~uint32_t{EPOLLIN});
}

void TapBackend::want_send(bool want_it) {
    want(want_it ? wanted_ | EPOLLOUT : wanted_ & ~uint32_t{EPOLLOUT});
}

void TapBackend::want(uint32_t epoll_events) {
    if (epoll_events != wanted_ && watch_) {
        wanted_ = epoll_events;
        watch_.set_events(epoll_events);
    }
}

void TapBackend::on_events(uint32_t epoll_events) {
    if ((epoll_events & (EPOLLERR | EPOLLHUP)) != 0) {
        // The device was deleted under us. epoll reports that for ever, whatever is wanted.
        log::error("TAP '{}' was deleted; the guest's network is cut off", tap_.name());
        watch_.reset();
        return;
    }
    if ((epoll_events & wanted_ & EPOLLIN) != 0 && on_receivable_) {
        on_receivable_();
    }
    if ((epoll_events & wanted_ & EPOLLOUT) != 0 && on_sendable_) {
        on_sendable_();
    }
}

NetBackend::Sent TapBackend::send(std::span<const Frame> frames) {
    Sent sent;
    for (const Frame& frame : frames) {
        ssize_t n = 0;
        do {
            n = ::writev(tap_.fd(), frame.data(), static_cast<int>(frame.size()));
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN) {
            break;
        }
        ++sent.taken;
        // The link is down, or the frame is none that the kernel understands. The guest can cause
        // that at any rate, so it is counted and not logged.
        sent.refused += n < 0 ? 1 : 0;
    }
    return sent;
}

std::optional<size_t> TapBackend::receive(std::span<const iovec> buffer) {
    ssize_t n = 0;
    do {
        n = ::readv(tap_.fd(), buffer.data(), static_cast<int>(buffer.size()));
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return std::nullopt;  // EAGAIN, or a device that is gone or down
    }
    return static_cast<size_t>(n);
}

Result<void> TapBackend::set_offloads(const NetOffloads& offloads) {
    return tap_.set_offloads({
        .checksum = offloads.checksum,
        .tso4 = offloads.tso4,
        .tso6 = offloads.tso6,
        .tso_ecn = offloads.tso_ecn,
    });
}

}  // namespace ivmm
