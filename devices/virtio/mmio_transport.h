#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/state_codec.h"
#include "devices/bus.h"
#include "devices/interrupt_line.h"
#include "devices/suspendable.h"
#include "devices/virtio/device.h"

namespace ivmm::virtio {

/// What the transport adds to its device's own state.
struct TransportState {
    static constexpr uint32_t kVersion = 1;
    uint32_t device_id = 0;
    uint32_t status = 0;
    uint32_t interrupt_status = 0;
    uint32_t config_generation = 0;
    uint32_t device_features_select = 0;
    uint32_t driver_features_select = 0;
    uint64_t driver_features = 0;
    uint32_t queue_select = 0;
    std::vector<QueueState> queues;
    std::vector<std::byte> device;  ///< the device's own encoded state

    bool operator==(const TransportState&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.device_id, self.status, self.interrupt_status, self.config_generation,
              self.device_features_select, self.driver_features_select, self.driver_features,
              self.queue_select, self.queues, self.device);
    }
};

/// virtio over MMIO, version 2 (virtio 1.2, 4.2).
///
/// Threads: the guest's register accesses arrive on vCPU threads. The constant registers and the
/// interrupt status are answered there; everything else is handed to the device loop and waited
/// for, so that the device itself is single-threaded. Notifications come through one eventfd a
/// queue (KVM ioeventfd) straight to the loop.
///
/// A guest that does what it must not gets NEEDS_RESET, or is ignored where the specification
/// leaves no other answer. After NEEDS_RESET nothing but a reset has an effect.
class MmioTransport final : public BusDevice, public Suspendable, private DriverPort {
 public:
    static constexpr uint64_t kWindowSize = 0x1000;

    /// `name`: the device's name in logs and its state_id, e.g. "blk0". `loop`, `memory` and
    /// `interrupt` must outlive the transport. It is destroyed on the loop's thread, or while no
    /// thread runs the loop.
    static Result<std::unique_ptr<MmioTransport>> create(std::string name, EventLoop& loop,
                                                         GuestMemory& memory,
                                                         InterruptLine& interrupt,
                                                         std::unique_ptr<Device> device);
    ~MmioTransport() override;

    Device& device() { return *device_; }
    uint16_t queue_count() const { return static_cast<uint16_t>(queues_.size()); }
    /// Signalled when the guest writes the queue's number to QueueNotify: for KVM_IOEVENTFD.
    const EventFd& notify_event(size_t queue) const { return notify_events_[queue]; }
    /// Offset of the QueueNotify register in the window.
    static constexpr uint64_t kQueueNotify = 0x050;

    void bus_read(uint64_t offset, ByteSpan data) override;
    void bus_write(uint64_t offset, ConstByteSpan data) override;

    std::string state_id() const override { return name_; }
    void freeze() override;
    void thaw() override;
    std::vector<std::byte> save_state() const override;
    Result<void> restore_state(ConstByteSpan bytes) override;

 private:
    MmioTransport(std::string name, EventLoop& loop, GuestMemory& memory, InterruptLine& interrupt,
                  std::unique_ptr<Device> device);

    Result<void> watch_notifications();
    void on_notify(uint16_t queue);

    uint32_t read_register(uint64_t offset) const;
    void write_register(uint64_t offset, uint32_t value);
    void write_queue_register(uint64_t offset, uint32_t value);
    void write_queue_ready(Queue& queue, uint32_t value);
    void write_status(uint32_t value);
    void activate();
    void reset();
    bool needs_reset() const;
    void raise(uint32_t bits);

    uint64_t offered_features() const;
    Result<void> check(const TransportState& state) const;

    void publish(uint16_t queue) override;
    void kick_later(uint16_t queue) override;
    void config_changed() override;
    void fail(std::string_view reason) override;

    const std::string name_;
    EventLoop& loop_;
    GuestMemory& memory_;
    InterruptLine& interrupt_;
    const std::unique_ptr<Device> device_;
    log::Throttle throttle_;

    /// Set on the loop, read and acknowledged on vCPU threads.
    std::atomic<uint32_t> interrupt_status_ = 0;

    // On the loop only.
    bool active_ = false;  // the device is between activate() and reset()
    bool frozen_ = false;
    uint32_t status_ = 0;
    uint32_t config_generation_ = 0;
    uint32_t device_features_select_ = 0;
    uint32_t driver_features_select_ = 0;
    uint64_t driver_features_ = 0;
    uint32_t queue_select_ = 0;
    std::vector<Queue> queues_;
    std::vector<EventFd> notify_events_;
    std::vector<EventLoop::Watch> watches_;  // after the events: ends before them
};

}  // namespace ivmm::virtio
