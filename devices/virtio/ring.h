#pragma once

#include <cstdint>

/// The split virtqueue as it lies in guest memory (virtio 1.2, 2.7), and the features that the
/// transport offers for every device. The kernel's header for it is no C++.
namespace ivmm::virtio {

inline constexpr uint64_t kFeatureIndirect = uint64_t{1} << 28;
inline constexpr uint64_t kFeatureEventIdx = uint64_t{1} << 29;
inline constexpr uint64_t kFeatureVersion1 = uint64_t{1} << 32;

/// virtio 1.2, 2.7.5.
struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);

inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;

struct UsedElement {
    uint32_t head;
    uint32_t written;
};

// Offsets in the available and in the used ring (2.7.6, 2.7.8).
inline constexpr uint64_t kRingFlags = 0;
inline constexpr uint64_t kRingIndex = 2;
inline constexpr uint64_t kRingEntries = 4;

inline constexpr uint16_t kAvailableNoInterrupt = 1;
inline constexpr uint16_t kUsedNoNotify = 1;

/// Where the driver puts used_event, after the available ring (2.7.7).
constexpr uint64_t used_event_offset(uint16_t size) {
    return kRingEntries + 2 * uint64_t{size};
}
/// Where the device puts avail_event, after the used ring (2.7.10).
constexpr uint64_t avail_event_offset(uint16_t size) {
    return kRingEntries + 8 * uint64_t{size};
}

/// Whether an index that went from `before` to `now` has passed `event` (2.7.7.2, 2.7.10).
constexpr bool passes_event(uint16_t event, uint16_t now, uint16_t before) {
    return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

}  // namespace ivmm::virtio
