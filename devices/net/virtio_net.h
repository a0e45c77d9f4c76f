#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/timer.h"
#include "devices/net/net_backend.h"
#include "devices/net/net_header.h"
#include "devices/virtio/device.h"

namespace ivmm::virtio {

/// Since the device was made. Bytes are those of the Ethernet frames.
struct NetCounters {
    uint64_t transmitted_frames = 0;  ///< handed to the backend
    uint64_t transmitted_bytes = 0;
    uint64_t transmit_invalid = 0;  ///< frames that the guest's header lied about, not sent
    uint64_t transmit_refused = 0;  ///< of the transmitted, those that the host did not want
    uint64_t received_frames = 0;
    uint64_t received_bytes = 0;
    uint64_t receive_dropped = 0;  ///< frames that did not fit into the guest's buffers
};

/// virtio-net with one pair of queues and a control queue (virtio 1.2, 5.1). Receive modes are
/// accepted and recorded, but filter nothing: the guest gets every frame that the backend has.
///
/// counters() may be called on any thread; everything else on the device loop.
class VirtioNet final : public Device {
 public:
    static constexpr uint16_t kReceiveQueue = 0;
    static constexpr uint16_t kTransmitQueue = 1;
    static constexpr uint16_t kControlQueue = 2;

    struct State {
        static constexpr uint32_t kVersion = 1;
        std::array<uint8_t, 6> mac{};
        /// Bit n: the receive mode with the number n (VIRTIO_NET_CTRL_RX_…) is on.
        uint8_t receive_modes = 0;
        /// What the driver has chosen with VIRTIO_NET_CTRL_GUEST_OFFLOADS; otherwise all that it
        /// has negotiated are on.
        std::optional<uint64_t> guest_offloads;
        /// A frame with its header that waits for more buffers; empty: none.
        std::vector<uint8_t> waiting_frame;

        bool operator==(const State&) const = default;
        template <class Visitor, class Self>
        static void fields(Visitor& visit, Self& self) {
            visit(self.mac, self.receive_modes, self.guest_offloads, self.waiting_frame);
        }
    };

    /// `mtu`: told to the guest unless 0. `loop` and `memory` must outlive the device, which must
    /// be destroyed on the loop's thread or while nobody runs the loop.
    static Result<std::unique_ptr<VirtioNet>> create(EventLoop& loop, GuestMemory& memory,
                                                     std::unique_ptr<NetBackend> backend,
                                                     const std::array<uint8_t, 6>& mac,
                                                     uint16_t mtu = 0);

    ~VirtioNet() override;

    NetCounters counters() const;

    uint32_t device_id() const override;
    uint64_t offered_features() const override;
    std::span<const uint16_t> queue_sizes() const override;
    void read_config(uint64_t offset, ByteSpan out) const override;
    void activate(const Activation& activation) override;
    void kick(uint16_t queue) override;
    void reset() override;

    std::string state_id() const override { return "virtio-net"; }
    void freeze() override;
    void thaw() override;
    std::vector<std::byte> save_state() const override;
    Result<void> restore_state(ConstByteSpan bytes) override;

 private:
    struct Outgoing;
    /// Written on the device loop, read on any thread.
    struct Counter {
        std::atomic<uint64_t> value = 0;
        void add(uint64_t n) { value.fetch_add(n, std::memory_order_relaxed); }
    };

    VirtioNet(GuestMemory& memory, std::unique_ptr<NetBackend> backend,
              const std::array<uint8_t, 6>& mac, uint16_t mtu);
    bool running() const { return activation_.has_value() && !frozen_; }
    bool negotiated(unsigned feature) const;
    void apply_guest_offloads();
    /// Looks at all that may have happened while nobody looked.
    void start_work();
    void stop_work();

    // Receiving.
    void receive();
    enum class Delivery { kDone, kNoBuffers };
    /// Puts the frame that waits in frame_ into the guest's buffers, or drops it.
    Delivery deliver(Queue& queue);
    bool frame_receivable() const;
    void undo_receive_pops(Queue& queue);
    Delivery drop(Queue& queue);
    void stop_waiting();
    void patience_ended();

    // Transmitting.
    void transmit();
    size_t collect(Queue& queue);
    bool send_collected(Queue& queue, size_t count);

    // Control commands (5.1.6.5).
    void control();
    uint8_t execute(Cursor& command);
    bool set_receive_mode(uint8_t mode, Cursor& command);
    bool set_mac(Cursor& command);
    bool set_guest_offloads(Cursor& command);

    GuestMemory& memory_;
    const std::unique_ptr<NetBackend> backend_;
    Timer patience_;
    const std::array<uint8_t, 6> configured_mac_;
    const uint16_t mtu_;

    bool frozen_ = false;
    std::optional<Activation> activation_;
    NetOffloads transmit_offloads_;
    NetOffloads receive_offloads_;

    std::array<uint8_t, 6> mac_;
    uint8_t receive_modes_ = 0;
    std::optional<uint64_t> guest_offloads_;

    std::vector<std::byte> buffer_;      // for one frame with its header
    size_t frame_length_ = 0;            // of the frame in the buffer that is to be delivered
    std::vector<Chain> receive_chains_;  // popped for that frame
    /// The driver has got frames since its last kick, and may bring their buffers back.
    bool driver_has_buffers_ = false;
    /// The frame waits for more buffers, and the timer runs.
    bool waiting_ = false;

    std::vector<Outgoing> outgoing_;

    Counter transmitted_frames_;
    Counter transmitted_bytes_;
    Counter transmit_invalid_;
    Counter transmit_refused_;
    Counter received_frames_;
    Counter received_bytes_;
    Counter receive_dropped_;
};

}  // namespace ivmm::virtio
