#include "net/ring_port.h"

#include <algorithm>

namespace ivmm::net {

RingPort::RingPort(SharedMemory memory, const EventFd& peers)
    : memory_(std::move(memory)),
      peers_(peers),
      in_(memory_.to_switch()),
      out_(memory_.from_switch()),
      heads_(kBatch) {}

size_t RingPort::receive(std::span<Frame> frames) {
    size_t count = 0;
    while (count < std::min(frames.size(), kBatch)) {
        const auto record = in_.next();
        if (!record) {
            break;
        }
        const size_t head = std::min(record->frame.size(), kHeadLength);
        std::memcpy(heads_[count].data(), record->frame.data(), head);
        frames[count] = {record->vnet, ByteSpan(heads_[count]).first(head),
                         record->frame.subspan(head)};
        ++count;
    }
    taken_ = taken_ || count > 0;
    return count;
}

bool RingPort::send(const Frame& frame) {
    const auto room = out_.reserve(frame.size());
    if (!room) {
        return false;
    }
    std::copy(frame.head.begin(), frame.head.end(), room->begin());
    std::copy(frame.tail.begin(), frame.tail.end(),
              room->begin() + static_cast<std::ptrdiff_t>(frame.head.size()));
    out_.push(frame.vnet);
    pushed_ = true;
    return true;
}

void RingPort::flush() {
    bool wake = false;
    if (std::exchange(pushed_, false)) {
        wake = out_.publish();
    }
    if (std::exchange(taken_, false)) {
        wake = in_.release() || wake;
    }
    if (wake) {
        peers_.signal();
    }
}

}  // namespace ivmm::net
