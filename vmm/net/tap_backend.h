#pragma once

#include <memory>

#include "base/event_loop.h"
#include "base/log.h"
#include "devices/net/net_backend.h"
#include "net/tap.h"

namespace ivmm {

/// A network device's cable to a TAP of the host. See NetBackend for threads.
class TapBackend final : public NetBackend {
 public:
    /// `loop`: the device loop; must outlive the backend, which must be destroyed on its thread or
    /// while nobody runs it.
    static Result<std::unique_ptr<TapBackend>> create(EventLoop& loop, Tap tap);

    void set_callbacks(Callback on_receivable, Callback on_sendable) override;
    void want_receive(bool want) override;
    void want_send(bool want) override;
    Sent send(std::span<const Frame> frames) override;
    std::optional<size_t> receive(std::span<const iovec> buffer) override;
    Result<void> set_offloads(const NetOffloads& offloads) override;

 private:
    explicit TapBackend(Tap tap) : tap_(std::move(tap)) {}
    void want(uint32_t epoll_events);
    void on_events(uint32_t epoll_events);

    Tap tap_;
    EventLoop::Watch watch_;
    uint32_t wanted_ = 0;  // EPOLLIN, EPOLLOUT
    Callback on_receivable_;
    Callback on_sendable_;
};

}  // namespace ivmm
