#pragma once

#include <cstdint>
#include <string>

#include "net/headers.h"

namespace ivmm::net {

/// A flow as a guest's side of the switch sees it: who is far away, and which of the guest's own
/// addresses it talks to.
struct FlowKey {
    IpAddress remote;
    IpAddress local;
    uint16_t remote_port = 0;
    uint16_t local_port = 0;
    uint16_t outer_vlan = 0;
    uint16_t inner_vlan = 0;
    uint8_t protocol = 0;
    std::array<uint8_t, 3> zero{};  // so that equal keys have equal bytes

    bool operator==(const FlowKey&) const = default;
};
static_assert(sizeof(FlowKey) == 44);
static_assert(std::has_unique_object_representations_v<FlowKey>);

/// Which way a frame goes, seen from the guest.
enum class Direction : uint8_t { kIn, kOut };

/// `headers` must be those of an IP packet.
FlowKey flow_key(const Headers& headers, Direction direction);
/// The flow that an ICMP error which goes in this direction complains about: its packet went the
/// other way. `headers.embedded` must be there.
FlowKey embedded_flow_key(const Headers& headers, Direction direction);

/// "tcp", "udp", "icmp", "icmp6" or the number.
std::string protocol_name(uint8_t protocol);
std::string to_string(const FlowKey& key);

}  // namespace ivmm::net
