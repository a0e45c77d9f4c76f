#include "net/tap_port.h"

#include <sys/uio.h>

#include <algorithm>

namespace ivmm::net {

Result<std::unique_ptr<TapPort>> TapPort::create(Tap tap, bool complete) {
    // The switch cuts frames itself for who needs it.
    IVMM_TRY(tap.set_offloads({.checksum = true, .tso4 = true, .tso6 = true, .tso_ecn = true}));
    return std::unique_ptr<TapPort>(new TapPort(std::move(tap), complete));
}

size_t TapPort::receive(std::span<Frame> frames) {
    size_t count = 0;
    while (count < std::min(frames.size(), kBatch)) {
        Frame& frame = frames[count];
        const ByteSpan buffer(buffers_[count]);
        std::array<iovec, 2> pieces{iovec{&frame.vnet, sizeof(frame.vnet)},
                                    iovec{buffer.data(), buffer.size()}};
        const ssize_t n = ::readv(tap_.fd(), pieces.data(), static_cast<int>(pieces.size()));
        if (n < static_cast<ssize_t>(sizeof(frame.vnet))) {
            if (n < 0 && errno == EINTR) {
                continue;
            }
            break;
        }
        const size_t length = static_cast<size_t>(n) - sizeof(frame.vnet);
        const size_t head = std::min(length, kHeadLength);
        frame.head = buffer.first(head);
        frame.tail = buffer.subspan(head, length - head);
        ++count;
    }
    return count;
}

bool TapPort::send(const Frame& frame) {
    VnetHeader vnet = frame.vnet;
    vnet.flags &= VnetHeader::kNeedsChecksum;
    // writev() only reads.
    std::array<iovec, 3> pieces{
        iovec{&vnet, sizeof(vnet)}, iovec{frame.head.data(), frame.head.size()},
        iovec{const_cast<std::byte*>(frame.tail.data()),  // NOLINT(*-const-cast)
              frame.tail.size()}};
    ssize_t n = 0;
    do {
        n = ::writev(tap_.fd(), pieces.data(), static_cast<int>(pieces.size()));
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

Offloads TapPort::offloads() const {
    return complete_ ? Offloads{} : Offloads{true, true, true, true};
}

}  // namespace ivmm::net
