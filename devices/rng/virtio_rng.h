#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/log.h"
#include "base/state_codec.h"
#include "devices/virtio/device.h"

namespace ivmm::virtio {

/// virtio-rng (virtio 1.2, 5.4): random bytes from getrandom(2).
class VirtioRng final : public Device {
 public:
    static constexpr uint16_t kQueueSize = 64;
    /// The most bytes for one request; its driver asks again for more.
    static constexpr uint32_t kMaxRequestBytes = 64 << 10;

    /// There is nothing to save.
    struct State {
        static constexpr uint32_t kVersion = 1;
        bool operator==(const State&) const = default;
        template <class Visitor, class Self>
        static void fields(Visitor& visit, Self& /*self*/) {
            visit();
        }
    };

    explicit VirtioRng(GuestMemory& memory) : memory_(memory) {}

    uint32_t device_id() const override;
    uint64_t offered_features() const override { return 0; }
    std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
    void read_config(uint64_t offset, ByteSpan out) const override;
    void activate(const Activation& activation) override { activation_ = activation; }
    void kick(uint16_t queue) override;
    void reset() override { activation_.reset(); }

    std::string state_id() const override { return "virtio-rng"; }
    std::vector<std::byte> save_state() const override { return encode_state(State{}); }
    Result<void> restore_state(ConstByteSpan bytes) override;

 private:
    static constexpr std::array<uint16_t, 1> kQueueSizes = {kQueueSize};

    /// Bytes written.
    uint32_t fill(const Chain& chain);

    GuestMemory& memory_;
    std::optional<Activation> activation_;
    log::Throttle throttle_;
};

}  // namespace ivmm::virtio
