#pragma once

#include <memory>

#include "base/event_loop.h"
#include "base/timer.h"
#include "devices/net/net_backend.h"
#include "net/cable.h"

namespace ivmm {

/// A network device's cable to the switch (net/cable.h). When the switch has gone, frames are lost
/// until it is back: the backend connects again by itself. See NetBackend for threads.
class SwitchBackend final : public NetBackend {
 public:
    /// Where to connect again.
    struct Place {
        std::string path;  ///< the switch's socket; empty: never again
        std::string port;
        net::MacAddress mac{};
    };

    /// `loop`: the device loop; must outlive the backend, which must be destroyed on its thread or
    /// while nobody runs it.
    static Result<std::unique_ptr<SwitchBackend>> create(EventLoop& loop, net::CableEnd end,
                                                         Place place);

    ~SwitchBackend() override;

    void set_callbacks(Callback on_receivable, Callback on_sendable) override;
    void want_receive(bool want) override;
    void want_send(bool want) override;
    Sent send(std::span<const Frame> frames) override;
    std::optional<size_t> receive(std::span<const iovec> buffer) override;
    Result<void> set_offloads(const NetOffloads& offloads) override;

 private:
    struct Cable;

    SwitchBackend(EventLoop& loop, Place place);
    Result<void> plug(net::CableEnd end);
    void on_wake();
    void arm();
    void lose();
    void try_again();
    void tell_offloads();

    EventLoop& loop_;
    const Place place_;
    std::unique_ptr<Cable> cable_;  // null: the switch is not there
    Timer timer_;                   // of try_again()
    bool wants_receive_ = false;
    bool wants_send_ = false;
    net::Offloads offloads_;
    Callback on_receivable_;
    Callback on_sendable_;
};

}  // namespace ivmm
