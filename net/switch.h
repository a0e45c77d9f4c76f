#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "net/dhcp_lease.h"
#include "net/diversions.h"
#include "net/flow_table.h"
#include "net/fragments.h"
#include "net/frame_queue.h"
#include "net/mac_table.h"
#include "net/neighbours.h"
#include "net/policy.h"
#include "net/port.h"

namespace ivmm::net {

/// Why a frame went no further.
enum class Drop : uint8_t {
    kMalformed,   ///< too short, too long, or a virtio-net header that lies
    kNoPort,      ///< nobody to send it to
    kNoRoom,      ///< the receiver does not keep up, or is not there
    kCut,         ///< the primary's, of a flow that is a clone's now
    kContained,   ///< a clone's, and the policy says no
    kSpoofed,     ///< with an address that is not the sender's
    kSuppressed,  ///< a clone's that would tell the network of it (gratuitous ARP and the like)
    kStale,       ///< a clone's, of a flow that is somebody else's
    kHoldFull,    ///< the hold queue's bounds
    kFragment,    ///< a fragment whose first one did not come
    kCount,
};
const char* to_string(Drop drop);

struct PortCounters {
    uint64_t frames_in = 0;  ///< into the switch
    uint64_t bytes_in = 0;
    uint64_t frames_out = 0;
    uint64_t bytes_out = 0;
    std::array<uint64_t, static_cast<size_t>(Drop::kCount)> drops{};
};

/// Where frames of a clone are recorded.
enum class Place : uint8_t { kUplink, kGuest, kClone, kDropped };

/// Takes what is to be kept of a clone's traffic. Must not wait.
class Recorder {
 public:
    virtual ~Recorder() = default;
    virtual void record(Place place, Direction direction, const Frame& frame,
                        std::string_view comment) = 0;
};

struct Event {
    const char* name = "";  ///< "divert", "contained", …
    std::string port;
    std::string detail;
    uint64_t suppressed = 0;  ///< so many of its kind were not told before
};

enum class Role : uint8_t { kUplink, kGuest, kClone, kSink, kMirror };
const char* to_string(Role role);

/// An Ethernet switch that knows which flows belong to whom of a guest and its clones, which have
/// the same addresses (docs/switch.md). In memory alone; one thread.
class Switch {
 public:
    static constexpr size_t kMaxPorts = 250;

    struct Options {
        uint32_t flows = 65536;  ///< of each guest with its clones
        DiversionLimits diversions;
    };
    using EventSink = std::function<void(const Event&)>;

    struct HoldLimits {
        FrameQueue::Limits queue;
        uint32_t most_ms = 2000;  ///< then it is rolled back
    };
    using HoldId = uint32_t;

    struct Committed {
        size_t unread_frames = 0;  ///< that had been sent to the guest, which had not taken them
        size_t held_frames = 0;
        size_t held_bytes = 0;
        uint64_t refused = 0;  ///< frames for which there was no room
        uint64_t hold_ns = 0;
    };

    Switch(Options options, EventSink events);
    ~Switch();
    Switch(const Switch&) = delete;
    Switch& operator=(const Switch&) = delete;

    // Ports. All errors are kUsage: the name is taken, or the switch is full.
    Result<PortId> add_uplink(const std::string& name);
    Result<PortId> add_mirror(const std::string& name);
    /// Where redirected flows go: a machine with this address.
    Result<PortId> add_sink(const std::string& name, const MacAddress& mac);
    Result<PortId> add_guest(const std::string& name, const MacAddress& mac);
    /// A twin of a guest. Nothing is sent to it but what is diverted to it; that waits, within
    /// bounds, until something is attached.
    Result<PortId> add_clone(const std::string& name, PortId guest, Policy policy);
    /// With a guest its clones go as well; what was diverted to a clone is dropped from then on.
    void remove_port(PortId id);
    std::optional<PortId> find_port(std::string_view name) const;

    void attach(PortId id, std::unique_ptr<Port> endpoint);
    void detach(PortId id);
    bool is_attached(PortId id) const;
    /// Of a clone; null: none.
    void set_recorder(PortId clone, std::unique_ptr<Recorder> recorder);

    /// Takes in what has come at a port, at most a batch; how many frames.
    size_t poll(PortId id, uint64_t now_ns);
    /// Ageing, times that are over. A few times a second.
    void tick(uint64_t now_ns);

    // Diversion. `guest` and `clone` must be such ports.
    /// Errors: see Diversions. False: it was diverted already. `ttl_s` 0: for ever.
    Result<bool> divert(PortId clone, const Selector& selector, uint32_t ttl_s, bool dry_run);
    Result<bool> undivert(PortId guest, const Selector& selector);
    /// From here on, frames that come for what is selected wait.
    Result<HoldId> begin_hold(PortId guest, const Selector& selector, HoldLimits limits);
    /// While the guest stands still. What it has sent before is sent on; what it has not received
    /// yet goes to the clone, then what is held, then all that comes from now on. Error: the hold
    /// is over.
    Result<Committed> commit_hold(HoldId hold, PortId clone, uint32_t ttl_s);
    /// What is held goes to the guest. False: the hold is over.
    bool roll_back_hold(HoldId hold);

    struct PortInfo {
        PortId id = 0;
        std::string name;
        Role role = Role::kUplink;
        MacAddress mac{};
        std::string guest;  ///< of a clone
        std::string policy;
        bool attached = false;
        size_t waiting = 0;  ///< frames
        PortCounters counters;
    };
    struct DiversionInfo {
        std::string guest;
        std::string clone;  ///< empty: held
        Selector selector;
        uint32_t since_s = 0;
        uint32_t left_s = 0;  ///< 0: for ever
    };
    struct FlowInfo {
        Flow flow;
        std::string owner;
        std::string opener;  ///< empty: the far end
    };
    struct TableInfo {
        std::string guest;
        uint32_t flows = 0;
        uint32_t pinned = 0;
        uint64_t evicted = 0;
        size_t memory_bytes = 0;
        uint32_t newest = 0;  ///< serial of the flow that was seen first last
    };
    struct CloneFlows {
        std::string clone;
        std::string guest;
        size_t flows = 0;              ///< that the clone owns
        std::vector<FlowInfo> newest;  ///< of them, those that were seen first last
    };
    std::vector<PortInfo> ports() const;
    std::vector<DiversionInfo> diversions() const;
    std::vector<TableInfo> tables() const;
    /// At most `most` flows of a guest for which `wanted` is true.
    std::vector<FlowInfo> flows(PortId guest, size_t most,
                                const std::function<bool(const Flow&)>& wanted) const;
    /// Of each clone; `most`: of `newest`. Looks at every flow of guests that have clones.
    std::vector<CloneFlows> clone_flows(size_t most) const;
    uint32_t now_s() const { return static_cast<uint32_t>(now_ns_ / 1'000'000'000U) + 1; }

 private:
    struct Slot;
    struct Twins;
    struct Hold;
    /// Owners from here on are holds.
    static constexpr Member kFirstHold = kMaxMembers;
    static constexpr Member kMaxHolds = 8;

    Result<Slot*> add_port(const std::string& name, Role role);
    Slot* slot(PortId id) const;
    std::string name_of(const Twins& twins, Member member) const;

    void handle(Slot& from, Frame& frame);
    void from_guest(Slot& from, Frame& frame, const Headers& headers);
    void from_clone(Slot& from, Frame& frame, const Headers& headers);
    void from_sink(Slot& from, Frame& frame, const Headers& headers);
    void forward(Slot& from, Frame& frame, const Headers& headers);
    void flood(Slot& from, Frame& frame, const Headers& headers);

    // To a guest and its clones:
    void deliver_in(Twins& twins, Frame& frame, const Headers& headers);
    std::optional<Member> owner_in(Twins& twins, const Frame& frame, const Headers& headers);
    void send_to_owner(Twins& twins, Member owner, Frame& frame, const Headers& headers);
    Flow* track(Twins& twins, const FlowKey& key, Direction direction, Member opener,
                size_t frame_size, uint8_t tcp_flags);
    Member owner_of(Twins& twins, Flow& flow);
    /// The same, and remembers nothing.
    static Member known_owner_of(const Twins& twins, const Flow& flow);
    FlowInfo info_of(const Twins& twins, const Flow& flow, Member owner) const;
    /// Who owns what came in before.
    Member owner_of_earlier(Twins& twins, const Headers& headers);
    /// Gives a clone what was on its way to the guest.
    size_t pass_on_unread(Twins& twins, Member clone);
    /// Whether the primary may send this.
    bool may_send(Twins& twins, const Frame& frame, const Headers& headers);
    void learn_local(Twins& twins, const Headers& headers);

    // Out of a clone:
    void answer_clone(Slot& from, const std::optional<std::vector<std::byte>>& answer,
                      const Frame& frame, Drop otherwise, const char* why);
    void answer_service(Slot& from, const Frame& frame, const Headers& headers);
    void carry_out(Slot& from, Flow& flow, Frame& frame, const Headers& headers);
    Flow* open_from_clone(Slot& from, const FlowKey& key, const Frame& frame);
    void send_out(Slot& from, Frame& frame, const Headers& headers);
    void reflect(Slot& from, PortId target, Frame& frame, const Headers& headers);
    std::optional<PortId> target_of(const Slot& from, const Containment::Decision& decision) const;

    void deliver(Slot& to, const Frame& frame, const Headers& headers);
    void drain(Slot& to);
    void drop(Slot& from, Drop why, const Frame& frame, const char* detail = nullptr,
              const FlowKey* key = nullptr);
    void mirror(const Frame& frame, const Headers& headers);
    void flush();
    void tell(const char* name, const std::string& port, std::string detail);
    void end_hold(Hold& hold, Member owner);

    Options options_;
    EventSink events_;
    std::vector<std::unique_ptr<Slot>> slots_;  // by PortId; null: free
    std::vector<std::unique_ptr<Twins>> twins_;
    std::unordered_map<uint64_t, Twins*> guests_by_mac_;
    std::vector<std::unique_ptr<Hold>> holds_;
    std::vector<Slot*> dirty_;
    MacTable stations_;
    Neighbours neighbours_;
    uint64_t now_ns_ = 0;
    uint32_t next_hold_ = 1;
    uint32_t ticked_s_ = 0;
    size_t mirrors_ = 0;
    struct Told {
        uint32_t second = 0;
        uint32_t count = 0;
        uint64_t suppressed = 0;
    };
    std::unordered_map<std::string, Told> told_;  // by name of event and port
};

}  // namespace ivmm::net
