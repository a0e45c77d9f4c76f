#include "devices/bus.h"

#include <algorithm>

#include "base/checked.h"

namespace ivmm {

Result<void> Bus::add(uint64_t start, uint64_t size, BusDevice& device) {
    const auto end = checked_add(start, size);
    if (size == 0 || !end) {
        return fail("device range {:#x}+{:#x} is not a range", start, size);
    }
    auto next = ranges_.lower_bound(start);
    if (next != ranges_.end() && next->first < *end) {
        return fail("device range {:#x}+{:#x} meets the one at {:#x}", start, size, next->first);
    }
    if (next != ranges_.begin()) {
        const Range& before = std::prev(next)->second;
        if (before.start + before.size > start) {
            return fail("device range {:#x}+{:#x} meets the one at {:#x}", start, size,
                        before.start);
        }
    }
    ranges_.emplace(start, Range{start, size, &device});
    return {};
}

const Bus::Range* Bus::find(uint64_t address, uint64_t size) const {
    auto next = ranges_.upper_bound(address);
    if (next == ranges_.begin()) {
        return nullptr;
    }
    const Range& range = std::prev(next)->second;
    return range_within(address - range.start, size, range.size) ? &range : nullptr;
}

void Bus::read(uint64_t address, ByteSpan data) const {
    if (const Range* range = find(address, data.size())) {
        range->device->bus_read(address - range->start, data);
    } else {
        std::fill(data.begin(), data.end(), std::byte{0xff});
    }
}

void Bus::write(uint64_t address, ConstByteSpan data) const {
    if (const Range* range = find(address, data.size())) {
        range->device->bus_write(address - range->start, data);
    }
}

}  // namespace ivmm
