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

std::vector<StoredFrame> RingPort::take_back(const Wanted& wanted) {
    std::vector<StoredFrame> taken;
    out_.take_back([&](const VnetHeader& vnet, ConstByteSpan shared) {
        std::vector<std::byte> head(kHeadLength);
        head.resize(std::min(shared.size(), kHeadLength));
        std::copy_n(shared.begin(), head.size(), head.begin());
        const Frame frame{vnet, head, shared.subspan(head.size())};
        if (!wanted(frame)) {
            return false;
        }
        taken.emplace_back(frame);
        return true;
    });
    return taken;
}

void RingPort::flush() {
    bool wake = false;
    if (std::exchange(pushed_, false)) {
        wake = out_.publish();
    }
    if (in_.release() || wake) {
        peers_.signal();
    }
}

}  // namespace ivmm::net
