// A network card: drives the first virtio-net device. op= picks what is done (echo):
//   echo   answers ARP, ICMP echo and UDP (each datagram goes back to its sender) for
//          ip= (10.0.2.15)
//   rx     only counts what comes in
//   tx     sends n= (1000) UDP broadcasts in frames of size= (64) bytes without FCS, qd= (32) under
//          way, each with its number in the first 8 bytes of the payload, big-endian
// mrg= (1), event_idx= (1), indirect= (1): taken if offered. poll= (0: interrupts). echo and rx end
// after seconds= (0: never) or n= frames.
// Prints mac and features first. echo and rx print their counts every interval_ms= (1000) in which
// something came, and at the end: frames, bytes, merged (frames in more than one buffer), arp,
// icmp, udp, dropped (none of these), bad (malformed), sent, interrupts. tx prints n, size, us,
// fps, mbps, notifications, interrupts.

#include "guest.h"
#include "irq.h"
#include "virtio.h"

#define F_MAC (1ull << 5)
#define F_MRG_RXBUF (1ull << 15)

#define HEADER_SIZE 12  // virtio_net_hdr, with num_buffers
#define HEADER_NUM_BUFFERS 10
#define FRAME_MAX 65536
#define ANSWER_MAX 9216
#define BUFFER_MERGED 2048  // small, so that longer frames do need several
#define BUFFER_WHOLE 2048
#define BUFFERS 128
#define TIMEOUT_NS 10000000000
#define WAIT_NS 100000000

#define ETHER 14
#define ETHER_TYPE_IP 0x0800
#define ETHER_TYPE_ARP 0x0806
#define IP_ICMP 1
#define IP_UDP 17

const char guest_name[] = "net";

static struct virtio_device device;
static struct virtq receive, transmit;
static uint8_t mac[6], ip[4];
static struct { uint64_t frames, bytes, merged, arp, icmp, udp, dropped, bad, sent; } count;

struct slot  // of a frame to send
{
    bool busy;
    uint8_t* data;  // header and frame
};
static struct slot slots[BUFFERS];

static uint16_t get16(const uint8_t* p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t* p, unsigned value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void swap(uint8_t* a, uint8_t* b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const uint8_t t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

static unsigned checksum(const uint8_t* data, size_t size) {
    uint64_t sum = 0;
    for (size_t i = 0; i + 1 < size; i += 2) sum += get16(data + i);
    if (size & 1) sum += (unsigned)data[size - 1] << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned)~sum & 0xffff;
}

static void reap(void) {
    struct slot* slot;
    while ((slot = virtq_take(&transmit, NULL))) slot->busy = false;
}

static struct slot* free_slot(void) {
    for (const uint64_t end = now_ns() + TIMEOUT_NS;;) {
        for (unsigned i = 0; i < BUFFERS; i++)
            if (!slots[i].busy) return &slots[i];
        virtq_kick(&transmit);
        reap();
        if (now_ns() > end) finish("transmit timeout");
    }
}

static void send(struct slot* slot, size_t size) {
    memset(slot->data, 0, HEADER_SIZE);
    slot->busy = true;
    if (!virtq_add(&transmit, &(struct buffer){slot->data, (uint32_t)(HEADER_SIZE + size), false},
                   1, slot))
        finish("transmit queue too small");
    count.sent++;
}

// --- answers: each turns the request in place; false: nothing to say ----

static bool answer_arp(uint8_t* arp, size_t size) {
    static const uint8_t request[] = {0, 1, 8, 0, 6, 4, 0, 1};
    if (size < 28) return count.bad++, false;
    if (memcmp(arp, request, sizeof request) != 0 || memcmp(arp + 24, ip, 4) != 0)
        return count.dropped++, false;
    count.arp++;
    arp[7] = 2;
    memcpy(arp + 18, arp + 8, 10);
    memcpy(arp + 8, mac, 6);
    memcpy(arp + 14, ip, 4);
    return true;
}

static bool answer_ip(uint8_t* packet, size_t size) {
    const size_t header = size ? (packet[0] & 15u) * 4 : 0;
    if (size < 20 || packet[0] >> 4 != 4 || header < 20 || get16(packet + 2) > size ||
        get16(packet + 2) < header + 8 || checksum(packet, header) != 0)
        return count.bad++, false;
    if (memcmp(packet + 16, ip, 4) != 0) return count.dropped++, false;
    uint8_t* payload = packet + header;
    const size_t length = get16(packet + 2) - header;
    if (packet[9] == IP_ICMP && payload[0] == 8) {
        count.icmp++;
        payload[0] = 0;
        put16(payload + 2, 0);
        put16(payload + 2, checksum(payload, length));
    } else if (packet[9] == IP_UDP) {
        count.udp++;
        swap(payload, payload + 2,
             2);  // the checksum stays right when source and destination change places
    } else {
        return count.dropped++, false;
    }
    swap(packet + 12, packet + 16, 4);
    packet[8] = 64;
    put16(packet + 10, 0);
    put16(packet + 10, checksum(packet, header));
    return true;
}

static void answer(const uint8_t* frame, size_t size) {
    if (size < ETHER || size > ANSWER_MAX) {
        count.bad++;
        return;
    }
    struct slot* slot = free_slot();
    uint8_t* reply = slot->data + HEADER_SIZE;
    memcpy(reply, frame, size);
    const unsigned type = get16(reply + 12);
    bool wanted = false;
    if (type == ETHER_TYPE_ARP)
        wanted = answer_arp(reply + ETHER, size - ETHER);
    else if (type == ETHER_TYPE_IP)
        wanted = answer_ip(reply + ETHER, size - ETHER);
    else
        count.dropped++;
    if (!wanted) return;
    memcpy(reply, reply + 6, 6);
    memcpy(reply + 6, mac, 6);
    send(slot, size);
}

// --- receiving ----

static size_t buffer_size(void) {
    return device.features & F_MRG_RXBUF ? BUFFER_MERGED : BUFFER_WHOLE;
}

static void offer(void* buffer) {
    virtq_add(&receive, &(struct buffer){buffer, (uint32_t)buffer_size(), true}, 1, buffer);
}

// Puts a frame together that starts in `buffer`; its size, or 0 if the device broke a rule.
static size_t gather(uint8_t* frame, uint8_t* buffer, uint32_t length) {
    if (length < HEADER_SIZE || length > buffer_size()) return 0;
    const unsigned buffers = device.features & F_MRG_RXBUF
                                 ? buffer[HEADER_NUM_BUFFERS] | buffer[HEADER_NUM_BUFFERS + 1] << 8
                                 : 1;
    size_t size = length - HEADER_SIZE;
    memcpy(frame, buffer + HEADER_SIZE, size);
    offer(buffer);
    for (unsigned i = 1; i < buffers; i++) {
        uint8_t* more = virtq_take(&receive, &length);  // all of a frame's buffers come at once
        if (!more || length > buffer_size() || size + length > FRAME_MAX) return 0;
        memcpy(frame + size, more, length);
        size += length;
        offer(more);
    }
    count.merged += buffers > 1;
    return buffers ? size : 0;
}

static void report(void) {
    say("frames=%u bytes=%u merged=%u arp=%u icmp=%u udp=%u dropped=%u bad=%u sent=%u "
        "interrupts=%u",
        count.frames, count.bytes, count.merged, count.arp, count.icmp, count.udp, count.dropped,
        count.bad, count.sent, irq_count[device.vector]);
}

static const char* serve(bool answers) {
    static uint8_t frame[FRAME_MAX];
    const uint64_t n = arg_number("n", UINT64_MAX), seconds = arg_number("seconds", 0),
                   start = now_ns();
    const uint64_t interval = arg_number("interval_ms", 1000) * 1000000;
    uint64_t reported = start, reported_frames = 0;
    for (unsigned i = 0; i < min(receive.size, BUFFERS); i++) offer(allocate(buffer_size(), 64));
    virtq_kick(&receive);
    while (count.frames < n && (seconds == 0 || now_ns() - start < seconds * 1000000000)) {
        uint32_t length = 0;
        uint8_t* buffer = virtq_wait(&receive, &length, WAIT_NS);
        while (buffer && count.frames < n) {
            const size_t size = gather(frame, buffer, length);
            if (size == 0) return "a received frame breaks the rules";
            count.frames++;
            count.bytes += size;
            if (answers) answer(frame, size);
            buffer = virtq_take(&receive, &length);
        }
        virtq_kick(&transmit);
        virtq_kick(&receive);
        reap();
        if (count.frames != reported_frames && now_ns() - reported >= interval) {
            report();
            reported = now_ns();
            reported_frames = count.frames;
        }
    }
    report();
    return NULL;
}

// --- sending ----

static const char* flood(void) {
    const uint64_t n = arg_number("n", 1000),
                   depth = min(max(arg_number("qd", 32), 1), min(BUFFERS, transmit.size));
    const size_t size = min(max(arg_number("size", 64), ETHER + 20 + 8 + 8), 1514);
    for (unsigned i = 0; i < depth; i++) {
        uint8_t *frame = slots[i].data + HEADER_SIZE, *packet = frame + ETHER;
        memset(frame, 0xff, 6);
        memcpy(frame + 6, mac, 6);
        put16(frame + 12, ETHER_TYPE_IP);
        packet[0] = 0x45;
        put16(packet + 2, (unsigned)(size - ETHER));
        packet[8] = 64;
        packet[9] = IP_UDP;
        memcpy(packet + 12, ip, 4);
        memset(packet + 16, 0xff, 4);
        put16(packet + 10, checksum(packet, 20));
        put16(packet + 20, 9);
        put16(packet + 22, 9);
        put16(packet + 24, (unsigned)(size - ETHER - 20));  // no UDP checksum: 0
    }
    const uint64_t start = now_ns();
    uint64_t done = 0;
    struct slot* slot = &slots[0];
    while (done < n) {
        while (slot && count.sent < n) {
            for (unsigned i = 0; i < 8; i++)
                slot->data[HEADER_SIZE + ETHER + 28 + i] = (uint8_t)(count.sent >> (56 - 8 * i));
            send(slot, size);
            slot = count.sent < depth ? &slots[count.sent] : virtq_take(&transmit, NULL);
            done += slot && count.sent >= depth;
        }
        virtq_kick(&transmit);
        if (done >= n) break;
        slot = virtq_wait(&transmit, NULL, TIMEOUT_NS);
        if (!slot) return "transmit timeout";
        done++;
    }
    const uint64_t us = max((now_ns() - start) / 1000, 1);
    say("op=tx n=%u size=%u us=%u fps=%u mbps=%f notifications=%u interrupts=%u", n, (uint64_t)size,
        us, n * 1000000 / us, n * size * 1000 / us, transmit.notifications,
        irq_count[device.vector]);
    return NULL;
}

static const char* open_device(bool transmit_polls) {
    uint64_t wanted = F_MAC;
    if (arg_number("mrg", 1)) wanted |= F_MRG_RXBUF;
    if (arg_number("event_idx", 1)) wanted |= VIRTIO_F_EVENT_IDX;
    if (arg_number("indirect", 1)) wanted |= VIRTIO_F_INDIRECT;
    if (!virtio_find(&device, VIRTIO_NET, 0)) return "no virtio-net device";
    const char* failure = virtio_begin(&device, wanted);
    if (!failure) failure = virtq_init(&receive, &device, 0, VIRTQ_MAX, arg_number("poll", 0));
    if (!failure) failure = virtq_init(&transmit, &device, 1, VIRTQ_MAX, transmit_polls);
    return failure;
}

const char* guest_main(void) {
    char op[16] = "echo";
    const char* position = NULL;
    arg_next("op", &position, op, sizeof op);
    const bool sends = same(op, "tx");
    const char* failure = open_device(
        !sends || arg_number("poll", 0));  // answers are reaped when the next frame comes
    if (failure) return failure;
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)(virtio_read(&device, VIRTIO_CONFIG + (i & 4)) >> 8 * (i & 3));
    const char* p = arg_string("ip", "10.0.2.15");
    for (unsigned i = 0; i < 4; i++, p += *p == '.') ip[i] = (uint8_t)parse_number(&p);
    for (unsigned i = 0; i < BUFFERS; i++) slots[i].data = allocate(HEADER_SIZE + ANSWER_MAX, 64);
    virtio_start(&device);
    say_part("guest net: mac=");
    for (unsigned i = 0; i < 6; i++)
        say_part("%c%c%s", "0123456789abcdef"[mac[i] >> 4], "0123456789abcdef"[mac[i] & 15],
                 i < 5 ? ":" : "");
    say_part(" features=%x mrg=%u\n", device.features,
             (uint64_t) !!(device.features & F_MRG_RXBUF));
    if (sends) return flood();
    return same(op, "echo") || same(op, "rx") ? serve(same(op, "echo")) : "unknown op";
}
