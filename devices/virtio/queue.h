#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/ring.h"
#include "memory/guest_memory.h"

namespace ivmm::virtio {

/// What the driver has set up for a queue, and how far the device has come. Untrusted: it comes
/// from the guest or from a file.
struct QueueState {
    static constexpr uint32_t kVersion = 1;
    uint16_t size = 0;
    bool ready = false;
    Gpa descriptors = 0;
    Gpa available = 0;
    Gpa used = 0;
    uint16_t next_available = 0;
    uint16_t next_used = 0;

    bool operator==(const QueueState&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.size, self.ready, self.descriptors, self.available, self.used,
              self.next_available, self.next_used);
    }
};

/// The device's side of a split virtqueue (virtio 1.2, 2.7), with indirect descriptors and
/// EVENT_IDX. Lives on the device loop.
///
/// Whatever the guest writes there, the worst that follows is that the queue is broken(): it then
/// gives out and takes nothing more until it is reset, and the transport tells the guest
/// (NEEDS_RESET).
class Queue {
 public:
    /// Called once when the queue breaks, from within the member that found the fault.
    using BrokenCallback = std::function<void(std::string_view reason)>;

    /// `memory` must outlive the queue. `max_size`: a power of two, at most 32768.
    Queue(GuestMemory& memory, uint16_t max_size, BrokenCallback on_broken = {})
        : memory_(memory), max_size_(max_size), on_broken_(std::move(on_broken)) {}

    uint16_t max_size() const { return max_size_; }
    QueueState& state() { return state_; }
    const QueueState& state() const { return state_; }
    /// The queue as it was before the driver touched it.
    void reset();

    /// Checks what the driver has set (size, addresses) and starts the queue from its beginning,
    /// with the negotiated features (INDIRECT_DESC and EVENT_IDX matter here). False if the size
    /// or an address is impossible.
    [[nodiscard]] bool enable(uint64_t features);
    bool ready() const { return state_.ready && !broken(); }
    bool broken() const { return !fault_.empty(); }
    /// Why it is broken: one static text, or empty.
    std::string_view fault() const { return fault_; }
    /// Ends the use of the queue until reset(); later calls change nothing.
    void break_queue(std::string_view reason);

    /// The next request, or nothing if there is none (or the queue is not ready()).
    std::optional<Chain> pop();
    /// Gives the request popped last back as if it had not been popped.
    void undo_pop();
    /// Hands a request back to the driver; `written`: bytes written to the front of its writable
    /// part. The driver sees it after publish(). Nothing happens if the queue is not ready().
    void push(const Chain& chain, uint32_t written);
    /// Makes everything pushed visible at once. True if the driver wants an interrupt for it.
    [[nodiscard]] bool publish();

    /// Asks for a notification at the next request. True if one has arrived already, so that the
    /// device must look again.
    [[nodiscard]] bool enable_notifications();
    void disable_notifications();

    /// Whether restore() would take the state.
    Result<void> check(const QueueState& state) const;
    /// Takes over a state that check() has found good. `features` as in enable().
    void restore(const QueueState& state, uint64_t features);

 private:
    bool read_chain(uint16_t head, std::vector<Segment>& segments, size_t& readable);
    bool read_table(Gpa table, uint64_t length, std::vector<Descriptor>& out);

    GuestMemory& memory_;
    uint16_t max_size_;
    BrokenCallback on_broken_;
    QueueState state_;
    bool indirect_ = false;
    bool event_idx_ = false;
    uint16_t published_used_ = 0;  // what the driver sees in used.idx
    std::string_view fault_;
};

}  // namespace ivmm::virtio
