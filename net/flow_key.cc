#include "net/flow_key.h"

#include <fmt/core.h>

namespace ivmm::net {
namespace {

FlowKey key_of(const Tuple& tuple, const Headers& headers, Direction direction) {
    FlowKey key;
    const bool in = direction == Direction::kIn;
    key.remote = in ? tuple.source : tuple.destination;
    key.local = in ? tuple.destination : tuple.source;
    key.remote_port = in ? tuple.source_port : tuple.destination_port;
    key.local_port = in ? tuple.destination_port : tuple.source_port;
    key.outer_vlan = headers.outer_vlan;
    key.inner_vlan = headers.inner_vlan;
    key.protocol = tuple.protocol;
    return key;
}

std::string with_port(const IpAddress& address, uint16_t port) {
    return address.is_v4() ? fmt::format("{}:{}", to_string(address), port)
                           : fmt::format("[{}]:{}", to_string(address), port);
}

}  // namespace

FlowKey flow_key(const Headers& headers, Direction direction) {
    return key_of(headers.tuple, headers, direction);
}

FlowKey embedded_flow_key(const Headers& headers, Direction direction) {
    return key_of(*headers.embedded, headers,
                  direction == Direction::kIn ? Direction::kOut : Direction::kIn);
}

std::string protocol_name(uint8_t protocol) {
    switch (protocol) {
        case kTcp:
            return "tcp";
        case kUdp:
            return "udp";
        case kIcmp:
            return "icmp";
        case kIcmpV6:
            return "icmp6";
        default:
            return std::to_string(protocol);
    }
}

std::string to_string(const FlowKey& key) {
    std::string text =
        fmt::format("{} {} {}", protocol_name(key.protocol), with_port(key.remote, key.remote_port),
                    with_port(key.local, key.local_port));
    if (key.outer_vlan != 0 || key.inner_vlan != 0) {
        text += key.inner_vlan == 0 ? fmt::format(" vlan {}", key.outer_vlan)
                                    : fmt::format(" vlan {}.{}", key.outer_vlan, key.inner_vlan);
    }
    return text;
}

}  // namespace ivmm::net
