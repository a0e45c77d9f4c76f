#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "devices/bus.h"
#include "devices/interrupt_line.h"
#include "devices/virtio/device.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/ring.h"
#include "memory/guest_memory.h"

/// The driver's side of virtio for tests, in guest memory but without a guest:
///
///     auto memory = *GuestMemory::create(1 << 20);
///     Arena arena(*memory, 0x1000, 0x80000);
///     FakeDevicePort port(*memory, arena, device);          // or FakeMmioDriver for a transport
///     port.activate(kFeatureVersion1 | kFeatureEventIdx);
///     auto request = port.queue(0).chain().readable(bytes_of(header)).writable(512).send();
///     port.kick(0);
///     auto used = port.queue(0).take_used();                 // used->written, used->request
///     auto bytes = port.queue(0).written(*used);
namespace ivmm::test {

/// Runs the loop on this thread until everything that is there now is done.
void run_pending(EventLoop& loop);
/// Runs the loop on this thread until the condition holds. False if it does not within 10 s.
[[nodiscard]] bool run_until(EventLoop& loop, const std::function<bool()>& condition);

/// Hands out guest memory; starts again at its beginning when it has come to its end.
class Arena {
 public:
    Arena(GuestMemory& memory, Gpa start, uint64_t size)
        : memory_(memory), start_(start), end_(start + size), next_(start) {}
    GuestMemory& memory() { return memory_; }
    Gpa allocate(uint64_t size, uint64_t alignment = 16);
    /// As allocate(), but it is never handed out again.
    Gpa reserve(uint64_t size, uint64_t alignment);

 private:
    GuestMemory& memory_;
    Gpa start_;
    Gpa end_;
    Gpa next_;
};

/// What the driver has put into a queue.
struct Request {
    uint16_t head = 0;
    std::vector<virtio::Segment> readable;
    std::vector<virtio::Segment> writable;
};

/// What came back.
struct Used {
    Request request;
    uint32_t written = 0;  ///< as the device says
};

/// The driver's side of one split virtqueue.
class FakeQueue {
 public:
    /// Lays the rings out in the arena, and clears them.
    FakeQueue(Arena& arena, uint16_t size, bool event_idx);

    uint16_t size() const { return size_; }
    Gpa descriptors() const { return descriptors_; }
    Gpa available() const { return available_; }
    Gpa used() const { return used_; }
    /// What a transport would tell the device's Queue (not ready yet).
    virtio::QueueState layout() const;

    /// Builds a request; nothing is in the queue before send().
    class ChainBuilder {
     public:
        /// A device-readable buffer with these bytes.
        ChainBuilder& readable(ConstByteSpan bytes);
        ChainBuilder& readable(std::string_view text);
        /// Device-writable buffer of `length` bytes, filled with 0xee.
        ChainBuilder& writable(uint32_t length);
        /// Buffers at any address, checked by nobody.
        ChainBuilder& readable_at(Gpa address, uint32_t length);
        ChainBuilder& writable_at(Gpa address, uint32_t length);
        /// Uses one indirect descriptor for all.
        ChainBuilder& indirect();
        /// Puts it into the queue and makes it available.
        Request send();
        /// Puts it into the queue, but leaves avail.idx alone: for FakeQueue::publish().
        Request add();

     private:
        friend class FakeQueue;
        explicit ChainBuilder(FakeQueue& queue) : queue_(queue) {}
        FakeQueue& queue_;
        Request request_;
        bool indirect_ = false;
    };
    ChainBuilder chain() { return ChainBuilder(*this); }
    /// Makes all that was added available.
    void publish();

    /// The next request that the device has handed back, if any; its descriptors are free again.
    std::optional<Used> take_used();
    /// The first `used.written` bytes of the writable part.
    std::vector<std::byte> written(const Used& used) const;
    /// All of the writable part, whatever the device says.
    std::vector<std::byte> writable_bytes(const Request& request) const;

    /// Whether the device wants to be notified of what was published since the last call.
    bool must_notify();
    /// EVENT_IDX: interrupt me when used.idx passes this; otherwise: 0 = interrupt me.
    void set_used_event(uint16_t index);
    void set_no_interrupt(bool no_interrupt);

    uint16_t used_index() const;
    uint16_t available_index() const { return next_available_; }
    /// How many descriptors are not in use.
    size_t free_descriptors() const { return free_.size(); }

    // For hostile drivers: raw access to the queue.
    void write_descriptor(uint16_t index, const virtio::Descriptor& descriptor);
    void write_available(uint16_t slot, uint16_t head);
    void write_available_index(uint16_t index);

 private:
    Arena& arena_;
    GuestMemory& memory_;
    uint16_t size_;
    bool event_idx_;
    Gpa descriptors_;
    Gpa available_;
    Gpa used_;
    uint16_t next_available_ = 0;
    uint16_t published_available_ = 0;
    uint16_t notified_available_ = 0;
    uint16_t next_used_ = 0;
    std::deque<uint16_t> free_;
    struct InFlight {
        Request request;
        std::vector<uint16_t> descriptors;
    };
    std::map<uint16_t, InFlight> in_flight_;  // by head
};

/// Counts what a device does to its interrupt line.
class FakeInterrupt final : public InterruptLine {
 public:
    void trigger() noexcept override { ++count_; }
    uint32_t count() const { return count_; }

 private:
    std::atomic<uint32_t> count_ = 0;
};

/// A device and its driver, without a transport between them. Call on the device's loop (or while
/// nobody runs it).
class FakeDevicePort final : public virtio::DriverPort {
 public:
    FakeDevicePort(GuestMemory& memory, Arena& arena, virtio::Device& device)
        : memory_(memory), arena_(arena), device_(device) {}

    /// Sets up all the queues (with at most `queue_size` entries) and activates the device.
    void activate(uint64_t features, uint16_t queue_size = 64);
    void reset();
    FakeQueue& queue(size_t index) { return *driver_queues_[index]; }
    virtio::Queue& device_queue(size_t index) { return device_queues_[index]; }

    /// Kicks the queue, and again as long as the device has asked for it.
    void kick(uint16_t queue);
    /// Kicks once; kick_later_requests() tells whether the device wants more.
    void kick_once(uint16_t queue) { device_.kick(queue); }
    std::set<uint16_t> kick_later_requests() { return std::exchange(kick_later_, {}); }

    /// Interrupts of a queue that its driver wanted.
    uint32_t interrupts(uint16_t queue) const;
    uint32_t config_changes() const { return config_changes_; }
    /// Why the device needs a reset; empty: it does not.
    const std::string& failure() const { return failure_; }

    void publish(uint16_t queue) override;
    void kick_later(uint16_t queue) override { kick_later_.insert(queue); }
    void config_changed() override { ++config_changes_; }
    void fail(std::string_view reason) override;

 private:
    GuestMemory& memory_;
    Arena& arena_;
    virtio::Device& device_;
    std::vector<virtio::Queue> device_queues_;
    std::vector<std::unique_ptr<FakeQueue>> driver_queues_;
    std::set<uint16_t> kick_later_;
    std::map<uint16_t, uint32_t> interrupts_;
    uint32_t config_changes_ = 0;
    std::string failure_;
};

/// A driver behind the registers of a virtio-mmio transport.
class FakeMmioDriver {
 public:
    FakeMmioDriver(BusDevice& transport, Arena& arena) : transport_(transport), arena_(arena) {}

    uint32_t read(uint64_t offset);
    void write(uint64_t offset, uint32_t value);
    uint64_t device_features();
    void set_driver_features(uint64_t features);

    /// Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK. False if the device refuses them.
    bool negotiate(uint64_t features);
    /// Lays out a queue, writes its registers and makes it ready. Needs negotiate().
    FakeQueue& set_up_queue(uint32_t index, uint16_t size);
    void driver_ok();
    /// All of the above, every queue with at most `queue_size` entries.
    bool start(uint64_t features, uint16_t queue_size = 16);

    FakeQueue& queue(uint32_t index) { return *queues_.at(index); }
    void notify(uint32_t index);

 private:
    BusDevice& transport_;
    Arena& arena_;
    uint64_t features_ = 0;
    std::map<uint32_t, std::unique_ptr<FakeQueue>> queues_;
};

}  // namespace ivmm::test
