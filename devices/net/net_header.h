#pragma once

#include <cstdint>
#include <optional>

#include "devices/net/kernel_virtio_net.h"
#include "devices/net/net_backend.h"

/// What a virtio-net header may say (virtio 1.2, 5.1.6). Never trusts it.
namespace ivmm::virtio {

using NetHeader = virtio_net_hdr_v1;
static_assert(sizeof(NetHeader) == 12);

/// Ethernet header with two VLAN tags, and the longest IP packet.
inline constexpr uint64_t kMaxFrameLength = 14 + 8 + 65535;
inline constexpr uint64_t kMinFrameLength = 14;

/// The least segment that Linux ever cuts a TCP stream into. Anything shorter is an attempt to
/// have the host make tens of thousands of packets from one.
inline constexpr uint16_t kMinSegmentLength = 48;

/// The header to send on with a frame of `frame_length` bytes instead of the driver's, or nullopt
/// if that one lies, or asks for what was not negotiated. `able`: what was negotiated for
/// transmission (VIRTIO_NET_F_CSUM, HOST_TSO4 …).
std::optional<NetHeader> checked_header(const NetHeader& header, uint64_t frame_length,
                                        const NetOffloads& able);

/// What the bits VIRTIO_NET_F_GUEST_CSUM, GUEST_TSO4, … mean, dependencies kept (5.1.3.1).
NetOffloads receive_offloads(uint64_t features);
/// What the bits VIRTIO_NET_F_CSUM, HOST_TSO4, … mean, dependencies kept.
NetOffloads transmit_offloads(uint64_t features);

}  // namespace ivmm::virtio
