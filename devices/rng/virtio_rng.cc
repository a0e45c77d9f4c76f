#include "devices/rng/virtio_rng.h"

#include <linux/virtio_ids.h>
#include <sys/random.h>

#include <algorithm>
#include <cassert>

namespace ivmm::virtio {
namespace {

/// The most bytes made in one call, over all requests: a fraction of a millisecond of the loop's
/// time.
constexpr uint32_t kBytesPerRound = 2 * VirtioRng::kMaxRequestBytes;
/// The most requests answered in one call, however short they are.
constexpr uint32_t kRequestsPerRound = 32;

}  // namespace

uint32_t VirtioRng::device_id() const {
    return VIRTIO_ID_RNG;
}

void VirtioRng::read_config(uint64_t /*offset*/, ByteSpan out) const {
    std::fill(out.begin(), out.end(), std::byte{0});
}

Result<void> VirtioRng::restore_state(ConstByteSpan bytes) {
    IVMM_TRY(decode_state<State>(bytes));
    return {};
}

void VirtioRng::kick(uint16_t index) {
    Queue& queue = activation_->queues[index];
    uint32_t bytes = 0;
    uint32_t rounds = 0;
    queue.disable_notifications();
    for (; bytes < kBytesPerRound && rounds < kRequestsPerRound; ++rounds) {
        if (const auto chain = queue.pop()) {
            const uint32_t written = fill(*chain);
            queue.push(*chain, written);
            bytes += written;
        } else if (!queue.enable_notifications()) {
            activation_->driver->publish(index);
            return;
        }
    }
    activation_->driver->publish(index);
    activation_->driver->kick_later(index);
}

uint32_t VirtioRng::fill(const Chain& chain) {
    Cursor out(memory_, chain.writable());
    const auto length =
        static_cast<uint32_t>(std::min<uint64_t>(out.remaining(), kMaxRequestBytes));
    uint32_t written = 0;
    while (written < length) {
        std::array<std::byte, 256> random{};  // of this size getrandom() always fills
        const auto piece =
            std::span(random).first(std::min<size_t>(random.size(), length - written));
        if (::getrandom(piece.data(), piece.size(), GRND_NONBLOCK) !=
            static_cast<ssize_t>(piece.size())) {
            throttle_.warning("virtio-rng: the host has no random bytes: {}", error_text(errno));
            break;
        }
        [[maybe_unused]] const bool there = out.write(piece);
        assert(there);
        written += static_cast<uint32_t>(piece.size());
    }
    return written;
}

}  // namespace ivmm::virtio
