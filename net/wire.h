#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bytes.h"

/// Numbers as they lie in frames: big-endian. The caller has checked the bounds.
namespace ivmm::net {

inline uint8_t load8(ConstByteSpan bytes, size_t offset) {
    return std::to_integer<uint8_t>(bytes[offset]);
}
inline uint16_t load_be16(ConstByteSpan bytes, size_t offset) {
    return __builtin_bswap16(load_at<uint16_t>(bytes, offset));
}
inline uint32_t load_be32(ConstByteSpan bytes, size_t offset) {
    return __builtin_bswap32(load_at<uint32_t>(bytes, offset));
}
inline void store8(ByteSpan bytes, size_t offset, uint8_t value) {
    bytes[offset] = std::byte{value};
}
inline void store_be16(ByteSpan bytes, size_t offset, uint16_t value) {
    value = __builtin_bswap16(value);
    std::memcpy(bytes.subspan(offset, sizeof(value)).data(), &value, sizeof(value));
}
inline void store_be32(ByteSpan bytes, size_t offset, uint32_t value) {
    value = __builtin_bswap32(value);
    std::memcpy(bytes.subspan(offset, sizeof(value)).data(), &value, sizeof(value));
}
/// A link address.
inline void store_mac(ByteSpan bytes, size_t offset, const std::array<uint8_t, 6>& mac) {
    std::memcpy(bytes.subspan(offset, mac.size()).data(), mac.data(), mac.size());
}

/// Of headers without options or extensions.
inline constexpr size_t kIpV4Header = 20;
inline constexpr size_t kIpV6Header = 40;

/// The Internet checksum (RFC 1071) of bytes that come in pieces; all but the last piece must have
/// an even length.
class Checksum {
 public:
    void add(ConstByteSpan bytes) {
        size_t i = 0;
        for (; i + 4 <= bytes.size(); i += 4) {
            sum_ += load_at<uint32_t>(bytes, i);
        }
        if (i + 2 <= bytes.size()) {
            sum_ += load_at<uint16_t>(bytes, i);
            i += 2;
        }
        if (i < bytes.size()) {
            sum_ += load8(bytes, i);
        }
    }
    /// A number of the pseudo-header.
    void add_be16(uint16_t value) { sum_ += __builtin_bswap16(value); }
    /// The sum, not inverted: what a frame whose checksum is to be completed has in its field.
    uint16_t folded() const {
        uint64_t sum = sum_;
        while ((sum >> 16) != 0) {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        return __builtin_bswap16(static_cast<uint16_t>(sum));
    }
    uint16_t value() const { return static_cast<uint16_t>(~folded()); }

 private:
    uint64_t sum_ = 0;  // of numbers in the host's order, which does not matter before the end
};

}  // namespace ivmm::net
