#include "net/ring.h"

#include "base/checked.h"

namespace ivmm::net {
namespace {

/// In front of every frame. Frames do not wrap around: kSkip leads to the start of the ring.
struct RecordHeader {
    uint32_t length = 0;
    VnetHeader vnet;
};
static_assert(sizeof(RecordHeader) == 16);

constexpr uint32_t kSkip = UINT32_MAX;
constexpr uint32_t kSize = kRingBytes;
constexpr uint32_t kAlignment = sizeof(RecordHeader);

constexpr uint32_t record_size(size_t length) {
    return static_cast<uint32_t>(align_up<size_t>(sizeof(RecordHeader) + length, kAlignment));
}

constexpr uint32_t offset_of(uint32_t position) {
    return position % kSize;
}

}  // namespace

RingProducer::RingProducer(std::byte* memory)
    : state_(*reinterpret_cast<RingState*>(memory)), data_(memory + kRingStateBytes) {}

std::optional<uint32_t> RingProducer::room() {
    const uint32_t used = produced_ - state_.consumed.load(std::memory_order_acquire);
    if (used > kSize) {
        broken_ = true;
        return std::nullopt;
    }
    return kSize - used;
}

std::optional<ByteSpan> RingProducer::reserve(size_t length) {
    const auto free = room();
    if (broken_ || length > kMaxFrameLength || !free) {
        return std::nullopt;
    }
    const uint32_t need = record_size(length);
    const uint32_t to_end = kSize - offset_of(produced_);
    if (need > to_end) {
        if (to_end + need > *free) {
            return std::nullopt;
        }
        const RecordHeader skip{kSkip, {}};
        std::memcpy(data_ + offset_of(produced_), &skip, sizeof(skip));
        produced_ += to_end;
    } else if (need > *free) {
        return std::nullopt;
    }
    reserved_ = static_cast<uint32_t>(length);
    return ByteSpan(data_ + offset_of(produced_) + sizeof(RecordHeader), length);
}

void RingProducer::push(const VnetHeader& vnet) {
    const RecordHeader header{reserved_, vnet};
    std::memcpy(data_ + offset_of(produced_), &header, sizeof(header));
    produced_ += record_size(reserved_);
}

bool RingProducer::publish() {
    state_.produced.store(produced_, std::memory_order_seq_cst);
    return state_.consumer_sleeps.load(std::memory_order_seq_cst) != 0 &&
           state_.consumer_sleeps.exchange(0, std::memory_order_seq_cst) != 0;
}

bool RingProducer::sleep() {
    // Not before half of it is free: else each frame would be waited for on its own.
    const auto enough = [this] {
        const auto free = room();
        return free && *free >= kSize / 2;
    };
    state_.producer_sleeps.store(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return !enough();
}

RingConsumer::RingConsumer(std::byte* memory)
    : state_(*reinterpret_cast<RingState*>(memory)), data_(memory + kRingStateBytes) {}

std::optional<RingConsumer::Record> RingConsumer::next() {
    // Twice at most: a skip is never followed by another.
    for (int i = 0; i < 2 && !broken_; ++i) {
        const uint32_t there = state_.produced.load(std::memory_order_acquire) - consumed_;
        if (there == 0) {
            return std::nullopt;
        }
        if (there > kSize || there < sizeof(RecordHeader)) {
            break;
        }
        RecordHeader header;
        std::memcpy(&header, data_ + offset_of(consumed_), sizeof(header));
        // The copy is what counts from here on, whatever the peer writes now.
        const uint32_t to_end = kSize - offset_of(consumed_);
        if (header.length == kSkip) {
            if (to_end > there) {
                break;
            }
            consumed_ += to_end;
            continue;
        }
        if (header.length > kMaxFrameLength || record_size(header.length) > to_end ||
            record_size(header.length) > there) {
            break;
        }
        const ConstByteSpan frame(data_ + offset_of(consumed_) + sizeof(header), header.length);
        consumed_ += record_size(header.length);
        return Record{header.vnet, frame};
    }
    broken_ = true;
    return std::nullopt;
}

bool RingConsumer::release() {
    state_.consumed.store(consumed_, std::memory_order_seq_cst);
    if (state_.producer_sleeps.load(std::memory_order_seq_cst) == 0) {
        return false;
    }
    const uint32_t used = state_.produced.load(std::memory_order_relaxed) - consumed_;
    return used <= kSize / 2 && state_.producer_sleeps.exchange(0, std::memory_order_seq_cst) != 0;
}

bool RingConsumer::sleep() {
    state_.consumer_sleeps.store(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (state_.produced.load(std::memory_order_seq_cst) != consumed_) {
        state_.consumer_sleeps.store(0, std::memory_order_relaxed);
        return false;
    }
    return true;
}

}  // namespace ivmm::net
