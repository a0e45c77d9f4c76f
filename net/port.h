#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "net/frame.h"

namespace ivmm::net {

/// What the receiver of frames is able to do itself; the terms are those of virtio-net.
struct Offloads {
    bool checksum = false;
    bool tso4 = false;
    bool tso6 = false;
    bool tso_ecn = false;

    bool operator==(const Offloads&) const = default;
};

/// What is plugged into a port of the switch. One thread: the switch's.
class Port {
 public:
    virtual ~Port() = default;

    /// Takes frames that have come, at most as many as there is room for; never waits. They stay
    /// valid until the next call.
    virtual size_t receive(std::span<Frame> frames) = 0;
    /// Sends a frame; copies it. False: no room at the moment.
    virtual bool send(const Frame& frame) = 0;
    /// Tells the peer of what has been sent and of the room that receive() has made.
    virtual void flush() = 0;
    virtual Offloads offloads() const = 0;

    using Wanted = std::function<bool(const Frame&)>;
    /// Takes back, in their order, those frames that were sent and that the peer, which stands
    /// still, has not received yet. Of a port that cannot do that: none.
    virtual std::vector<StoredFrame> take_back(const Wanted& /*wanted*/) { return {}; }
};

}  // namespace ivmm::net
