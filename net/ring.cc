#include "net/ring.h"

#include "base/checked.h"

namespace ivmm::net {
namespace {

/// In front of every frame. Frames do not wrap around: kSkip leads to the start of the ring.
struct RecordHeader {
    uint32_t length = 0;  // with kTakenBack: there is no frame any more, only its room
    VnetHeader vnet;
};
static_assert(sizeof(RecordHeader) == 16);

constexpr uint32_t kSkip = UINT32_MAX;
constexpr uint32_t kTakenBack = uint32_t{1} << 31;
constexpr uint32_t kSize = kRingBytes;
constexpr uint32_t kAlignment = sizeof(RecordHeader);

constexpr uint32_t record_size(size_t length) {
    return static_cast<uint32_t>(align_up<size_t>(sizeof(RecordHeader) + length, kAlignment));
}

constexpr uint32_t offset_of(uint32_t position) {
    return position % kSize;
}

/// What lies at a position of the ring, of which the other side may have written every byte.
struct RecordPlace {
    RecordHeader header;
    uint32_t length = 0;  // of the frame
    uint32_t room = 0;    // to the next place

    bool has_frame() const { return header.length == length; }
};

/// `there`: bytes from the position on that were produced. Nullopt: it cannot be true.
std::optional<RecordPlace> place_at(const std::byte* data, uint32_t position, uint32_t there) {
    if (there > kSize || there < sizeof(RecordHeader)) {
        return std::nullopt;
    }
    RecordPlace place;
    std::memcpy(&place.header, data + offset_of(position), sizeof(place.header));
    // The copy is what counts from here on, whatever the peer writes now.
    const uint32_t to_end = kSize - offset_of(position);
    if (place.header.length == kSkip) {
        place.room = to_end;
    } else {
        place.length = place.header.length & ~kTakenBack;
        if (place.length > kMaxFrameLength) {
            return std::nullopt;
        }
        place.room = record_size(place.length);
    }
    return place.room <= to_end && place.room <= there ? std::optional(place) : std::nullopt;
}

}  // namespace

RingProducer::RingProducer(std::byte* memory)
    : state_(*reinterpret_cast<RingState*>(memory)), data_(memory + kRingStateBytes) {}

std::optional<uint32_t> RingProducer::room() {
    const uint32_t used = produced_ - state_.consumed.load(std::memory_order_seq_cst);
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

void RingProducer::take_back(
    const std::function<bool(const VnetHeader&, ConstByteSpan)>& unwanted) {
    const uint32_t published = state_.produced.load(std::memory_order_relaxed);
    uint32_t at = state_.consumed.load(std::memory_order_acquire);
    // The consumer's word; a place of ours is aligned.
    while (at != published && at % kAlignment == 0) {
        auto place = place_at(data_, at, published - at);
        if (!place) {
            return;
        }
        std::byte* const record = data_ + offset_of(at);
        if (place->has_frame() &&
            unwanted(place->header.vnet,
                     ConstByteSpan(record + sizeof(RecordHeader), place->length))) {
            place->header.length |= kTakenBack;
            std::memcpy(record, &place->header, sizeof(place->header));
        }
        at += place->room;
    }
}

bool RingProducer::sleep() {
    // Not before half of it is free: else each frame would be waited for on its own.
    const auto enough = [this] {
        const auto free = room();
        return free && *free >= kSize / 2;
    };
    state_.producer_sleeps.store(1, std::memory_order_seq_cst);
    return !enough();
}

RingConsumer::RingConsumer(std::byte* memory)
    : state_(*reinterpret_cast<RingState*>(memory)), data_(memory + kRingStateBytes) {}

std::optional<RingConsumer::Record> RingConsumer::next() {
    // Read once, so that what was taken back can be skipped in bounded time.
    const uint32_t produced = state_.produced.load(std::memory_order_acquire);
    while (!broken_ && produced != consumed_) {
        const auto place = place_at(data_, consumed_, produced - consumed_);
        if (!place) {
            broken_ = true;
            break;
        }
        const std::byte* const record = data_ + offset_of(consumed_);
        consumed_ += place->room;
        if (place->has_frame()) {
            return Record{place->header.vnet,
                          ConstByteSpan(record + sizeof(RecordHeader), place->length)};
        }
    }
    return std::nullopt;
}

bool RingConsumer::release() {
    if (released_ == consumed_) {
        return false;
    }
    released_ = consumed_;
    state_.consumed.store(consumed_, std::memory_order_seq_cst);
    if (state_.producer_sleeps.load(std::memory_order_seq_cst) == 0) {
        return false;
    }
    const uint32_t used = state_.produced.load(std::memory_order_relaxed) - consumed_;
    return used <= kSize / 2 && state_.producer_sleeps.exchange(0, std::memory_order_seq_cst) != 0;
}

bool RingConsumer::sleep() {
    state_.consumer_sleeps.store(1, std::memory_order_seq_cst);
    if (state_.produced.load(std::memory_order_seq_cst) != consumed_) {
        state_.consumer_sleeps.store(0, std::memory_order_relaxed);
        return false;
    }
    return true;
}

}  // namespace ivmm::net
