#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "net/flow_key.h"

namespace ivmm::net {

/// Of the machines that share an address: 0 is the primary, then its clones.
using Member = uint8_t;
inline constexpr Member kPrimary = 0;
inline constexpr Member kMaxMembers = 240;
/// Not one of them: the far end.
inline constexpr Member kRemote = 255;

/// What becomes of a clone's frames of a flow.
enum class Verdict : uint8_t { kForward, kDrop, kLimit, kReflect, kRedirect, kAnswer };

/// What is known of a flow; 96 bytes, and 16 of the index.
struct Flow {
    FlowKey key;
    uint32_t serial = 0;      ///< flows are numbered as they are seen first
    uint32_t generation = 0;  ///< of the rules by which the owner was found
    Member owner = kPrimary;
    Member opener = kRemote;
    Verdict verdict = Verdict::kForward;  ///< of what a clone has opened
    uint8_t target = 0;                   ///< of the verdict: a member or a port
    uint32_t last_seen_s = 0;
    uint32_t newer = 0;  // in its list
    uint32_t older = 0;
    uint32_t frames_in = 0;
    uint32_t frames_out = 0;
    uint8_t list = 0;
    uint8_t flags = 0;
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;

    static constexpr uint8_t kSeenIn = 1;
    static constexpr uint8_t kSeenOut = 2;
    static constexpr uint8_t kClosed = 4;
    static constexpr uint8_t kFinIn = 8;
    static constexpr uint8_t kFinOut = 16;

    bool is_closed() const { return (flags & kClosed) != 0; }
};
static_assert(sizeof(Flow) == 96);

/// The flows of one guest and its clones, bounded: open addressing over an array of flows. When it
/// is full, the flows go that have been idle longest: first those that only one side has ever said
/// something in, then the others; pinned ones never. One thread.
class FlowTable {
 public:
    /// Asked of a flow that is to go for lack of room: true keeps it and pins it.
    using Keep = std::function<bool(Flow&)>;

    explicit FlowTable(uint32_t capacity, Keep keep = {});

    Flow* find(const FlowKey& key);
    /// Adds a flow that is not there. Null: all are pinned.
    Flow* add(const FlowKey& key, uint32_t now_s);
    /// Counts a frame and keeps the flow young.
    void touch(Flow& flow, Direction direction, size_t frame_size, uint8_t tcp_flags,
               uint32_t now_s);
    void remove(Flow& flow);
    void pin(Flow& flow);
    void unpin_all();

    /// Removes some of the flows that have been idle for too long.
    void expire(uint32_t now_s);

    uint32_t size() const { return size_; }
    uint32_t pinned() const { return lists_[kPinned].size; }
    uint64_t evicted() const { return evicted_; }
    /// The number that the next flow gets.
    uint32_t next_serial() const { return next_serial_; }
    /// What this takes at most.
    size_t memory_bytes() const;

    /// Calls for every flow, until it returns false.
    void for_each(const std::function<bool(const Flow&)>& visit) const;

 private:
    enum List : uint8_t { kHalfOpen, kOpen, kPinned, kLists, kFree };
    struct Slot {
        uint32_t hash = 0;
        uint32_t flow = 0;  ///< 0: none
    };
    struct Ends {
        uint32_t newest = 0;
        uint32_t oldest = 0;
        uint32_t size = 0;
    };

    uint32_t hash(const FlowKey& key) const;
    uint32_t place_of(const Flow& flow) const;
    uint32_t number(const Flow& flow) const { return static_cast<uint32_t>(&flow - flows_.get()); }
    void link(Flow& flow, List list);
    void unlink(Flow& flow);
    void move(Flow& flow, List list);
    bool make_room();

    std::array<uint8_t, 192> secret_{};  // so that nobody can choose flows that collide
    const uint32_t capacity_;
    const Keep keep_;
    uint32_t mask_ = 0;
    std::unique_ptr<Slot[]> slots_;  // NOLINT(*-avoid-c-arrays): of a size known late
    // Not touched before they are used; number 0 stands for "none".
    std::unique_ptr<Flow[], decltype(&::free)> flows_;  // NOLINT(*-avoid-c-arrays)
    uint32_t unused_ = 1;                               // this and what follows never held a flow
    std::vector<uint32_t> free_;
    std::array<Ends, kLists> lists_;
    uint32_t size_ = 0;
    uint32_t next_serial_ = 1;
    uint64_t evicted_ = 0;
};

}  // namespace ivmm::net
