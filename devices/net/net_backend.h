#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <span>

#include "base/result.h"

namespace ivmm {

/// What the receiver of frames is able to do itself. Without any, every frame is complete (with
/// checksums) and no longer than the link's MTU.
struct NetOffloads {
    bool checksum = false;  ///< takes frames whose checksum is to be completed
    bool tso4 = false;      ///< takes TCP over IPv4 segments to be cut; needs checksum
    bool tso6 = false;      ///< the same over IPv6
    bool tso_ecn = false;   ///< of these, also such with ECN; needs tso4 or tso6

    bool operator==(const NetOffloads&) const = default;
};

/// The other end of a network device's cable. Everything is called on the device loop.
///
/// A frame is a virtio_net_hdr_v1 (12 bytes; virtio 1.2, 5.1.6) and an Ethernet frame without
/// frame check sequence.
class NetBackend {
 public:
    /// One frame in pieces; the header is a piece of its own and comes first. The other pieces may
    /// be guest memory, which changes at any time: read each byte once, and believe none.
    using Frame = std::span<const iovec>;
    using Callback = std::function<void()>;

    struct Sent {
        size_t taken = 0;    ///< so many frames from the front are done with
        size_t refused = 0;  ///< of these, the host did not want so many
    };

    virtual ~NetBackend() = default;

    /// Who is called when something can be received or sent, while that is wanted. Nothing is
    /// wanted at first. A call may also come for nothing.
    virtual void set_callbacks(Callback on_receivable, Callback on_sendable) = 0;
    virtual void want_receive(bool want) = 0;
    virtual void want_send(bool want) = 0;

    /// Sends frames in order, never waits. If fewer than all are taken, the rest may be tried again
    /// when on_sendable is called.
    virtual Sent send(std::span<const Frame> frames) = 0;

    /// Receives one frame into `buffer`, never waits. Returns its length with the header; what does
    /// not fit is lost. nullopt: there is none.
    virtual std::optional<size_t> receive(std::span<const iovec> buffer) = 0;

    /// Tells the host what the device's driver is able to receive. Frames that are on their way
    /// may still have been made for the former setting.
    virtual Result<void> set_offloads(const NetOffloads& offloads) = 0;
};

}  // namespace ivmm
