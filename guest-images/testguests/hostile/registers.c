// Cases of any device: registers, resets, and chance.

#include "hostile.h"

void notify_wrong(void) {
    for (unsigned i = 0; i < 32; i++) virtio_write(&device, VIRTIO_QUEUE_NOTIFY, 1u << i);
    virtio_write(&device, VIRTIO_QUEUE_NOTIFY, 0xffffffff);
}

void notify_early(void) {
    virtio_reset(&device);
    kick();
    virtio_write(&device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE);
    kick();
    virtio_write(&device, VIRTIO_QUEUE_READY, 1);
    kick();
}

void no_features(void) {
    configure(0, SIZE, (uint64_t)table, (uint64_t)avail, (uint64_t)used), good();
}

void all_features(void) {
    configure(-1ull, SIZE, (uint64_t)table, (uint64_t)avail, (uint64_t)used), good();
}

void only_driver_ok(void) {
    virtio_reset(&device);
    virtio_write(&device, VIRTIO_STATUS, VIRTIO_DRIVER_OK);
    kick();
}

void no_queue(void) {
    virtio_reset(&device);
    virtio_write(&device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_write(&device, VIRTIO_DRIVER_FEATURES_SELECT, 1);
    virtio_write(&device, VIRTIO_DRIVER_FEATURES, 1);
    virtio_write(&device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    virtio_start(&device);
    notify_wrong();
}

void no_such_queue(void) {
    virtio_write(&device, VIRTIO_QUEUE_SELECT, 0xffffffff);
    virtio_write(&device, VIRTIO_QUEUE_NUM, SIZE);
    virtio_write64(&device, VIRTIO_QUEUE_DESC, (uint64_t)table);
    virtio_write(&device, VIRTIO_QUEUE_READY, 1);
    virtio_read(&device, VIRTIO_QUEUE_NUM_MAX);
}

void change_while_running(void) {
    good();
    virtio_write(&device, VIRTIO_QUEUE_NUM, 1);
    virtio_write64(&device, VIRTIO_QUEUE_DESC, OUTSIDE);
    virtio_write64(&device, VIRTIO_QUEUE_USED, OUTSIDE);
    good();
    virtio_write(&device, VIRTIO_QUEUE_READY, 0);
    good();
    virtio_write(&device, VIRTIO_QUEUE_READY, 1);
    good();
}

void failed_status(void) {
    virtio_write(&device, VIRTIO_STATUS, 0xff), good();
}

static void access(uint64_t address, unsigned width, uint64_t value) {
    if (width == 0)
        mmio_read8(address), mmio_write8(address, (uint8_t)value);
    else if (width == 1)
        mmio_read16(address), mmio_write16(address, (uint16_t)value);
    else if (width == 2)
        mmio_read32(address), mmio_write32(address, (uint32_t)value);
    else
        mmio_read64(address), mmio_write64(address, value);
}

// Random values everywhere, but with the queues' addresses far from RAM: what the device may write
// would be this program.
static void access_safely(unsigned offset, unsigned width) {
    uint64_t value = random_next(&rng);
    if (offset >= VIRTIO_QUEUE_DESC && offset < VIRTIO_QUEUE_USED + 8) value |= 0x8000000080000000;
    if (offset >= VIRTIO_STATUS && offset < VIRTIO_STATUS + 4) value |= 1;
    access(device.base + offset, width, value);
    if (virtio_read(&device, VIRTIO_STATUS) == 0 || offset == VIRTIO_QUEUE_SELECT)
        for (unsigned reg = VIRTIO_QUEUE_DESC; reg <= VIRTIO_QUEUE_USED; reg += 0x10)
            virtio_write(&device, reg + 4, 0x80000000);
}

void registers_all_widths(void) {
    for (unsigned width = 0; width < 4; width++)
        for (unsigned offset = 0; offset < 0x140; offset += 1u << width)
            access_safely(offset, width);
}

void registers_unaligned(void) {
    for (unsigned offset = 1; offset < 0x1f8; offset += 3) access_safely(offset, 2);
}

void registers_random(void) {
    for (uint64_t i = 0; i < rounds; i++) {
        const unsigned width = (unsigned)random_below(4);
        access_safely((unsigned)random_below(0x200 >> width) << width, width);
    }
}

void config_far(void) {
    for (unsigned offset = VIRTIO_CONFIG; offset < 0x200; offset++)
        mmio_read8(device.base + offset);
    mmio_read64(device.base + 0x1fc);
}

void reset_again(void) {
    for (uint64_t i = 0; i < rounds; i++) {
        configure_places((uint64_t)table, (uint64_t)avail, (uint64_t)used);
        avail->index = 0;
        good();
    }
}

// After a reset has been read back as done, no request of before may still write.
void reset_in_flight(void) {
    uint8_t* data = scratch + 65536;
    if (kind == BLK) {
        blk_header(0, 0);
        for (unsigned i = 0; i < SIZE / 4; i++) {
            desc(3 * i, (uint64_t)scratch, 16, VIRTQ_NEXT, 3 * i + 1);
            desc(3 * i + 1, (uint64_t)data, 65536, VIRTQ_NEXT | VIRTQ_WRITE, 3 * i + 2);
            desc(3 * i + 2, (uint64_t)scratch + 64, 1, VIRTQ_WRITE, 0);
            avail->ring[i] = (uint16_t)(3 * i);
        }
    } else {
        for (unsigned i = 0; i < SIZE / 4; i++) {
            desc(i, (uint64_t)data, 1024, writes() ? VIRTQ_WRITE : 0, 0);
            avail->ring[i] = (uint16_t)i;
        }
    }
    fence();
    avail->index = SIZE / 4;
    kick();
    virtio_reset(&device);
    if (virtio_read(&device, VIRTIO_STATUS) != 0) return;
    memset(data, 0xa5, 65536);
    const uint16_t index = used->index;
    spin_ns(20000000);
    for (unsigned i = 0; i < 65536; i++)
        if (data[i] != 0xa5) failure = "data was written after the reset";
    if (used->index != index) failure = "the used ring was written after the reset";
}

void random_chains(void) {
    for (uint64_t i = 0; i < rounds; i++) {
        for (unsigned d = 0; d < SIZE; d++) {
            const uint64_t insane = random_next(&rng) | 1ull << 40;
            const bool sane = random_below(8) != 0;
            desc(d, sane ? (uint64_t)scratch + random_below(SCRATCH) : insane,
                 (uint32_t)(sane ? random_below(8192) : random_next(&rng)),
                 (unsigned)random_below(8), (unsigned)random_below(SIZE + 1));
        }
        struct virtq_desc* inner = (struct virtq_desc*)scratch;
        for (unsigned d = 0; d < 64; d++) inner[d] = table[random_below(SIZE)];
        push((unsigned)random_below(SIZE));
        if (virtio_read(&device, VIRTIO_STATUS) & VIRTIO_NEEDS_RESET) {
            configure_places((uint64_t)table, (uint64_t)avail, (uint64_t)used);
            avail->index = 0;
        }
    }
}
