#include "net/flow_table.h"

#include <sys/random.h>
#include <xxhash.h>

#include <bit>
#include <cstdlib>
#include <new>

namespace ivmm::net {
namespace {

constexpr uint32_t kHalfOpenIdle = 60;  // seconds
constexpr uint32_t kOpenIdle = 2 * 3600;
constexpr int kKeepTries = 64;
constexpr int kExpireAtOnce = 1024;

}  // namespace

FlowTable::FlowTable(uint32_t capacity, Keep keep)
    : capacity_(capacity),
      keep_(std::move(keep)),
      mask_(std::bit_ceil(capacity + capacity / 2) - 1),
      // calloc() leaves large memory untouched.
      slots_(new Slot[mask_ + size_t{1}]()),
      flows_(static_cast<Flow*>(std::calloc(capacity + size_t{1}, sizeof(Flow))), &::free) {
    if (flows_ == nullptr) {
        throw std::bad_alloc();
    }
    size_t filled = 0;
    while (filled < secret_.size()) {
        const ssize_t n = ::getrandom(secret_.data() + filled, secret_.size() - filled, 0);
        filled += n > 0 ? static_cast<size_t>(n) : 0;
    }
}

size_t FlowTable::memory_bytes() const {
    return (mask_ + size_t{1}) * sizeof(Slot) + (capacity_ + size_t{1}) * sizeof(Flow) +
           capacity_ * sizeof(uint32_t);
}

uint32_t FlowTable::hash(const FlowKey& key) const {
    return static_cast<uint32_t>(
        XXH3_64bits_withSecret(&key, sizeof(key), secret_.data(), secret_.size()));
}

Flow* FlowTable::find(const FlowKey& key) {
    const uint32_t wanted = hash(key);
    for (uint32_t place = wanted & mask_; slots_[place].flow != 0; place = (place + 1) & mask_) {
        if (slots_[place].hash == wanted && flows_[slots_[place].flow].key == key) {
            return &flows_[slots_[place].flow];
        }
    }
    return nullptr;
}

Flow* FlowTable::add(const FlowKey& key, uint32_t now_s) {
    if (size_ == capacity_ && !make_room()) {
        return nullptr;
    }
    uint32_t index = 0;
    if (free_.empty()) {
        index = unused_++;
    } else {
        index = free_.back();
        free_.pop_back();
    }
    Flow& flow = *new (&flows_[index]) Flow;
    flow.key = key;
    flow.serial = next_serial_++;
    flow.last_seen_s = now_s;
    link(flow, kHalfOpen);
    const uint32_t own = hash(key);
    uint32_t place = own & mask_;
    while (slots_[place].flow != 0) {
        place = (place + 1) & mask_;
    }
    slots_[place] = {own, index};
    ++size_;
    return &flow;
}

void FlowTable::touch(Flow& flow, Direction direction, size_t frame_size, uint8_t tcp_flags,
                      uint32_t now_s) {
    if (direction == Direction::kIn) {
        ++flow.frames_in;
        flow.bytes_in += frame_size;
        flow.flags |= Flow::kSeenIn;
    } else {
        ++flow.frames_out;
        flow.bytes_out += frame_size;
        flow.flags |= Flow::kSeenOut;
    }
    if ((tcp_flags & kTcpFin) != 0) {
        flow.flags |= direction == Direction::kIn ? Flow::kFinIn : Flow::kFinOut;
    }
    constexpr uint8_t kFins = Flow::kFinIn | Flow::kFinOut;
    if ((tcp_flags & kTcpRst) != 0 || (flow.flags & kFins) == kFins) {
        flow.flags |= Flow::kClosed;
    }
    if (flow.list == kPinned) {
        flow.last_seen_s = now_s;
        return;
    }
    constexpr uint8_t kBoth = Flow::kSeenIn | Flow::kSeenOut;
    const List list = (flow.flags & (kBoth | Flow::kClosed)) == kBoth ? kOpen : kHalfOpen;
    if (flow.list != list || flow.last_seen_s != now_s) {
        flow.last_seen_s = now_s;
        move(flow, list);
    }
}

uint32_t FlowTable::place_of(const Flow& flow) const {
    uint32_t place = hash(flow.key) & mask_;
    const uint32_t index = number(flow);
    while (slots_[place].flow != index) {
        place = (place + 1) & mask_;
    }
    return place;
}

void FlowTable::remove(Flow& flow) {
    // What follows the hole moves up, unless it would get in front of where its search begins.
    uint32_t hole = place_of(flow);
    for (uint32_t place = (hole + 1) & mask_; slots_[place].flow != 0;
         place = (place + 1) & mask_) {
        const uint32_t distance_here = (place - slots_[place].hash) & mask_;
        const uint32_t distance_hole = (place - hole) & mask_;
        if (distance_here >= distance_hole) {
            slots_[hole] = slots_[place];
            hole = place;
        }
    }
    slots_[hole] = {};
    unlink(flow);
    flow.list = kFree;
    free_.push_back(number(flow));
    --size_;
}

void FlowTable::pin(Flow& flow) {
    move(flow, kPinned);
}

void FlowTable::unpin_all() {
    while (lists_[kPinned].oldest != 0) {
        move(flows_[lists_[kPinned].oldest], kOpen);
    }
}

void FlowTable::link(Flow& flow, List list) {
    Ends& ends = lists_[list];
    flow.list = list;
    flow.newer = 0;
    flow.older = ends.newest;
    (ends.newest == 0 ? ends.oldest : flows_[ends.newest].newer) = number(flow);
    ends.newest = number(flow);
    ++ends.size;
}

void FlowTable::unlink(Flow& flow) {
    Ends& ends = lists_[flow.list];
    (flow.newer == 0 ? ends.newest : flows_[flow.newer].older) = flow.older;
    (flow.older == 0 ? ends.oldest : flows_[flow.older].newer) = flow.newer;
    --ends.size;
}

void FlowTable::move(Flow& flow, List list) {
    unlink(flow);
    link(flow, list);
}

bool FlowTable::make_room() {
    for (int i = 0; i < kKeepTries; ++i) {
        const uint32_t oldest =
            lists_[kHalfOpen].oldest != 0 ? lists_[kHalfOpen].oldest : lists_[kOpen].oldest;
        if (oldest == 0) {
            return false;
        }
        if (keep_ && keep_(flows_[oldest])) {
            pin(flows_[oldest]);
            continue;
        }
        remove(flows_[oldest]);
        ++evicted_;
        return true;
    }
    return false;
}

void FlowTable::expire(uint32_t now_s) {
    const auto sweep = [&](List list, uint32_t idle) {
        for (int i = 0; i < kExpireAtOnce && lists_[list].oldest != 0; ++i) {
            Flow& flow = flows_[lists_[list].oldest];
            if (now_s - flow.last_seen_s < idle) {
                return;
            }
            if (keep_ && keep_(flow)) {
                pin(flow);
            } else {
                remove(flow);
            }
        }
    };
    sweep(kHalfOpen, kHalfOpenIdle);
    sweep(kOpen, kOpenIdle);
}

void FlowTable::for_each(const std::function<bool(const Flow&)>& visit) const {
    for (uint32_t i = 1; i < unused_; ++i) {
        if (flows_[i].list != kFree && !visit(flows_[i])) {
            return;
        }
    }
}

}  // namespace ivmm::net
