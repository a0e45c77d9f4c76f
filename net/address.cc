#include "net/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace ivmm::net {
namespace {

constexpr std::array<uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr uint8_t kMappedBits = 96;

}  // namespace

std::string to_string(const MacAddress& mac) {
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                       mac[4], mac[5]);
}

bool IpAddress::is_v4() const {
    return std::equal(kMapped.begin(), kMapped.end(), bytes.begin());
}

bool IpAddress::is_multicast() const {
    return is_v4() ? (bytes[12] & 0xf0U) == 0xe0U : bytes[0] == 0xff;
}

bool IpAddress::is_unspecified() const {
    const size_t first = is_v4() ? kMapped.size() : 0;
    return std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(first), bytes.end(),
                       [](uint8_t byte) { return byte == 0; });
}

IpAddress IpAddress::from_v4(ConstByteSpan bytes) {
    IpAddress address;
    std::copy(kMapped.begin(), kMapped.end(), address.bytes.begin());
    std::memcpy(address.bytes.data() + kMapped.size(), bytes.first(4).data(), 4);
    return address;
}

IpAddress IpAddress::from_v6(ConstByteSpan bytes) {
    IpAddress address;
    std::memcpy(address.bytes.data(), bytes.first(16).data(), 16);
    return address;
}

Result<IpAddress> parse_ip(std::string_view text) {
    const std::string copy(text);
    std::array<std::byte, 16> bytes{};
    if (::inet_pton(AF_INET, copy.c_str(), bytes.data()) == 1) {
        return IpAddress::from_v4(bytes);
    }
    if (::inet_pton(AF_INET6, copy.c_str(), bytes.data()) == 1) {
        return IpAddress::from_v6(bytes);
    }
    return fail_as(ErrorKind::kUsage, "'{}' is not an IP address", text);
}

std::string to_string(const IpAddress& address) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (address.is_v4()) {
        ::inet_ntop(AF_INET, address.bytes.data() + kMapped.size(), text.data(), text.size());
    } else {
        ::inet_ntop(AF_INET6, address.bytes.data(), text.data(), text.size());
    }
    return text.data();
}

bool Prefix::contains(const IpAddress& other) const {
    const size_t whole = length / 8U;
    if (!std::equal(address.bytes.begin(),
                    address.bytes.begin() + static_cast<std::ptrdiff_t>(whole),
                    other.bytes.begin())) {
        return false;
    }
    const unsigned rest = length % 8U;
    if (rest == 0) {
        return true;
    }
    return ((address.bytes[whole] ^ other.bytes[whole]) >> (8 - rest)) == 0;
}

Result<Prefix> parse_prefix(std::string_view text) {
    const auto slash = text.find('/');
    Prefix prefix;
    IVMM_ASSIGN(prefix.address, parse_ip(text.substr(0, slash)));
    if (slash == std::string_view::npos) {
        return prefix;
    }
    const auto digits = text.substr(slash + 1);
    const unsigned before = prefix.address.is_v4() ? kMappedBits : 0;
    unsigned length = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc() || end != digits.data() + digits.size() || length > 128 - before) {
        return fail_as(ErrorKind::kUsage, "'{}' is not a network such as 10.0.0.0/8", text);
    }
    prefix.length = static_cast<uint8_t>(before + length);
    return prefix;
}

std::string to_string(const Prefix& prefix) {
    const unsigned before = prefix.address.is_v4() ? kMappedBits : 0;
    if (prefix.length == 128) {
        return to_string(prefix.address);
    }
    return fmt::format("{}/{}", to_string(prefix.address), prefix.length - before);
}

bool any_contains(std::span<const Prefix> prefixes, const IpAddress& address) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](const Prefix& prefix) { return prefix.contains(address); });
}

}  // namespace ivmm::net
