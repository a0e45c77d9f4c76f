// Cases of network cards and consoles.

#include "hostile.h"

static void net_send(uint8_t flags, uint8_t gso, uint16_t header_length, uint16_t gso_size,
                     uint16_t start, uint16_t offset, uint32_t size) {
    uint16_t* words = (uint16_t*)scratch;
    memset(scratch, 0, 128);
    scratch[0] = flags, scratch[1] = gso;
    words[1] = header_length, words[2] = gso_size, words[3] = start, words[4] = offset,
    words[5] = 0xffff;
    memset(scratch + 12, 0xff, 6);
    scratch[12 + 12] = 8, scratch[12 + 14] = 0x45;
    desc(0, (uint64_t)scratch, 12 + size, 0, 0), push(0);
}

void net_short_header(void) {
    desc(0, (uint64_t)scratch, 5, 0, 0), push(0);
}

void net_empty_frame(void) {
    net_send(0, 0, 0, 0, 0, 0, 0);
}

void net_tiny_frame(void) {
    net_send(0, 0, 0, 0, 0, 0, 3);
}

void net_long_frame(void) {
    net_send(0, 0, 0, 0, 0, 0, 900000);
}

void net_checksum_lies(void) {
    net_send(1, 0, 0, 0, 0xffff, 0xffff, 60);
    net_send(1, 0, 0, 0, 59, 1, 60);
    net_send(1, 0, 0, 0, 60, 0, 60);
    net_send(0xff, 0, 0, 0, 34, 16, 60);
}

void net_segments_lie(void) {
    for (unsigned gso = 0; gso < 256; gso += gso < 8 ? 1 : 31) {
        net_send(1, (uint8_t)gso, 0xffff, 0, 34, 16, 4000);
        net_send(0, (uint8_t)gso, 0, 1, 0xffff, 0xffff, 4000);
        net_send(1, (uint8_t)gso, 54, 0xffff, 34, 16, 60);
    }
}

static void net_receive(uint64_t address, uint32_t length, unsigned flags) {
    queue_index = 0;
    configure_places((uint64_t)table, (uint64_t)avail, (uint64_t)used);
    for (unsigned i = 0; i < SIZE; i++) desc(i, address, length, flags, i), push(i);
    spin_ns(wait_ns);
}

void net_receive_tiny(void) {
    net_receive((uint64_t)scratch, 1, VIRTQ_WRITE);
}

void net_receive_readable(void) {
    net_receive((uint64_t)scratch, 2048, 0);
}

void net_receive_outside(void) {
    net_receive(OUTSIDE, 2048, VIRTQ_WRITE);
}

void net_control(
    void)  // the control queue, if it is there, is the first after the pairs; try them all
{
    for (queue_index = 2; queue_index < 4; queue_index++) {
        configure_places((uint64_t)table, (uint64_t)avail, (uint64_t)used);
        avail->index = 0;
        for (unsigned command = 0; command < 64; command++) {
            scratch[0] = (uint8_t)(command / 8), scratch[1] = (uint8_t)(command % 8);
            desc(0, (uint64_t)scratch, 2, VIRTQ_NEXT, 1);
            desc(1, (uint64_t)scratch + 4096, (uint32_t)random_below(70000), VIRTQ_NEXT, 2);
            desc(2, (uint64_t)scratch + 64, (uint32_t)random_below(3), VIRTQ_WRITE, 0);
            push(0);
        }
    }
}

void console_receive_readable(void) {
    queue_index = 0;
    configure_places((uint64_t)table, (uint64_t)avail, (uint64_t)used);
    desc(0, (uint64_t)scratch, 512, 0, 0), push(0);
}
