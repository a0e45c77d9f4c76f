#include "virtio.h"

#include "cpu.h"
#include "guest.h"
#include "irq.h"

#define MAGIC 0x74726976

uint32_t virtio_read(const struct virtio_device* device, unsigned reg) {
    return mmio_read32(device->base + reg);
}

void virtio_write(const struct virtio_device* device, unsigned reg, uint32_t value) {
    mmio_write32(device->base + reg, value);
}

void virtio_write64(const struct virtio_device* device, unsigned reg, uint64_t value) {
    virtio_write(device, reg, (uint32_t)value);
    virtio_write(device, reg + 4, (uint32_t)(value >> 32));
}

bool virtio_find(struct virtio_device* device, uint32_t id, unsigned index) {
    const char* position = NULL;
    char word[64];
    while (arg_next("virtio_mmio.device", &position, word, sizeof word)) {  // SIZE@BASE:IRQ
        const char* p = word;
        parse_number(&p);
        if (*p++ != '@') continue;
        *device = (struct virtio_device){.base = parse_number(&p)};
        if (*p++ != ':') continue;
        device->irq = (unsigned)parse_number(&p);
        device->vector = VEC_IRQ + device->irq;
        if (device->irq >= VEC_IPI - VEC_IRQ || virtio_read(device, VIRTIO_MAGIC) != MAGIC)
            continue;
        device->id = virtio_read(device, VIRTIO_DEVICE_ID);
        if (device->id != 0 && (id == VIRTIO_ANY || id == device->id) && index-- == 0) return true;
    }
    return false;
}

uint64_t virtio_offered(const struct virtio_device* device) {
    virtio_write(device, VIRTIO_DEVICE_FEATURES_SELECT, 0);
    const uint64_t low = virtio_read(device, VIRTIO_DEVICE_FEATURES);
    virtio_write(device, VIRTIO_DEVICE_FEATURES_SELECT, 1);
    return (uint64_t)virtio_read(device, VIRTIO_DEVICE_FEATURES) << 32 | low;
}

void virtio_reset(struct virtio_device* device) {
    virtio_write(device, VIRTIO_STATUS, 0);
    for (unsigned i = 0; virtio_read(device, VIRTIO_STATUS) != 0 && i < 1000; i++) relax();
}

const char* virtio_begin(struct virtio_device* device, uint64_t wanted) {
    if (virtio_read(device, VIRTIO_VERSION) != 2) return "virtio-mmio version is not 2";
    virtio_reset(device);
    virtio_write(device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    device->offered = virtio_offered(device);
    if (!(device->offered & VIRTIO_F_VERSION_1)) return "VERSION_1 not offered";
    device->features = device->offered & (wanted | VIRTIO_F_VERSION_1);
    virtio_write(device, VIRTIO_DRIVER_FEATURES_SELECT, 0);
    virtio_write(device, VIRTIO_DRIVER_FEATURES, (uint32_t)device->features);
    virtio_write(device, VIRTIO_DRIVER_FEATURES_SELECT, 1);
    virtio_write(device, VIRTIO_DRIVER_FEATURES, (uint32_t)(device->features >> 32));
    virtio_write(device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    if (!(virtio_read(device, VIRTIO_STATUS) & VIRTIO_FEATURES_OK)) return "features refused";
    irq_route(device->irq, device->vector);
    return NULL;
}

void virtio_start(struct virtio_device* device) {
    virtio_write(device, VIRTIO_STATUS,
                 VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

const char* virtq_init(struct virtq* queue, struct virtio_device* device, unsigned index,
                       unsigned size, bool poll) {
    virtio_write(device, VIRTIO_QUEUE_SELECT, index);
    if (virtio_read(device, VIRTIO_QUEUE_READY)) return "queue is ready already";
    const unsigned most = virtio_read(device, VIRTIO_QUEUE_NUM_MAX);
    if (most == 0) return "no such queue";
    *queue = (struct virtq){.device = device, .index = index, .poll = poll};
    queue->size = (unsigned)min(min(size, most), VIRTQ_MAX);
    queue->desc = allocate(sizeof(struct virtq_desc) * queue->size, 4096);
    queue->avail = allocate(6 + 2 * queue->size, 4096);
    queue->used = allocate(6 + 8 * queue->size, 4096);
    if (device->features & VIRTIO_F_INDIRECT)
        queue->indirect = allocate(sizeof *queue->indirect * queue->size, 4096);
    for (unsigned i = 0; i < queue->size; i++) queue->desc[i].next = (uint16_t)(i + 1);
    queue->free_count = (uint16_t)queue->size;
    queue->avail->flags = poll ? VIRTQ_NO_INTERRUPT : 0;
    virtio_write(device, VIRTIO_QUEUE_NUM, queue->size);
    virtio_write64(device, VIRTIO_QUEUE_DESC, (uint64_t)queue->desc);
    virtio_write64(device, VIRTIO_QUEUE_AVAIL, (uint64_t)queue->avail);
    virtio_write64(device, VIRTIO_QUEUE_USED, (uint64_t)queue->used);
    virtio_write(device, VIRTIO_QUEUE_READY, 1);
    return NULL;
}

static uint16_t desc_flags(const struct buffer* buffer, bool last) {
    return (uint16_t)((buffer->writable ? VIRTQ_WRITE : 0) | (last ? 0 : VIRTQ_NEXT));
}

bool virtq_add(struct virtq* queue, const struct buffer* buffers, unsigned count, void* token) {
    const uint16_t head = queue->free;
    const unsigned needed = queue->indirect ? 1 : count;
    if (queue->free_count < needed) return false;
    if (queue->indirect) {
        struct virtq_desc* table = queue->indirect[head];
        for (unsigned i = 0; i < count; i++)
            table[i] =
                (struct virtq_desc){(uint64_t)buffers[i].data, buffers[i].length,
                                    desc_flags(&buffers[i], i + 1 == count), (uint16_t)(i + 1)};
        queue->desc[head].address = (uint64_t)table;
        queue->desc[head].length = (uint32_t)(count * sizeof *table);
        queue->desc[head].flags = VIRTQ_INDIRECT;
        queue->free = queue->desc[head].next;
    } else {
        for (unsigned i = 0; i < count; i++) {  // the free list is already linked by `next`
            volatile struct virtq_desc* desc = &queue->desc[queue->free];
            desc->address = (uint64_t)buffers[i].data;
            desc->length = buffers[i].length;
            desc->flags = desc_flags(&buffers[i], i + 1 == count);
            queue->free = desc->next;
        }
    }
    queue->free_count = (uint16_t)(queue->free_count - needed);
    queue->token[head] = token;
    queue->avail->ring[queue->avail->index % queue->size] = head;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    queue->avail->index++;
    return true;
}

void virtq_kick(struct virtq* queue) {
    fence();  // the device may have gone to sleep before it could see the new index
    const uint16_t now = queue->avail->index, before = queue->kicked;
    bool needed = !(queue->used->flags & VIRTQ_NO_NOTIFY);
    if (queue->device->features & VIRTIO_F_EVENT_IDX) {
        const uint16_t event = *(volatile uint16_t*)&queue->used->ring[queue->size];
        needed = (uint16_t)(now - event - 1) < (uint16_t)(now - before);
    }
    queue->kicked = now;
    if (now == before || !needed) return;
    queue->notifications++;
    virtio_write(queue->device, VIRTIO_QUEUE_NOTIFY, queue->index);
}

void* virtq_take(struct virtq* queue, uint32_t* length) {
    if (queue->used->index == queue->seen_used) return NULL;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    const unsigned slot = queue->seen_used % queue->size;
    const uint32_t head = queue->used->ring[slot].id;
    if (head >= queue->size || !queue->token[head])
        finish("the device returned a chain that it does not have");
    if (length) *length = queue->used->ring[slot].length;
    queue->seen_used++;

    uint16_t last = (uint16_t)head, count = 1;
    while (queue->desc[last].flags & VIRTQ_NEXT) {
        last = queue->desc[last].next;
        count++;
    }
    queue->desc[last].next = queue->free;
    queue->free = (uint16_t)head;
    queue->free_count = (uint16_t)(queue->free_count + count);

    void* token = queue->token[head];
    queue->token[head] = NULL;
    return token;
}

void* virtq_wait(struct virtq* queue, uint32_t* length, uint64_t timeout_ns) {
    const uint64_t end = now_ns() + timeout_ns;
    for (;;) {
        const uint64_t interrupts = irq_count[queue->device->vector];
        void* token = virtq_take(queue, length);
        if (token) return token;
        if (now_ns() >= end) return NULL;
        if (queue->poll) {
            relax();
            continue;
        }
        *(volatile uint16_t*)&queue->avail->ring[queue->size] = queue->seen_used;  // used_event
        fence();
        if (queue->used->index != queue->seen_used) continue;
        // The interrupt status is not read: acknowledging what is not pending does nothing, and a
        // read is an exit.
        irq_wait(queue->device->vector, interrupts, queue->device->base + VIRTIO_INTERRUPT_ACK,
                 timeout_ns);
    }
}
