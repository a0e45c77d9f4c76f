#include "devices/net/net_header.h"

#include <algorithm>

namespace ivmm::virtio {

namespace {

constexpr uint64_t kIpv4HeaderLength = 20;
constexpr uint64_t kIpv6HeaderLength = 40;
constexpr uint64_t kTcpHeaderLength = 20;
/// Where the checksum is in a TCP header.
constexpr uint16_t kTcpChecksumOffset = 16;

bool has(uint64_t features, unsigned bit) {
    return (features >> bit & 1U) != 0;
}

NetOffloads with_dependencies(NetOffloads offloads) {
    offloads.tso4 = offloads.tso4 && offloads.checksum;
    offloads.tso6 = offloads.tso6 && offloads.checksum;
    offloads.tso_ecn = offloads.tso_ecn && (offloads.tso4 || offloads.tso6);
    return offloads;
}

}  // namespace

std::optional<NetHeader> checked_header(const NetHeader& header, uint64_t frame_length,
                                        const NetOffloads& able) {
    if (frame_length < kMinFrameLength || frame_length > kMaxFrameLength) {
        return std::nullopt;
    }
    NetHeader checked{};
    const bool needs_checksum = (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
    if (needs_checksum) {
        if (!able.checksum || header.csum_start < kMinFrameLength ||
            uint64_t{header.csum_start} + header.csum_offset + 2 > frame_length) {
            return std::nullopt;
        }
        checked.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        checked.csum_start = header.csum_start;
        checked.csum_offset = header.csum_offset;
    }
    if (header.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        return checked;
    }

    const bool ecn = (header.gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0;
    uint64_t ip_header_length = 0;
    bool negotiated = false;
    switch (header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
        case VIRTIO_NET_HDR_GSO_TCPV4:
            ip_header_length = kIpv4HeaderLength;
            negotiated = able.tso4;
            break;
        case VIRTIO_NET_HDR_GSO_TCPV6:
            ip_header_length = kIpv6HeaderLength;
            negotiated = able.tso6;
            break;
        default:
            return std::nullopt;
    }
    if (!negotiated || (ecn && !able.tso_ecn) || !needs_checksum ||
        header.gso_size < kMinSegmentLength ||
        header.csum_start < kMinFrameLength + ip_header_length ||
        header.csum_offset != kTcpChecksumOffset ||
        header.csum_start + kTcpHeaderLength > frame_length) {
        return std::nullopt;
    }
    checked.gso_type = header.gso_type;
    checked.gso_size = header.gso_size;
    // Only a hint, and the driver may have left anything there (5.1.6.2).
    checked.hdr_len = static_cast<uint16_t>(std::min<uint64_t>(header.hdr_len, frame_length));
    return checked;
}

NetOffloads receive_offloads(uint64_t features) {
    return with_dependencies({
        .checksum = has(features, VIRTIO_NET_F_GUEST_CSUM),
        .tso4 = has(features, VIRTIO_NET_F_GUEST_TSO4),
        .tso6 = has(features, VIRTIO_NET_F_GUEST_TSO6),
        .tso_ecn = has(features, VIRTIO_NET_F_GUEST_ECN),
    });
}

NetOffloads transmit_offloads(uint64_t features) {
    return with_dependencies({
        .checksum = has(features, VIRTIO_NET_F_CSUM),
        .tso4 = has(features, VIRTIO_NET_F_HOST_TSO4),
        .tso6 = has(features, VIRTIO_NET_F_HOST_TSO6),
        .tso_ecn = has(features, VIRTIO_NET_F_HOST_ECN),
    });
}

}  // namespace ivmm::virtio
