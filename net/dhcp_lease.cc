#include "net/dhcp_lease.h"

#include <algorithm>

#include "net/wire.h"

namespace ivmm::net {
namespace {

// RFC 2131, section 2.
constexpr size_t kTransaction = 4;
constexpr size_t kFlags = 10;
constexpr size_t kClientAddress = 12;
constexpr size_t kClientHardware = 28;
constexpr size_t kCookie = 236;
constexpr size_t kOptions = 240;
constexpr size_t kMostBytes = 1518;
constexpr uint32_t kMagic = 0x63825363;
enum : uint8_t { kDiscover = 1, kOffer = 2, kRequest = 3, kAck = 5 };

/// Offset of the message type's value in a DHCP message.
std::optional<size_t> find_type(ConstByteSpan message) {
    if (message.size() < kOptions || load_be32(message, kCookie) != kMagic) {
        return std::nullopt;
    }
    size_t at = kOptions;
    while (at + 2 < message.size() && load8(message, at) != 255) {
        if (load8(message, at) == 0) {
            ++at;
        } else if (load8(message, at) == 53 && load8(message, at + 1) == 1) {
            return at + 2;
        } else {
            at += size_t{2} + load8(message, at + 1);
        }
    }
    return std::nullopt;
}

bool is_udp(const Headers& headers, uint16_t from, uint16_t to) {
    return headers.is_udp() && !headers.no_ports && headers.tuple.source.is_v4() &&
           headers.fragment == Headers::Fragment::kNone && headers.tuple.source_port == from &&
           headers.tuple.destination_port == to;
}

}  // namespace

void DhcpLease::learn(const Headers& headers, const Frame& frame) {
    if (!is_udp(headers, 67, 68) || frame.size() > kMostBytes) {
        return;
    }
    std::vector<std::byte> bytes(frame.head.begin(), frame.head.end());
    bytes.insert(bytes.end(), frame.tail.begin(), frame.tail.end());
    bytes.resize(headers.packet_end);
    const auto message = ConstByteSpan(bytes).subspan(headers.payload_offset);
    const auto type = find_type(message);
    if (type && load8(message, 0) == 2 && load8(message, *type) == kAck) {
        payload_ = headers.payload_offset;
        type_ = payload_ + *type;
        acknowledgement_ = std::move(bytes);
    }
}

bool DhcpLease::is_request(const Headers& headers) {
    return is_udp(headers, 68, 67);
}

std::optional<std::vector<std::byte>> DhcpLease::answer(const Headers& headers,
                                                        ConstByteSpan head) const {
    if (!is_request(headers) || acknowledgement_.empty()) {
        return std::nullopt;
    }
    const size_t end = std::min<size_t>(head.size(), headers.packet_end);
    const auto request = head.subspan(headers.payload_offset, end - headers.payload_offset);
    const auto type = find_type(request);
    if (!type) {
        return std::nullopt;
    }
    const uint8_t asked = load8(request, *type);
    if (asked != kDiscover && asked != kRequest) {
        return std::nullopt;
    }
    auto bytes = acknowledgement_;
    const ByteSpan all(bytes);
    const ByteSpan answer = all.subspan(payload_);
    std::memcpy(all.data(), headers.source.data(), headers.source.size());
    const auto copy = [&](size_t offset, size_t length) {
        std::memcpy(answer.data() + offset, request.data() + offset, length);
    };
    copy(kTransaction, 4);
    copy(kFlags, 2);
    copy(kClientAddress, 4);
    copy(kClientHardware, 16);
    store8(all, type_, asked == kDiscover ? kOffer : kAck);
    // A UDP checksum of 0 means none (RFC 768); the addresses stay those of the lease.
    store_be16(all, payload_ - size_t{2}, 0);
    return bytes;
}

}  // namespace ivmm::net
