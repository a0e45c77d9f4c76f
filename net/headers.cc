#include "net/headers.h"

#include <algorithm>

#include "net/wire.h"

namespace ivmm::net {
namespace {

constexpr uint16_t kTypeIpV4 = 0x0800;
constexpr uint16_t kTypeArp = 0x0806;
constexpr uint16_t kTypeIpV6 = 0x86dd;
constexpr uint16_t kTypeVlan = 0x8100;
constexpr uint16_t kTypeServiceVlan = 0x88a8;
constexpr uint16_t kTypeOldServiceVlan = 0x9100;

constexpr int kMaxExtensionHeaders = 8;

bool is_vlan(uint16_t ether_type) {
    return ether_type == kTypeVlan || ether_type == kTypeServiceVlan ||
           ether_type == kTypeOldServiceVlan;
}

/// An IP packet's headers up to the transport's.
struct Network {
    Tuple tuple;
    size_t header_end = 0;
    size_t packet_end = 0;  ///< as the packet says
    Headers::Fragment fragment = Headers::Fragment::kNone;
    uint32_t fragment_id = 0;
    bool has_options = false;
};

std::optional<Network> parse_v4(ConstByteSpan bytes) {
    if (bytes.size() < kIpV4Header || load8(bytes, 0) >> 4U != 4) {
        return std::nullopt;
    }
    Network network;
    network.header_end = (load8(bytes, 0) & 0xfU) * size_t{4};
    network.packet_end = load_be16(bytes, 2);
    if (network.header_end < kIpV4Header || network.header_end > bytes.size() ||
        network.packet_end < network.header_end) {
        return std::nullopt;
    }
    network.has_options = network.header_end > kIpV4Header;
    const uint16_t fragment = load_be16(bytes, 6);
    const bool more = (fragment & 0x2000U) != 0;
    const bool later = (fragment & 0x1fffU) != 0;
    network.fragment = later  ? Headers::Fragment::kLater
                       : more ? Headers::Fragment::kFirst
                              : Headers::Fragment::kNone;
    network.fragment_id = load_be16(bytes, 4);
    network.tuple.protocol = load8(bytes, 9);
    network.tuple.source = IpAddress::from_v4(bytes.subspan(12));
    network.tuple.destination = IpAddress::from_v4(bytes.subspan(16));
    return network;
}

/// Reads offset, "more" and identification.
bool read_fragment_header(ConstByteSpan header, Network& network) {
    if (header.size() < 8 || network.fragment != Headers::Fragment::kNone) {
        return false;
    }
    const uint16_t place = load_be16(header, 2);
    const bool later = (place & 0xfff8U) != 0;
    if (later || (place & 1U) != 0) {
        network.fragment = later ? Headers::Fragment::kLater : Headers::Fragment::kFirst;
    }
    network.fragment_id = load_be32(header, 4);
    return true;
}

std::optional<Network> parse_v6(ConstByteSpan bytes) {
    if (bytes.size() < kIpV6Header || load8(bytes, 0) >> 4U != 6) {
        return std::nullopt;
    }
    Network network;
    network.packet_end = kIpV6Header + load_be16(bytes, 4);
    network.tuple.source = IpAddress::from_v6(bytes.subspan(8));
    network.tuple.destination = IpAddress::from_v6(bytes.subspan(24));
    if (network.tuple.source.is_v4() || network.tuple.destination.is_v4()) {
        return std::nullopt;  // mapped addresses are not for the wire; here they mean IPv4
    }
    uint8_t next = load8(bytes, 6);
    size_t at = kIpV6Header;
    for (int i = 0; i < kMaxExtensionHeaders; ++i) {
        const auto rest = bytes.subspan(std::min(at, bytes.size()));
        size_t length = 0;
        switch (next) {
            case 0:    // hop-by-hop options
            case 43:   // routing
            case 60:   // destination options
            case 135:  // mobility
                length = rest.size() < 8 ? 0 : (load8(rest, 1) + size_t{1}) * 8;
                break;
            case 51:  // authentication
                length = rest.size() < 8 ? 0 : (load8(rest, 1) + size_t{2}) * 4;
                break;
            case 44:
                if (!read_fragment_header(rest, network)) {
                    return std::nullopt;
                }
                length = 8;
                break;
            default:
                network.tuple.protocol = next;
                network.header_end = at;
                return network.packet_end < at ? std::nullopt : std::optional(network);
        }
        if (length == 0 || length > rest.size()) {
            return std::nullopt;
        }
        network.has_options = network.has_options || next != 44;
        next = load8(rest, 0);
        at += length;
        if (network.fragment == Headers::Fragment::kLater) {
            network.tuple.protocol = next;
            network.header_end = at;
            return network.packet_end < at ? std::nullopt : std::optional(network);
        }
    }
    return std::nullopt;
}

std::optional<Network> parse_network(ConstByteSpan bytes) {
    return !bytes.empty() && load8(bytes, 0) >> 4U == 6 ? parse_v6(bytes) : parse_v4(bytes);
}

bool is_icmp_error(uint8_t protocol, uint8_t type) {
    if (protocol == kIcmpV6) {
        return type < 128;
    }
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

bool is_icmp_query(uint8_t protocol, uint8_t type) {
    if (protocol == kIcmpV6) {
        return type == 128 || type == 129;
    }
    return type == 0 || type == 8 || (type >= 13 && type <= 18);
}

/// The ports of a transport header; false if there is no room for them.
bool read_ports(ConstByteSpan transport, Tuple& tuple) {
    switch (tuple.protocol) {
        case kTcp:
        case kUdp:
        case 33:   // DCCP
        case 132:  // SCTP
        case 136:  // UDP-Lite
            if (transport.size() < 4) {
                return false;
            }
            tuple.source_port = load_be16(transport, 0);
            tuple.destination_port = load_be16(transport, 2);
            return true;
        case kIcmp:
        case kIcmpV6:
            if (transport.size() < 4) {
                return false;
            }
            if (is_icmp_query(tuple.protocol, load8(transport, 0))) {
                if (transport.size() < 8) {
                    return false;
                }
                tuple.source_port = tuple.destination_port = load_be16(transport, 4);
            }
            return true;
        default:
            return true;
    }
}

/// The packet within an ICMP error, of which only the beginning is there.
std::optional<Tuple> read_embedded(ConstByteSpan bytes) {
    const auto network = parse_network(bytes);
    if (!network || network->fragment == Headers::Fragment::kLater) {
        return std::nullopt;
    }
    Tuple tuple = network->tuple;
    if (!read_ports(bytes.subspan(network->header_end), tuple)) {
        return std::nullopt;
    }
    return tuple;
}

void read_transport(ConstByteSpan transport, Headers& headers) {
    if (!read_ports(transport, headers.tuple)) {
        headers.no_ports = true;
        return;
    }
    size_t length = 0;
    switch (headers.tuple.protocol) {
        case kTcp:
            length = transport.size() < 20 ? 0 : (load8(transport, 12) >> 4U) * size_t{4};
            if (length < 20 || length > transport.size()) {
                headers.no_ports = true;
                return;
            }
            headers.tcp_flags = load8(transport, 13);
            break;
        case kUdp:
            if (transport.size() < 8) {
                headers.no_ports = true;
                return;
            }
            length = 8;
            break;
        case kIcmp:
        case kIcmpV6:
            headers.icmp_type = load8(transport, 0);
            headers.icmp_code = load8(transport, 1);
            if (is_icmp_error(headers.tuple.protocol, headers.icmp_type) && transport.size() >= 8) {
                headers.embedded = read_embedded(transport.subspan(8));
            }
            break;
        default:
            break;
    }
    headers.payload_offset = static_cast<uint16_t>(headers.transport_offset + length);
}

void read_ip(ConstByteSpan head, size_t frame_length, Headers& headers) {
    const auto bytes = head.subspan(headers.network_offset);
    const auto network = headers.ether_type == kTypeIpV4 ? parse_v4(bytes) : parse_v6(bytes);
    if (!network || headers.network_offset + network->packet_end > frame_length) {
        return;  // malformed
    }
    headers.kind = Headers::Kind::kIp;
    headers.tuple = network->tuple;
    headers.fragment = network->fragment;
    headers.fragment_id = network->fragment_id;
    headers.has_options = network->has_options;
    headers.packet_end = static_cast<uint32_t>(headers.network_offset + network->packet_end);
    if (network->fragment != Headers::Fragment::kLater) {
        headers.transport_offset =
            static_cast<uint16_t>(headers.network_offset + network->header_end);
        const size_t end = std::min<size_t>(head.size(), headers.packet_end);
        read_transport(head.subspan(headers.transport_offset, end - headers.transport_offset),
                       headers);
    }
}

void read_arp(ConstByteSpan bytes, Headers& headers) {
    // Hardware Ethernet, protocol IPv4, addresses of 6 and 4 bytes.
    if (bytes.size() < 28 || load_be32(bytes, 0) != 0x00010800 || load_be16(bytes, 4) != 0x0604) {
        return;  // malformed
    }
    headers.kind = Headers::Kind::kArp;
    headers.arp_operation = load_be16(bytes, 6);
    std::memcpy(headers.arp_sender.data(), bytes.data() + 8, headers.arp_sender.size());
    headers.arp_sender_ip = IpAddress::from_v4(bytes.subspan(14));
    headers.arp_target_ip = IpAddress::from_v4(bytes.subspan(24));
}

}  // namespace

Headers parse_headers(ConstByteSpan head, size_t frame_length) {
    Headers headers;
    if (head.size() < kMinFrameLength || frame_length < head.size() ||
        frame_length > kMaxFrameLength) {
        return headers;
    }
    std::memcpy(headers.destination.data(), head.data(), headers.destination.size());
    std::memcpy(headers.source.data(), head.data() + 6, headers.source.size());
    size_t at = 12;
    headers.ether_type = load_be16(head, at);
    at += 2;
    for (int tags = 0; is_vlan(headers.ether_type); ++tags) {
        if (tags == 2 || at + 4 > head.size()) {
            return headers;
        }
        const auto vlan = static_cast<uint16_t>(load_be16(head, at) & 0xfffU);
        (tags == 0 ? headers.outer_vlan : headers.inner_vlan) = vlan;
        headers.ether_type = load_be16(head, at + 2);
        at += 4;
    }
    headers.network_offset = static_cast<uint16_t>(at);
    switch (headers.ether_type) {
        case kTypeIpV4:
        case kTypeIpV6:
            read_ip(head, frame_length, headers);
            break;
        case kTypeArp:
            read_arp(head.subspan(at), headers);
            break;
        default:
            headers.kind = Headers::Kind::kOther;
    }
    return headers;
}

}  // namespace ivmm::net
