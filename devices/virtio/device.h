#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "devices/suspendable.h"
#include "devices/virtio/queue.h"

namespace ivmm::virtio {

/// How a device reaches its driver. Owned by the transport. Device loop only.
class DriverPort {
 public:
    virtual ~DriverPort() = default;
    /// Publishes what was pushed to a queue and interrupts the driver if it wants that.
    virtual void publish(uint16_t queue) = 0;
    /// Kicks the queue again in a later round of the loop. For a device that has done its share
    /// of work and leaves the rest for later, so that others have their turn.
    virtual void kick_later(uint16_t queue) = 0;
    /// Tells the driver that the configuration space has changed.
    virtual void config_changed() = 0;
    /// A guest fault that makes the device unusable until it is reset: sets NEEDS_RESET, stops
    /// the queues, and logs (throttled). `reason`: a static text.
    virtual void fail(std::string_view reason) = 0;
};

/// What a device is given when its driver has finished the set-up (DRIVER_OK). Valid until
/// reset().
struct Activation {
    uint64_t features = 0;  ///< as negotiated
    std::span<Queue> queues;
    DriverPort* driver = nullptr;
};

/// A virtio device without its transport. Everything is called on the device loop.
///
/// Freeze and state as in Suspendable, with these additions: the transport saves and restores the
/// queues and the negotiated features; it calls restore_state() before activate(), both while
/// the device is frozen. A frozen device stays so through reset() and activate(). After thaw()
/// the transport kicks each queue.
///
/// A queue that breaks under the device's hands (Queue::broken()) is noticed by the transport; the
/// device only finds that there are no more requests.
class Device : public Suspendable {
 public:
    virtual uint32_t device_id() const = 0;
    /// Device-type features offered; the transport adds its own (VERSION_1, INDIRECT_DESC,
    /// EVENT_IDX).
    virtual uint64_t offered_features() const = 0;
    /// The greatest size of each queue; powers of two. Does not change.
    virtual std::span<const uint16_t> queue_sizes() const = 0;

    /// Configuration space (virtio 1.2, 2.5). Fills all of `out`; beyond the end are zeroes.
    virtual void read_config(uint64_t offset, ByteSpan out) const = 0;
    virtual void write_config(uint64_t /*offset*/, ConstByteSpan /*in*/) {}

    /// The driver is ready. Queues that it has not enabled are not ready().
    virtual void activate(const Activation& activation) = 0;
    /// The driver has (perhaps) put requests into a queue. Only between activate() and reset().
    virtual void kick(uint16_t queue) = 0;
    /// Back to the state before activate(). When it returns, nothing of the device touches guest
    /// memory any more.
    virtual void reset() = 0;
};

}  // namespace ivmm::virtio
