#pragma once

#include <cstdint>
#include <vector>

#include "net/headers.h"

namespace ivmm::net {

/// virtio_net_hdr_v1 (virtio 1.2, 5.1.6).
struct VnetHeader {
    static constexpr uint8_t kNeedsChecksum = 1;
    static constexpr uint8_t kDataValid = 2;
    static constexpr uint8_t kGsoNone = 0;
    static constexpr uint8_t kGsoTcpV4 = 1;
    static constexpr uint8_t kGsoTcpV6 = 4;
    static constexpr uint8_t kGsoEcn = 0x80;

    uint8_t flags = 0;
    uint8_t gso_type = kGsoNone;
    uint16_t header_length = 0;
    uint16_t gso_size = 0;
    uint16_t checksum_start = 0;
    uint16_t checksum_offset = 0;
    uint16_t buffers = 0;

    bool operator==(const VnetHeader&) const = default;
};
static_assert(sizeof(VnetHeader) == 12);

/// So much of a frame is read by the switch itself; the rest it only passes on.
inline constexpr size_t kHeadLength = 512;

/// A frame on its way. The head is private memory; the tail may be shared with whoever has sent the
/// frame and change at any time, so it is copied once, to where the frame goes.
struct Frame {
    VnetHeader vnet;
    ByteSpan head;
    ConstByteSpan tail;

    size_t size() const { return head.size() + tail.size(); }
};

/// A frame in memory of its own.
class StoredFrame {
 public:
    StoredFrame() = default;
    explicit StoredFrame(const Frame& frame) : vnet_(frame.vnet) {
        bytes_.reserve(frame.size());
        bytes_.insert(bytes_.end(), frame.head.begin(), frame.head.end());
        bytes_.insert(bytes_.end(), frame.tail.begin(), frame.tail.end());
    }
    Frame frame() {
        const ByteSpan bytes(bytes_);
        const size_t head = std::min(bytes.size(), kHeadLength);
        return {vnet_, bytes.first(head), bytes.subspan(head)};
    }
    size_t size() const { return bytes_.size(); }

 private:
    VnetHeader vnet_;
    std::vector<std::byte> bytes_;
};

/// Replaces the virtio-net header by one that says only what is true of the frame: a checksum to
/// complete is that of its TCP or UDP header, a length to cut it by is one of TCP. False: it lies.
bool make_honest(VnetHeader& vnet, const Headers& headers);

}  // namespace ivmm::net
