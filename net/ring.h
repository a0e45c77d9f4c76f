#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "net/frame.h"

/// Frames from one process to another through shared memory (docs/switch.md). Neither believes the
/// other: whatever a peer writes, at whatever time, nothing is read or written outside of the ring,
/// and the work for it is bounded by the ring's size.
namespace ivmm::net {

/// What both sides see of one direction; the frames follow. Positions count bytes since the start
/// and wrap around at 2^32, of which a ring's size is a divisor.
struct RingState {
    alignas(64) std::atomic<uint32_t> produced;
    alignas(64) std::atomic<uint32_t> consumed;
    /// Set by the one who wants to be woken; cleared by the one who wakes.
    alignas(64) std::atomic<uint32_t> consumer_sleeps;
    alignas(64) std::atomic<uint32_t> producer_sleeps;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

inline constexpr size_t kRingBytes = size_t{2} << 20;  ///< of frames, in one direction
inline constexpr size_t kRingStateBytes = 4096;
/// One direction after the other: to the switch, from the switch.
inline constexpr size_t kRingPairBytes = 2 * (kRingStateBytes + kRingBytes);

/// Puts frames in. One thread.
class RingProducer {
 public:
    explicit RingProducer(std::byte* memory);

    /// Room for a frame, to be filled before push(). Nullopt: none at the moment, or the peer is
    /// broken. At most kMaxFrameLength.
    std::optional<ByteSpan> reserve(size_t length);
    /// The frame that was reserved last is complete.
    void push(const VnetHeader& vnet);
    /// Lets the consumer see what was pushed; whether it must be woken.
    bool publish();
    /// Shows what was published and not taken yet; what is `unwanted` is taken back. For when the
    /// consumer stands still: else it may get such a frame all the same.
    void take_back(const std::function<bool(const VnetHeader&, ConstByteSpan)>& unwanted);
    /// Asks to be woken when there is room. False: there is some already.
    bool sleep();
    bool broken() const { return broken_; }

 private:
    std::optional<uint32_t> room();

    RingState& state_;
    std::byte* const data_;
    uint32_t produced_ = 0;  // ours; the shared one is for the peer
    uint32_t reserved_ = 0;  // length of the frame
    bool broken_ = false;
};

/// Takes frames out. One thread.
class RingConsumer {
 public:
    struct Record {
        VnetHeader vnet;
        ConstByteSpan frame;  ///< shared with the peer: read each byte once
    };

    explicit RingConsumer(std::byte* memory);

    /// The next frame; valid until release().
    std::optional<Record> next();
    /// What was taken is done with; whether the producer must be woken.
    bool release();
    /// Asks to be woken when there is something. False: there is something already.
    bool sleep();
    /// The peer has written what cannot be; nothing more comes.
    bool broken() const { return broken_; }

 private:
    RingState& state_;
    std::byte* const data_;
    uint32_t consumed_ = 0;  // ours
    uint32_t released_ = 0;  // of that, what the producer knows
    bool broken_ = false;
};

}  // namespace ivmm::net
