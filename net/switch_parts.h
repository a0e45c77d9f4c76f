#pragma once

#include "net/switch.h"

/// What a switch is made of inside.
namespace ivmm::net {

inline constexpr PortId kNoPort = 255;

struct Switch::Slot {
    PortId id = kNoPort;
    std::string name;
    Role role = Role::kUplink;
    MacAddress mac{};
    std::unique_ptr<Port> endpoint;
    PortCounters counters;
    bool dirty = false;  // has been sent something since the last flush

    // Of guests and clones:
    Twins* twins = nullptr;
    Member member = kPrimary;
    // Of clones:
    FrameQueue backlog{{4096, size_t{16} << 20}};
    std::optional<Containment> containment;
    std::unique_ptr<Recorder> recorder;
};

struct Switch::Twins {
    /// An address of the guest's own, and the network in which it has it.
    struct Local {
        IpAddress address;
        uint16_t outer_vlan = 0;
        uint16_t inner_vlan = 0;
        bool operator==(const Local&) const = default;
    };
    static constexpr size_t kMaxLocals = 64;

    Twins(const Options& options)
        : diversions(options.diversions),
          flows(options.flows, [this](const Flow& flow) { return diversions.depends_on(flow); }) {}

    bool has_local(const IpAddress& address) const {
        for (const Local& local : locals) {
            if (local.address == address) {
                return true;
            }
        }
        return false;
    }

    std::vector<PortId> members;  // by Member; kNoPort: gone
    Diversions diversions;
    FlowTable flows;
    Fragments fragments;
    DhcpLease lease;
    std::vector<Local> locals;
};

struct Switch::Hold {
    HoldId id = 0;
    Twins* twins = nullptr;
    Selector selector;
    Member owner = 0;
    FrameQueue queue;
    uint64_t began_ns = 0;
    uint64_t ends_ns = 0;
    uint64_t refused = 0;
};

/// A MAC address as a number, for tables.
inline uint64_t mac_number(const MacAddress& mac) {
    uint64_t value = 0;
    std::memcpy(&value, mac.data(), mac.size());
    return value;
}

}  // namespace ivmm::net
