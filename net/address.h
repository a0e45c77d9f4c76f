#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace ivmm::net {

using MacAddress = std::array<uint8_t, 6>;

inline bool is_multicast(const MacAddress& mac) {
    return (mac[0] & 1U) != 0;
}
std::string to_string(const MacAddress& mac);

/// An IPv6 address, or an IPv4 address in its mapped form (::ffff:a.b.c.d).
struct IpAddress {
    std::array<uint8_t, 16> bytes{};

    // NOLINTNEXTLINE(modernize-use-nullptr): it takes the 0 that results are compared with for one
    auto operator<=>(const IpAddress&) const = default;
    bool is_v4() const;
    /// In ff00::/8 or 224.0.0.0/4.
    bool is_multicast() const;
    bool is_unspecified() const;

    /// From 4 or 16 bytes of a packet.
    static IpAddress from_v4(ConstByteSpan bytes);
    static IpAddress from_v6(ConstByteSpan bytes);
};

/// "192.0.2.1" or "2001:db8::1". A usage error if it is neither.
Result<IpAddress> parse_ip(std::string_view text);
std::string to_string(const IpAddress& address);

/// The addresses that begin with the same bits. Of a single address: all of its bits.
struct Prefix {
    IpAddress address;
    uint8_t length = 128;  ///< in bits, of the 16 bytes (an IPv4 prefix has at least 96)

    bool operator==(const Prefix&) const = default;
    bool contains(const IpAddress& other) const;
};

/// "10.0.0.0/8", "fe80::/10", or an address alone. A usage error if it is none of these.
Result<Prefix> parse_prefix(std::string_view text);
std::string to_string(const Prefix& prefix);
bool any_contains(std::span<const Prefix> prefixes, const IpAddress& address);

}  // namespace ivmm::net
