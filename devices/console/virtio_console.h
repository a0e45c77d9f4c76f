#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/event_loop.h"
#include "devices/console_port.h"
#include "devices/virtio/device.h"

namespace ivmm::virtio {

/// virtio-console with one port (virtio 1.2, 5.3): receive and transmit queue, no control queues.
/// console_input() may be called on any thread; everything else on the device loop.
class VirtioConsole final : public Device, public ConsoleInput {
 public:
    static constexpr uint16_t kReceiveQueue = 0;
    static constexpr uint16_t kTransmitQueue = 1;
    static constexpr size_t kInputSize = size_t{16} << 10;

    /// In characters.
    struct Size {
        uint16_t columns;
        uint16_t rows;
    };

    struct State {
        static constexpr uint32_t kVersion = 1;
        /// Bytes of the next transmit request that have been sent on already.
        uint64_t transmitted = 0;
        /// Typed and not yet read by the guest.
        std::vector<uint8_t> input;

        bool operator==(const State&) const = default;
        template <class Visitor, class Self>
        static void fields(Visitor& visit, Self& self) {
            visit(self.transmitted, self.input);
        }
    };

    /// `size`: told to the guest, if there is one. `loop`, `memory` and `output` must outlive the
    /// device, which must be destroyed on the loop's thread or while nobody runs the loop.
    static Result<std::unique_ptr<VirtioConsole>> create(EventLoop& loop, GuestMemory& memory,
                                                         ConsoleOutput& output,
                                                         std::optional<Size> size = {});

    /// Any thread.
    size_t console_input(ConstByteSpan bytes) override;

    uint32_t device_id() const override;
    uint64_t offered_features() const override;
    std::span<const uint16_t> queue_sizes() const override;
    void read_config(uint64_t offset, ByteSpan out) const override;
    void activate(const Activation& activation) override;
    void kick(uint16_t queue) override;
    void reset() override;

    std::string state_id() const override { return "virtio-console"; }
    void freeze() override { frozen_ = true; }
    void thaw() override;
    std::vector<std::byte> save_state() const override;
    Result<void> restore_state(ConstByteSpan bytes) override;

 private:
    VirtioConsole(EventFd typed, GuestMemory& memory, ConsoleOutput& output,
                  std::optional<Size> size);
    bool running() const { return activation_.has_value() && !frozen_; }
    /// Gives what was typed to the guest, as far as it has buffers.
    void receive();
    void transmit();

    GuestMemory& memory_;
    ConsoleOutput& output_;
    const std::optional<Size> size_;
    const EventFd typed_;  // signalled when there is input
    EventLoop::Watch typed_watch_;
    bool frozen_ = false;
    std::optional<Activation> activation_;
    uint64_t transmitted_ = 0;  // see State

    mutable std::mutex mutex_;  // guards what follows
    std::deque<uint8_t> input_;
};

}  // namespace ivmm::virtio
