#include "devices/virtio/queue.h"

#include <atomic>
#include <bit>
#include <limits>
#include <tuple>

namespace ivmm::virtio {

namespace {

/// Orders every earlier store before every later load: each side stores its own index and then
/// looks at the other's, and at least one of them must see what the other has stored. A locked
/// instruction instead of a fence, because ThreadSanitizer does not understand fences.
void full_barrier() {
    thread_local std::atomic<uint32_t> word = 0;
    word.fetch_add(1, std::memory_order_seq_cst);
}

}  // namespace

void Queue::reset() {
    state_ = {};
    indirect_ = false;
    event_idx_ = false;
    published_used_ = 0;
    fault_ = {};
}

Result<void> Queue::check(const QueueState& state) const {
    if (!state.ready) {
        if (state.size > max_size_ || state.next_available != 0 || state.next_used != 0) {
            return fail("a queue that is not ready has moved, or its size {} is above {}",
                        state.size, max_size_);
        }
        return {};
    }
    if (!std::has_single_bit(state.size) || state.size > max_size_) {
        return fail("queue size {} is no power of two up to {}", state.size, max_size_);
    }
    const uint64_t size = state.size;
    struct Area {
        const char* name;
        Gpa start;
        uint64_t length;
        uint64_t alignment;
    };
    for (const Area& area : {Area{"descriptor table", state.descriptors, 16 * size, 16},
                             Area{"available ring", state.available, 6 + 2 * size, 2},
                             Area{"used ring", state.used, 6 + 8 * size, 4}}) {
        if (area.start % area.alignment != 0 || !memory_.contains(area.start, area.length)) {
            return fail("the queue's {} at {:#x} is not in RAM or not aligned", area.name,
                        area.start);
        }
    }
    if (static_cast<uint16_t>(state.next_available - state.next_used) > state.size) {
        return fail("the queue has more than {} requests in flight", state.size);
    }
    return {};
}

void Queue::restore(const QueueState& state, uint64_t features) {
    state_ = state;
    indirect_ = (features & kFeatureIndirect) != 0;
    event_idx_ = (features & kFeatureEventIdx) != 0;
    published_used_ = state.next_used;
    fault_ = {};
}

bool Queue::enable(uint64_t features) {
    QueueState started = state_;
    started.ready = true;
    started.next_available = 0;
    started.next_used = 0;
    if (!check(started)) {
        return false;
    }
    restore(started, features);
    return true;
}

void Queue::break_queue(std::string_view reason) {
    if (broken()) {
        return;
    }
    fault_ = reason;
    if (on_broken_) {
        on_broken_(reason);
    }
}

std::optional<Chain> Queue::pop() {
    if (!ready()) {
        return std::nullopt;
    }
    const auto index = memory_.load_acquire(state_.available + kRingIndex);
    if (!index || *index == state_.next_available) {
        return std::nullopt;
    }
    if (static_cast<uint16_t>(*index - state_.next_available) > state_.size) {
        break_queue("avail.idx is ahead by more than the queue's size");
        return std::nullopt;
    }
    const uint64_t slot = state_.next_available % state_.size;
    const auto head = memory_.read<uint16_t>(state_.available + kRingEntries + 2 * slot);
    std::vector<Segment> segments;
    size_t readable = 0;
    if (!head || !read_chain(*head, segments, readable)) {
        return std::nullopt;
    }
    ++state_.next_available;
    return Chain(*head, std::move(segments), readable);
}

void Queue::undo_pop() {
    --state_.next_available;
}

bool Queue::read_table(Gpa table, uint64_t length, std::vector<Descriptor>& out) {
    if (length == 0 || length % sizeof(Descriptor) != 0 ||
        length / sizeof(Descriptor) > state_.size) {
        break_queue("an indirect table has an impossible length");
        return false;
    }
    out.resize(length / sizeof(Descriptor));
    if (!memory_.read(table, std::as_writable_bytes(std::span(out)))) {
        break_queue("an indirect table is not in RAM");
        return false;
    }
    return true;
}

bool Queue::read_chain(uint16_t head, std::vector<Segment>& segments, size_t& readable) {
    std::vector<Descriptor> table;  // the indirect one, while we are in it
    uint64_t total = 0;
    bool writable = false;
    uint16_t index = head;
    // A chain has no more descriptors than the queue (2.7.5.3.1): this also ends loops. One that
    // only refers to a table does not count.
    for (uint32_t count = 0; count < state_.size; ++count) {
        Descriptor descriptor{};
        if (table.empty()) {
            if (index >= state_.size) {
                break_queue("a descriptor's index is beyond the queue");
                return false;
            }
            const auto entry = memory_.read<Descriptor>(state_.descriptors + 16 * uint64_t{index});
            if (!entry) {
                break_queue("the descriptor table is not in RAM");
                return false;
            }
            descriptor = *entry;
            if ((descriptor.flags & kDescriptorIndirect) != 0) {
                if (!indirect_ || (descriptor.flags & kDescriptorNext) != 0) {
                    break_queue("an indirect descriptor that was not negotiated or has a next one");
                    return false;
                }
                if (!read_table(descriptor.address, descriptor.length, table)) {
                    return false;
                }
                descriptor = table.front();
            }
        } else if (index < table.size()) {
            descriptor = table[index];
        } else {
            break_queue("a descriptor's index is beyond its indirect table");
            return false;
        }
        if (!table.empty() && (descriptor.flags & kDescriptorIndirect) != 0) {
            break_queue("an indirect table in an indirect table");
            return false;
        }

        if ((descriptor.flags & kDescriptorWrite) != 0) {
            writable = true;
        } else if (writable) {
            break_queue("a readable descriptor after a writable one");
            return false;
        }
        total += descriptor.length;
        if (total > std::numeric_limits<uint32_t>::max()) {
            break_queue("a chain of 4 GiB or more");
            return false;
        }
        if (descriptor.length > 0) {
            if (!memory_.contains(descriptor.address, descriptor.length)) {
                break_queue("a descriptor's memory is not RAM");
                return false;
            }
            segments.push_back({descriptor.address, descriptor.length});
            readable += writable ? 0 : 1;
        }
        if ((descriptor.flags & kDescriptorNext) == 0) {
            return true;
        }
        index = descriptor.next;
    }
    break_queue("a chain is longer than the queue");
    return false;
}

void Queue::push(const Chain& chain, uint32_t written) {
    if (!ready()) {
        return;
    }
    const uint64_t slot = state_.next_used % state_.size;
    if (!memory_.write(state_.used + kRingEntries + 8 * slot, UsedElement{chain.head(), written})) {
        break_queue("the used ring is not in RAM");
        return;
    }
    ++state_.next_used;
}

bool Queue::publish() {
    if (!ready() || state_.next_used == published_used_) {
        return false;
    }
    const uint16_t before = published_used_;
    published_used_ = state_.next_used;
    if (!memory_.store_release(state_.used + kRingIndex, published_used_)) {
        break_queue("the used ring is not in RAM");
        return false;
    }
    full_barrier();
    if (!event_idx_) {
        const auto flags = memory_.load_acquire(state_.available + kRingFlags);
        return !flags || (*flags & kAvailableNoInterrupt) == 0;
    }
    const auto event = memory_.load_acquire(state_.available + used_event_offset(state_.size));
    return !event || passes_event(*event, published_used_, before);
}

bool Queue::enable_notifications() {
    if (!ready()) {
        return false;
    }
    const bool stored = event_idx_
                            ? memory_.store_release(state_.used + avail_event_offset(state_.size),
                                                    state_.next_available)
                            : memory_.store_release(state_.used + kRingFlags, 0);
    if (!stored) {
        break_queue("the used ring is not in RAM");
        return false;
    }
    full_barrier();
    const auto index = memory_.load_acquire(state_.available + kRingIndex);
    return index && *index != state_.next_available;
}

void Queue::disable_notifications() {
    // With EVENT_IDX the driver stays silent by itself once it has passed avail_event.
    if (ready() && !event_idx_) {
        std::ignore = memory_.store_release(state_.used + kRingFlags, kUsedNoNotify);
    }
}

}  // namespace ivmm::virtio
