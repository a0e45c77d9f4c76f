#pragma once

#include <array>
#include <memory>
#include <vector>

#include "net/cable.h"

namespace ivmm::net {

/// The switch's end of a cable. One thread.
class RingPort final : public Port {
 public:
    /// `peers` wakes the guest's process; must outlive this.
    RingPort(SharedMemory memory, const EventFd& peers);

    size_t receive(std::span<Frame> frames) override;
    bool send(const Frame& frame) override;
    void flush() override;
    std::vector<StoredFrame> take_back(const Wanted& wanted) override;
    Offloads offloads() const override { return offloads_; }

    void set_offloads(const Offloads& offloads) { offloads_ = offloads; }
    /// Asks for a wake-up. False: there is something to receive already.
    bool sleep() { return in_.sleep(); }
    /// The peer has written what cannot be.
    bool broken() const { return in_.broken() || out_.broken(); }

 private:
    static constexpr size_t kBatch = 64;

    SharedMemory memory_;
    const EventFd& peers_;
    RingConsumer in_;
    RingProducer out_;
    Offloads offloads_;
    std::vector<std::array<std::byte, kHeadLength>> heads_;  // of a batch
    bool pushed_ = false;
};

}  // namespace ivmm::net
