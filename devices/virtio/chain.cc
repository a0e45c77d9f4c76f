#include "devices/virtio/chain.h"

#include <algorithm>
#include <tuple>

namespace ivmm::virtio {

Cursor::Cursor(GuestMemory& memory, std::span<const Segment> segments)
    : memory_(&memory), segments_(segments) {
    for (const Segment& segment : segments) {
        remaining_ += segment.length;
    }
}

template <class Step>
bool Cursor::advance(uint64_t length, const Step& step) {
    if (length > remaining_) {
        return false;
    }
    remaining_ -= length;
    while (length > 0) {
        const Segment& segment = segments_.front();
        const auto n = std::min<uint64_t>(length, segment.length - offset_);
        if (n > 0) {
            step(segment.address + offset_, n);
        }
        length -= n;
        offset_ += n;
        if (offset_ == segment.length) {
            segments_ = segments_.subspan(1);
            offset_ = 0;
        }
    }
    return true;
}

// The segments are RAM (Queue::pop() has checked that, and RAM stays where it is), so that the
// accesses below succeed.

bool Cursor::read(ByteSpan out) {
    return advance(out.size(), [&](Gpa address, uint64_t n) {
        std::ignore = memory_->read(address, out.first(n));
        out = out.subspan(n);
    });
}

bool Cursor::write(ConstByteSpan in) {
    return advance(in.size(), [&](Gpa address, uint64_t n) {
        std::ignore = memory_->write(address, in.first(n));
        in = in.subspan(n);
    });
}

bool Cursor::skip(uint64_t length) {
    return advance(length, [](Gpa, uint64_t) {});
}

bool Cursor::take_dma(uint64_t length, std::vector<iovec>& out) {
    return advance(length, [&](Gpa address, uint64_t n) {
        if (const auto piece = memory_->dma(address, n)) {
            out.push_back(*piece);
        }
    });
}

bool Cursor::take(uint64_t length, std::vector<Segment>& out) {
    return advance(length, [&](Gpa address, uint64_t n) {
        out.push_back({address, static_cast<uint32_t>(n)});
    });
}

}  // namespace ivmm::virtio
