#include "net/reply.h"

#include "net/wire.h"

namespace ivmm::net {
namespace {

constexpr size_t kUdpHeader = 8;
constexpr uint16_t kDontFragment = 0x4000;
constexpr uint8_t kHops = 64;

/// The addresses of an IP header, the far end's first; how long the header is.
size_t put_ip_header(ByteSpan ip, const Tuple& tuple, size_t payload) {
    if (tuple.source.is_v4()) {
        store_be16(ip, 0, 0x4500);
        store_be16(ip, 2, static_cast<uint16_t>(kIpV4Header + payload));
        store_be16(ip, 6, kDontFragment);
        store8(ip, 8, kHops);
        store8(ip, 9, kUdp);
        std::memcpy(ip.data() + 12, tuple.destination.bytes.data() + 12, 4);
        std::memcpy(ip.data() + 16, tuple.source.bytes.data() + 12, 4);
        Checksum sum;
        sum.add(ip.first(kIpV4Header));
        store_be16(ip, 10, sum.value());
        return kIpV4Header;
    }
    store_be32(ip, 0, 0x60000000);
    store_be16(ip, 4, static_cast<uint16_t>(payload));
    store8(ip, 6, kUdp);
    store8(ip, 7, kHops);
    std::memcpy(ip.data() + 8, tuple.destination.bytes.data(), 16);
    std::memcpy(ip.data() + 24, tuple.source.bytes.data(), 16);
    return kIpV6Header;
}

}  // namespace

std::vector<std::byte> reply_to(const Headers& headers, ConstByteSpan head, const MacAddress& mac,
                                size_t length) {
    std::vector<std::byte> bytes(head.begin(), head.begin() + headers.network_offset);
    bytes.resize(headers.network_offset + length);
    store_mac(bytes, 0, headers.source);
    store_mac(bytes, 6, mac);
    return bytes;
}

std::vector<std::byte> udp_reply(const Headers& headers, ConstByteSpan head,
                                 ConstByteSpan payload) {
    const bool v4 = headers.tuple.source.is_v4();
    const size_t length = kUdpHeader + payload.size();
    auto bytes =
        reply_to(headers, head, headers.destination, (v4 ? kIpV4Header : kIpV6Header) + length);
    const ByteSpan ip = ByteSpan(bytes).subspan(headers.network_offset);
    const ByteSpan udp = ip.subspan(put_ip_header(ip, headers.tuple, length));
    store_be16(udp, 0, headers.tuple.destination_port);
    store_be16(udp, 2, headers.tuple.source_port);
    store_be16(udp, 4, static_cast<uint16_t>(length));
    std::memcpy(udp.data() + kUdpHeader, payload.data(), payload.size());
    Checksum sum;
    sum.add(v4 ? ip.subspan(12, 8) : ip.subspan(8, 32));
    sum.add_be16(kUdp);
    sum.add_be16(static_cast<uint16_t>(length));
    sum.add(udp);
    // 0 would mean that there is none (RFC 768).
    store_be16(udp, 6, sum.value() == 0 ? uint16_t{0xffff} : sum.value());
    return bytes;
}

ConstByteSpan udp_payload(const Headers& headers, ConstByteSpan head) {
    const bool whole = headers.is_udp() && !headers.no_ports &&
                       headers.fragment == Headers::Fragment::kNone &&
                       headers.packet_end <= head.size();
    return whole ? head.subspan(headers.payload_offset, headers.packet_end - headers.payload_offset)
                 : ConstByteSpan{};
}

}  // namespace ivmm::net
