// Entropy: reads n= (16) times bs= (256) bytes from the virtio-rng device and shows a checksum of
// them. Fails if they are all zero or if two reads give the same.

#include "guest.h"
#include "irq.h"
#include "virtio.h"

const char guest_name[] = "rng";

const char* guest_main(void) {
    static struct virtio_device device;
    static struct virtq queue;
    if (!virtio_find(&device, VIRTIO_RNG, 0)) return "no virtio-rng device";
    const char* failure = virtio_begin(&device, VIRTIO_F_EVENT_IDX);
    if (!failure) failure = virtq_init(&queue, &device, 0, 8, arg_number("poll", 0));
    if (failure) return failure;
    virtio_start(&device);

    const uint64_t n = arg_number("n", 16), size = arg_number("bs", 256), start = now_ns();
    uint8_t* data = allocate(size, 64);
    uint64_t bytes = 0, all = 0, previous = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t length = 0;
        virtq_add(&queue, &(struct buffer){data, (uint32_t)size, true}, 1, data);
        virtq_kick(&queue);
        if (!virtq_wait(&queue, &length, 10000000000)) return "timeout";
        if (length == 0 || length > size) return "length";
        struct random mix = {length};
        uint64_t sum = 0;
        for (uint32_t b = 0; b < length; b++) {
            mix.state ^= data[b];
            sum = random_next(&mix);
            all |= data[b];
        }
        if (sum == previous) return "the same bytes twice";
        previous = sum;
        bytes += length;
    }
    say("bytes=%u checksum=%x us=%u", bytes, previous, (now_ns() - start) / 1000);
    return all ? NULL : "all zero";
}
