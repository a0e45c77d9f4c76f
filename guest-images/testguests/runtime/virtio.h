// The driver side of virtio-mmio version 2 and of split virtqueues.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Registers.
#define VIRTIO_MAGIC 0x000
#define VIRTIO_VERSION 0x004
#define VIRTIO_DEVICE_ID 0x008
#define VIRTIO_DEVICE_FEATURES 0x010
#define VIRTIO_DEVICE_FEATURES_SELECT 0x014
#define VIRTIO_DRIVER_FEATURES 0x020
#define VIRTIO_DRIVER_FEATURES_SELECT 0x024
#define VIRTIO_QUEUE_SELECT 0x030
#define VIRTIO_QUEUE_NUM_MAX 0x034
#define VIRTIO_QUEUE_NUM 0x038
#define VIRTIO_QUEUE_READY 0x044
#define VIRTIO_QUEUE_NOTIFY 0x050
#define VIRTIO_INTERRUPT_STATUS 0x060
#define VIRTIO_INTERRUPT_ACK 0x064
#define VIRTIO_STATUS 0x070
#define VIRTIO_QUEUE_DESC 0x080
#define VIRTIO_QUEUE_AVAIL 0x090
#define VIRTIO_QUEUE_USED 0x0a0
#define VIRTIO_CONFIG 0x100

#define VIRTIO_ACKNOWLEDGE 1
#define VIRTIO_DRIVER 2
#define VIRTIO_DRIVER_OK 4
#define VIRTIO_FEATURES_OK 8
#define VIRTIO_NEEDS_RESET 64

#define VIRTIO_ANY 0
#define VIRTIO_NET 1
#define VIRTIO_BLK 2
#define VIRTIO_CONSOLE 3
#define VIRTIO_RNG 4

#define VIRTIO_F_INDIRECT (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

#define VIRTQ_NEXT 1
#define VIRTQ_WRITE 2
#define VIRTQ_INDIRECT 4
#define VIRTQ_NO_INTERRUPT 1
#define VIRTQ_NO_NOTIFY 1

struct virtq_desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct virtq_avail {
    uint16_t flags, index, ring[];  // then used_event
};

struct virtq_used {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[];  // then avail_event
};

struct virtio_device {
    uint64_t base;
    uint32_t id;
    unsigned irq, vector;
    uint64_t offered, features;
};

#define VIRTQ_MAX 256
#define VIRTQ_INDIRECT_MAX 8

struct virtq {
    struct virtio_device* device;
    unsigned index, size;
    bool poll;  // no interrupts wanted
    volatile struct virtq_desc* desc;
    volatile struct virtq_avail* avail;
    volatile struct virtq_used* used;
    struct virtq_desc (*indirect)[VIRTQ_INDIRECT_MAX];  // one table a descriptor, NULL: not used
    uint16_t free, free_count, seen_used, kicked;
    void* token[VIRTQ_MAX];
    uint64_t notifications;  // sent
};

struct buffer {
    void* data;
    uint32_t length;
    bool writable;  // by the device
};

// The index-th device with this id in the order of the command line.
bool virtio_find(struct virtio_device* device, uint32_t id, unsigned index);
// Reset and negotiation up to FEATURES_OK; VERSION_1 is always asked for. The queues come next,
// then virtio_start().
const char* virtio_begin(struct virtio_device* device, uint64_t wanted);
void virtio_start(struct virtio_device* device);
void virtio_reset(struct virtio_device* device);

uint32_t virtio_read(const struct virtio_device* device, unsigned reg);
void virtio_write(const struct virtio_device* device, unsigned reg, uint32_t value);
void virtio_write64(const struct virtio_device* device, unsigned reg,
                    uint64_t value);  // as two halves
uint64_t virtio_offered(const struct virtio_device* device);

// A queue of at most `size`; NULL or why not.
const char* virtq_init(struct virtq* queue, struct virtio_device* device, unsigned index,
                       unsigned size, bool poll);
// Adds a chain; false if there is no room. The device sees it at once but is told only by
// virtq_kick().
bool virtq_add(struct virtq* queue, const struct buffer* buffers, unsigned count, void* token);
void virtq_kick(struct virtq* queue);
// A chain that the device is done with: its token, or NULL.
void* virtq_take(struct virtq* queue, uint32_t* length);
// The same, but waits for it (with an interrupt, or spinning if the queue polls); NULL after the
// timeout.
void* virtq_wait(struct virtq* queue, uint32_t* length, uint64_t timeout_ns);
