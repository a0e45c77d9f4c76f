#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "net/address.h"

/// What the headers of a frame say. Anybody may have written them.
namespace ivmm::net {

inline constexpr size_t kMinFrameLength = 14;
/// Ethernet header with two VLAN tags, and the longest IP packet.
inline constexpr size_t kMaxFrameLength = 14 + 8 + 65535;

inline constexpr uint8_t kIcmp = 1;
inline constexpr uint8_t kTcp = 6;
inline constexpr uint8_t kUdp = 17;
inline constexpr uint8_t kIcmpV6 = 58;

inline constexpr uint16_t kDnsPort = 53;
inline constexpr uint16_t kNtpPort = 123;

inline constexpr uint8_t kTcpFin = 0x01;
inline constexpr uint8_t kTcpSyn = 0x02;
inline constexpr uint8_t kTcpRst = 0x04;
inline constexpr uint8_t kTcpAck = 0x10;

/// Addresses, protocol and ports of a packet. Of an ICMP query both ports are its identifier; of
/// what has no ports they are 0.
struct Tuple {
    IpAddress source;
    IpAddress destination;
    uint16_t source_port = 0;
    uint16_t destination_port = 0;
    uint8_t protocol = 0;
};

struct Headers {
    enum class Kind : uint8_t {
        kMalformed,  ///< cut off, contradictory, or deeper than anybody needs
        kOther,      ///< a protocol that the switch does not look into
        kArp,        ///< for IPv4 over Ethernet
        kIp,         ///< IPv4 or IPv6
    };
    enum class Fragment : uint8_t { kNone, kFirst, kLater };

    Kind kind = Kind::kMalformed;
    MacAddress destination{};
    MacAddress source{};
    uint16_t outer_vlan = 0;  ///< 0: no tag, or a tag for priority alone
    uint16_t inner_vlan = 0;
    uint16_t ether_type = 0;
    uint16_t network_offset = 0;  ///< of what follows the Ethernet header and its tags

    // Of kIp:
    Tuple tuple;
    uint16_t transport_offset = 0;  ///< of what follows the IP headers; 0 in a later fragment
    uint16_t payload_offset = 0;    ///< of TCP and UDP: of what follows their header
    uint32_t packet_end = 0;        ///< where the packet ends: padding may follow
    Fragment fragment = Fragment::kNone;
    uint32_t fragment_id = 0;
    uint8_t tcp_flags = 0;
    uint8_t icmp_type = 0;
    uint8_t icmp_code = 0;
    /// There are IPv4 options, or IPv6 extension headers besides that of a fragment.
    bool has_options = false;
    /// There was no room for the ports, or the transport header is one of a size that cannot be.
    bool no_ports = false;
    /// What the packet complains about, of an ICMP error.
    std::optional<Tuple> embedded;

    // Of kArp:
    uint16_t arp_operation = 0;
    MacAddress arp_sender{};
    IpAddress arp_sender_ip;
    IpAddress arp_target_ip;

    bool is_ip() const { return kind == Kind::kIp; }
    bool is_tcp() const { return is_ip() && tuple.protocol == kTcp; }
    bool is_udp() const { return is_ip() && tuple.protocol == kUdp; }
    bool is_icmp() const { return is_ip() && tuple.protocol == kIcmp; }
    bool is_icmp_v6() const { return is_ip() && tuple.protocol == kIcmpV6; }
    /// IPv6 neighbour discovery (RFC 4861): router and neighbour messages, redirect.
    bool is_neighbour_discovery() const {
        return is_icmp_v6() && !no_ports && icmp_type >= 133 && icmp_type <= 137;
    }
};

/// Reads the headers of a frame of `frame_length` bytes whose first bytes are `head`; headers that
/// go beyond it count as malformed.
Headers parse_headers(ConstByteSpan head, size_t frame_length);

}  // namespace ivmm::net
