#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/timer.h"
#include "net/ring_port.h"
#include "net/switch.h"
#include "net/tap_port.h"

namespace ivmm::net {

/// Runs a switch on an event loop: its TAPs, and the guests' processes that connect to it. A
/// process that dies or misbehaves loses its port, nobody else notices, and it may connect again.
/// All on the loop's thread.
class SwitchServer {
 public:
    /// Says which port a guest's process gets that asks for one by its name.
    using Admit = std::function<Result<PortId>(const std::string& port, const MacAddress& mac)>;

    /// Listens at `path`, which must be free. What is given must outlive this.
    static Result<std::unique_ptr<SwitchServer>> create(EventLoop& loop, Switch& net,
                                                        const std::string& path, Admit admit);
    ~SwitchServer();

    Result<void> attach_tap(PortId id, std::unique_ptr<TapPort> tap);
    /// Makes a cable of which the other end is at this process's disposal. Errors: the port is in
    /// use.
    Result<CableEnd> make_cable(PortId id);
    /// To be called before a port is removed.
    void disconnect(PortId id);

 private:
    struct Guest;
    static constexpr size_t kMaxWaiting = 64;

    SwitchServer(EventLoop& loop, Switch& net, Admit admit);
    void accept();
    void greet(int socket);
    Result<PortId> admit(const CableMessage& hello, const MacAddress& mac);
    /// The descriptors that the guest's process gets, in the order of the protocol.
    Result<std::array<UniqueFd, 3>> connect_guest(PortId id, UniqueFd socket);
    void on_message(PortId id);
    void serve(PortId id);

    EventLoop& loop_;
    Switch& net_;
    const Admit admit_;
    std::string path_;
    UniqueFd listener_;
    EventLoop::Watch listener_watch_;
    struct Waiting {
        UniqueFd socket;
        EventLoop::Watch watch;
    };
    std::map<int, Waiting> waiting_;  // have connected and not said who they are
    std::map<PortId, std::unique_ptr<Guest>> guests_;
    std::map<PortId, EventLoop::Watch> taps_;
    Timer timer_;
};

}  // namespace ivmm::net
