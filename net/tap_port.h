#pragma once

#include <array>
#include <memory>
#include <vector>

#include "net/port.h"
#include "net/tap.h"

namespace ivmm::net {

/// A TAP of the host at a port of the switch. One thread.
class TapPort final : public Port {
 public:
    /// `complete`: the host gets whole frames only, with their checksums (for who watches them).
    static Result<std::unique_ptr<TapPort>> create(Tap tap, bool complete);

    int fd() const { return tap_.fd(); }
    size_t receive(std::span<Frame> frames) override;
    bool send(const Frame& frame) override;
    void flush() override {}
    Offloads offloads() const override;

 private:
    static constexpr size_t kBatch = 16;

    TapPort(Tap tap, bool complete) : tap_(std::move(tap)), complete_(complete), buffers_(kBatch) {}

    Tap tap_;
    const bool complete_;
    std::vector<std::array<std::byte, kMaxFrameLength>> buffers_;
};

}  // namespace ivmm::net
