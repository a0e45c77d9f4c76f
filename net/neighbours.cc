#include "net/neighbours.h"

#include <xxhash.h>

#include <algorithm>

#include "net/reply.h"
#include "net/wire.h"

namespace ivmm::net {
namespace {

constexpr uint8_t kSolicitation = 135;
constexpr uint8_t kAdvertisement = 136;
constexpr size_t kAdvertisementLength = 24 + 8;  // with the option that tells the link address

/// The option with a link address (1: the source's, 2: the target's).
std::optional<MacAddress> link_address(ConstByteSpan options, uint8_t type) {
    while (options.size() >= 8) {
        const size_t length = load8(options, 1) * size_t{8};
        if (length == 0 || length > options.size()) {
            return std::nullopt;
        }
        if (load8(options, 0) == type) {
            MacAddress mac{};
            std::memcpy(mac.data(), options.data() + 2, mac.size());
            return mac;
        }
        options = options.subspan(length);
    }
    return std::nullopt;
}

/// The message of a neighbour solicitation or advertisement with its target.
std::optional<ConstByteSpan> message(const Headers& headers, ConstByteSpan head) {
    if (!headers.is_neighbour_discovery() || headers.fragment != Headers::Fragment::kNone ||
        headers.icmp_code != 0) {
        return std::nullopt;
    }
    const size_t end = std::min<size_t>(head.size(), headers.packet_end);
    const auto bytes = head.subspan(headers.transport_offset, end - headers.transport_offset);
    return bytes.size() < 24 ? std::nullopt : std::optional(bytes);
}

std::vector<std::byte> make_advertisement(const Headers& headers, ConstByteSpan head,
                                          const IpAddress& target, const MacAddress& mac) {
    auto bytes = reply_to(headers, head, mac, kIpV6Header + kAdvertisementLength);
    const ByteSpan ip = ByteSpan(bytes).subspan(headers.network_offset);
    store_be32(ip, 0, 0x60000000);
    store_be16(ip, 4, kAdvertisementLength);
    store8(ip, 6, kIcmpV6);
    store8(ip, 7, 255);
    std::memcpy(ip.data() + 8, target.bytes.data(), 16);
    std::memcpy(ip.data() + 24, headers.tuple.source.bytes.data(), 16);
    const ByteSpan icmp = ip.subspan(kIpV6Header);
    store8(icmp, 0, kAdvertisement);
    store_be32(icmp, 4, 0x60000000);  // solicited, override
    std::memcpy(icmp.data() + 8, target.bytes.data(), 16);
    store8(icmp, 24, 2);
    store8(icmp, 25, 1);
    store_mac(icmp, 26, mac);
    Checksum sum;
    sum.add(ip.subspan(8, 32));
    sum.add_be16(kAdvertisementLength);
    sum.add_be16(kIcmpV6);
    sum.add(icmp);
    store_be16(icmp, 2, sum.value());
    return bytes;
}

}  // namespace

size_t Neighbours::Hash::operator()(const IpAddress& address) const {
    return XXH3_64bits(&address, sizeof(address));
}

void Neighbours::learn(const IpAddress& address, const MacAddress& mac) {
    if (address.is_unspecified() || address.is_multicast() || is_multicast(mac)) {
        return;
    }
    if (known_.size() < kMost || known_.contains(address)) {
        known_[address] = mac;
    }
}

void Neighbours::learn(const Headers& headers, ConstByteSpan head) {
    if (headers.kind == Headers::Kind::kArp) {
        learn(headers.arp_sender_ip, headers.arp_sender);
        return;
    }
    if (const auto bytes = message(headers, head)) {
        if (headers.icmp_type == kSolicitation) {
            if (const auto mac = link_address(bytes->subspan(24), 1)) {
                learn(headers.tuple.source, *mac);
            }
        } else if (headers.icmp_type == kAdvertisement) {
            if (const auto mac = link_address(bytes->subspan(24), 2)) {
                learn(IpAddress::from_v6(bytes->subspan(8)), *mac);
            }
        }
    }
}

std::optional<MacAddress> Neighbours::find(const IpAddress& address) const {
    const auto found = known_.find(address);
    return found == known_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::vector<std::byte>> Neighbours::answer(const Headers& headers,
                                                         ConstByteSpan head) const {
    if (headers.kind == Headers::Kind::kArp) {
        const bool asks = headers.arp_operation == 1 && !headers.arp_sender_ip.is_unspecified() &&
                          headers.arp_sender_ip != headers.arp_target_ip;
        const auto mac = find(headers.arp_target_ip);
        return asks && mac ? std::optional(make_arp_reply(headers, head, *mac)) : std::nullopt;
    }
    const auto bytes = message(headers, head);
    if (!bytes || headers.icmp_type != kSolicitation || headers.tuple.source.is_unspecified()) {
        return std::nullopt;  // also duplicate address detection, which nobody objects to
    }
    const IpAddress target = IpAddress::from_v6(bytes->subspan(8));
    const auto mac = find(target);
    return mac ? std::optional(make_advertisement(headers, head, target, *mac)) : std::nullopt;
}

std::vector<std::byte> make_arp_reply(const Headers& request, ConstByteSpan head,
                                      const MacAddress& mac) {
    auto bytes = reply_to(request, head, mac, 28);
    const ByteSpan arp = ByteSpan(bytes).subspan(request.network_offset);
    store_be32(arp, 0, 0x00010800);
    store_be16(arp, 4, 0x0604);
    store_be16(arp, 6, 2);
    store_mac(arp, 8, mac);
    std::memcpy(arp.data() + 14, request.arp_target_ip.bytes.data() + 12, 4);
    store_mac(arp, 18, request.arp_sender);
    std::memcpy(arp.data() + 24, request.arp_sender_ip.bytes.data() + 12, 4);
    return bytes;
}

}  // namespace ivmm::net
