#include "net/frame.h"

namespace ivmm::net {
namespace {

/// The least segment that Linux ever cuts a TCP stream into.
constexpr uint16_t kMinSegment = 48;
constexpr uint16_t kTcpChecksum = 16;  // offset in the header
constexpr uint16_t kUdpChecksum = 6;

}  // namespace

bool make_honest(VnetHeader& vnet, const Headers& headers) {
    const VnetHeader told = vnet;
    vnet = {};
    if ((told.flags & VnetHeader::kNeedsChecksum) == 0) {
        return told.gso_type == VnetHeader::kGsoNone;
    }
    const bool tcp = headers.is_tcp();
    if ((!tcp && !headers.is_udp()) || headers.no_ports ||
        headers.fragment != Headers::Fragment::kNone ||
        told.checksum_start != headers.transport_offset ||
        told.checksum_offset != (tcp ? kTcpChecksum : kUdpChecksum)) {
        return false;
    }
    vnet.flags = VnetHeader::kNeedsChecksum;
    vnet.checksum_start = told.checksum_start;
    vnet.checksum_offset = told.checksum_offset;
    if (told.gso_type == VnetHeader::kGsoNone) {
        return true;
    }
    const bool v4 = headers.tuple.source.is_v4() && headers.tuple.destination.is_v4();
    const uint8_t type = told.gso_type & static_cast<uint8_t>(~VnetHeader::kGsoEcn);
    if (!tcp || type != (v4 ? VnetHeader::kGsoTcpV4 : VnetHeader::kGsoTcpV6) ||
        told.gso_size < kMinSegment) {
        return false;
    }
    vnet.gso_type = told.gso_type;
    vnet.gso_size = told.gso_size;
    vnet.header_length = headers.payload_offset;
    return true;
}

}  // namespace ivmm::net
