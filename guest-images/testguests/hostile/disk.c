// Cases of disks.

#include "hostile.h"

void blk_short_header(void) {
    blk_header(0, 0);
    desc(0, (uint64_t)scratch, 8, VIRTQ_NEXT, 1),
        desc(1, (uint64_t)scratch + 64, 1, VIRTQ_WRITE, 0), push(0);
}

void blk_only_header(void) {
    blk_header(0, 0), desc(0, (uint64_t)scratch, 16, 0, 0), push(0);
}

void blk_split_header(void)  // legal: one byte a descriptor
{
    blk_header(0, 0);
    for (unsigned i = 0; i < 16; i++) desc(i, (uint64_t)scratch + i, 1, VIRTQ_NEXT, i + 1);
    desc(16, (uint64_t)scratch + 4096, 512, VIRTQ_NEXT | VIRTQ_WRITE, 17);
    desc(17, (uint64_t)scratch + 64, 1, VIRTQ_WRITE, 0);
    push(0);
}

static void blk_status(uint64_t address, uint32_t length, unsigned flags) {
    blk_header(0, 0);
    desc(0, (uint64_t)scratch, 16, VIRTQ_NEXT, 1);
    desc(1, (uint64_t)scratch + 4096, 512, VIRTQ_NEXT | VIRTQ_WRITE, 2);
    desc(2, address, length, flags, 0);
    push(0);
}

void blk_status_readable(void) {
    blk_status((uint64_t)scratch + 64, 1, 0);
}

void blk_status_empty(void) {
    blk_status((uint64_t)scratch + 64, 0, VIRTQ_WRITE);
}

void blk_status_outside(void) {
    blk_status(OUTSIDE, 1, VIRTQ_WRITE);
}

void blk_unknown_types(void) {
    for (uint32_t type = 2; type < 40; type++)
        if (type != 4) blk_request(type, 0, (uint64_t)scratch + 4096, 512, type & 1);
    blk_request(0xffffffff, 0, (uint64_t)scratch + 4096, 512, true);
}

void blk_sector_max(void) {
    blk_request(0, -1ull, (uint64_t)scratch + 4096, 512, true);
}

void blk_sector_overflow(void) {
    blk_request(0, 1ull << 55, (uint64_t)scratch + 4096, 4096, true);
}

void blk_over_end(void) {
    const uint64_t capacity = virtio_read(&device, VIRTIO_CONFIG) |
                              (uint64_t)virtio_read(&device, VIRTIO_CONFIG + 4) << 32;
    blk_request(0, capacity, (uint64_t)scratch + 4096, 512, true);
    blk_request(0, capacity - 1, (uint64_t)scratch + 4096, 1024, true);
    blk_request(1, capacity - 1, (uint64_t)scratch + 4096, 1024, false);
}

void blk_odd_length(void) {
    blk_request(0, 0, (uint64_t)scratch + 4096, 511, true);
}

void blk_wrong_direction(void) {
    blk_request(0, 0, (uint64_t)scratch + 4096, 512, false);
    blk_request(1, -1ull, (uint64_t)scratch + 4096, 512, true);
}

void blk_flush_with_data(void) {
    blk_request(4, 77, (uint64_t)scratch + 4096, 512, false);
}

void blk_id_short(void) {
    blk_request(8, 0, (uint64_t)scratch + 4096, 3, true);
}

void blk_id_long(void) {
    blk_request(8, 0, (uint64_t)scratch + 4096, 100000, true);
}

void blk_ranges(
    void)  // discard, secure erase and write zeroes with segments that no device may act on
{
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    }* range = (void*)(scratch + 4096);
    for (uint32_t type = 11; type <= 14; type++) {
        range->sector = -1ull, range->sectors = 8, range->flags = 0;
        blk_request(type, 0, (uint64_t)range, 16, false);
        range->sector = 1ull << 60, range->sectors = 0xffffffff;
        blk_request(type, 0, (uint64_t)range, 16, false);
        range->flags = 0xffffffff;
        blk_request(type, 0, (uint64_t)range, 16, false);
        blk_request(type, 0, (uint64_t)range, 8, false);
        blk_request(type, 0, (uint64_t)range, 0, false);
        blk_request(type, 0, (uint64_t)range, 16 * 4096, false);
        blk_request(type, 0, (uint64_t)range, 16, true);
        blk_request(type, 0, OUTSIDE, 16, false);
    }
}
