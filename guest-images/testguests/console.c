// A virtio console: writes text= (hello) and a newline to it, then sends back every byte that comes
// in, until a byte 4 (end of transmission) or for seconds= (0: no limit). The serial port tells how
// many bytes went each way.

#include "guest.h"
#include "irq.h"
#include "virtio.h"

#define BUFFERS 8
#define BUFFER_SIZE 512
#define WAIT_NS 1000000000ull

const char guest_name[] = "console";

static struct virtio_device device;
static struct virtq receive, transmit;
static uint64_t sent;

static bool send(const void* data, uint32_t length) {
    virtq_add(&transmit, &(struct buffer){(void*)data, length, false}, 1, &transmit);
    virtq_kick(&transmit);
    sent += length;
    return virtq_wait(&transmit, NULL, 10 * WAIT_NS) != NULL;
}

static void offer(void* data) {
    virtq_add(&receive, &(struct buffer){data, BUFFER_SIZE, true}, 1, data);
}

const char* guest_main(void) {
    if (!virtio_find(&device, VIRTIO_CONSOLE, 0)) return "no virtio-console device";
    const char* failure = virtio_begin(&device, VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_IDX);
    if (!failure) failure = virtq_init(&receive, &device, 0, BUFFERS, false);
    if (!failure)
        failure = virtq_init(&transmit, &device, 1, BUFFERS,
                             true);  // answered at once: no interrupt wanted
    if (failure) return failure;
    virtio_start(&device);

    for (unsigned i = 0; i < BUFFERS; i++) offer(allocate(BUFFER_SIZE, 64));
    virtq_kick(&receive);

    const char* text = arg_string("text", "hello");
    if (!send(text, (uint32_t)strlen(text)) || !send("\n", 1)) return "transmit timeout";
    say("ready=1");

    const uint64_t seconds = arg_number("seconds", 0), end = now_ns() + seconds * 1000000000;
    uint64_t received = 0;
    for (bool over = false; !over && (seconds == 0 || now_ns() < end);) {
        uint32_t length = 0;
        uint8_t* data = virtq_wait(&receive, &length, WAIT_NS);
        if (!data) continue;
        if (length > BUFFER_SIZE) return "length";
        received += length;
        for (uint32_t i = 0; i < length; i++) over |= data[i] == 4;
        if (!send(data, length)) return "transmit timeout";
        offer(data);
        virtq_kick(&receive);
    }
    say("received=%u sent=%u interrupts=%u", received, sent, irq_count[device.vector]);
    return NULL;
}
