// How requests are built, right and wrong ones.

#include "hostile.h"

struct virtio_device device;
unsigned kind, queue_index;
struct random rng;
uint64_t rounds, wait_ns;
struct virtq_desc* table;
volatile struct virtq_avail* avail;
volatile struct virtq_used* used;
uint8_t* scratch;
uint64_t scratch_end;
const char* failure;

uint64_t random_below(uint64_t n) {
    return random_next(&rng) % n;
}

void desc(unsigned i, uint64_t address, uint32_t length, unsigned flags, unsigned next) {
    table[i] = (struct virtq_desc){address, length, (uint16_t)flags, (uint16_t)next};
}

void kick(void) {
    fence();
    virtio_write(&device, VIRTIO_QUEUE_NOTIFY, queue_index);
}

void push(unsigned head) {
    avail->ring[avail->index % SIZE] = (uint16_t)head;
    fence();
    avail->index++;
    kick();
}

void configure(uint64_t features, uint32_t number, uint64_t desc_at, uint64_t avail_at,
               uint64_t used_at) {
    virtio_reset(&device);
    virtio_write(&device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_write(&device, VIRTIO_DRIVER_FEATURES_SELECT, 0);
    virtio_write(&device, VIRTIO_DRIVER_FEATURES, (uint32_t)features);
    virtio_write(&device, VIRTIO_DRIVER_FEATURES_SELECT, 1);
    virtio_write(&device, VIRTIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
    virtio_write(&device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    virtio_write(&device, VIRTIO_QUEUE_SELECT, queue_index);
    virtio_write(&device, VIRTIO_QUEUE_NUM, number);
    virtio_write64(&device, VIRTIO_QUEUE_DESC, desc_at);
    virtio_write64(&device, VIRTIO_QUEUE_AVAIL, avail_at);
    virtio_write64(&device, VIRTIO_QUEUE_USED, used_at);
    virtio_write(&device, VIRTIO_QUEUE_READY, 1);
    virtio_start(&device);
}

void configure_places(uint64_t desc_at, uint64_t avail_at, uint64_t used_at) {
    configure(device.offered & ~VIRTIO_F_EVENT_IDX, SIZE, desc_at, avail_at, used_at);
}

bool writes(void) {
    return kind == BLK || kind == RNG;
}

void blk_header(uint32_t type, uint64_t sector) {
    *(uint32_t*)scratch = type;
    *(uint32_t*)(scratch + 4) = 0;
    *(uint64_t*)(scratch + 8) = sector;
}

void blk_request(uint32_t type, uint64_t sector, uint64_t data, uint32_t length, bool writable) {
    blk_header(type, sector);
    desc(0, (uint64_t)scratch, 16, VIRTQ_NEXT, 1);
    desc(1, data, length, VIRTQ_NEXT | (writable ? VIRTQ_WRITE : 0), 2);
    desc(2, (uint64_t)scratch + 64, 1, VIRTQ_WRITE, 0);
    push(0);
}

void buffer(uint64_t address, uint32_t length) {
    memset(scratch, 0, 64);
    if (kind == BLK)
        blk_request(0, 0, address, length, true);
    else if (kind == NET)
        desc(0, (uint64_t)scratch, 12, VIRTQ_NEXT, 1), desc(1, address, length, 0, 0), push(0);
    else
        desc(0, address, length, writes() ? VIRTQ_WRITE : 0, 0), push(0);
}

void good(void) {
    buffer((uint64_t)scratch + 4096, 512);
}
