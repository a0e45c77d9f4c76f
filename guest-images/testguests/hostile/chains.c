// Cases of any device: descriptor chains.

#include "hostile.h"

// A chain whose first descriptor is an indirect table at the start of the scratch memory.
static struct virtq_desc* indirect(uint64_t address, uint32_t length, unsigned flags) {
    desc(0, address, length, VIRTQ_INDIRECT | flags, 1);
    desc(1, (uint64_t)scratch + 4096, 512, 0, 0);
    return (struct virtq_desc*)scratch;
}

void loop_of_one(void) {
    desc(0, (uint64_t)scratch, 16, VIRTQ_NEXT, 0), push(0);
}

void loop_of_two(void) {
    desc(0, (uint64_t)scratch, 16, VIRTQ_NEXT, 1);
    desc(1, (uint64_t)scratch, 512, VIRTQ_NEXT | (writes() ? VIRTQ_WRITE : 0), 0);
    push(0);
}

void loop_of_all(void) {
    for (unsigned i = 0; i < SIZE; i++) desc(i, (uint64_t)scratch, 16, VIRTQ_NEXT, (i + 1) % SIZE);
    push(5);
}

void head_out_of_range(void) {
    good(), push(SIZE), push(0xffff);
}

void next_out_of_range(void) {
    desc(0, (uint64_t)scratch, 16, VIRTQ_NEXT, SIZE), push(0);
    desc(1, (uint64_t)scratch, 16, VIRTQ_NEXT, 0xffff), push(1);
}

void readable_after_writable(void) {
    desc(0, (uint64_t)scratch, 16, VIRTQ_NEXT | VIRTQ_WRITE, 1);
    desc(1, (uint64_t)scratch, 512, VIRTQ_NEXT, 2);
    desc(2, (uint64_t)scratch, 1, VIRTQ_WRITE, 0);
    push(0);
}

void all_flags(void) {
    desc(0, (uint64_t)scratch, 16, 0xffff, 1), desc(1, (uint64_t)scratch, 16, 0xfffe, 0), push(0);
}

void wrong_direction(void) {
    desc(0, (uint64_t)scratch, 512, writes() ? 0 : VIRTQ_WRITE, 0), push(0);
}

void indirect_in_indirect(void) {
    struct virtq_desc* inner = indirect((uint64_t)scratch, 32, 0);
    inner[0] = (struct virtq_desc){(uint64_t)scratch, 32, VIRTQ_INDIRECT, 0};
    push(0);
}

void indirect_and_next(void) {
    indirect((uint64_t)scratch, 32, VIRTQ_NEXT)[0] =
        (struct virtq_desc){(uint64_t)scratch, 16, VIRTQ_NEXT, 1};
    push(0);
}

void indirect_and_write(void) {
    indirect((uint64_t)scratch, 16, VIRTQ_WRITE), push(0);
}

void indirect_odd_length(void) {
    indirect((uint64_t)scratch, 23, 0), push(0);
}

void indirect_empty(void) {
    indirect((uint64_t)scratch, 0, 0), push(0);
}

void indirect_huge(void) {
    indirect((uint64_t)scratch, 0xfffffff0, 0), push(0);
}

void indirect_outside(void) {
    indirect(OUTSIDE, 64, 0), push(0);
}

void indirect_at_end(void) {
    indirect(scratch_end - 16, 64, 0), push(0);
}

void indirect_loop(void) {
    struct virtq_desc* inner = indirect((uint64_t)scratch, 32, 0);
    inner[0] = (struct virtq_desc){(uint64_t)scratch, 16, VIRTQ_NEXT, 1};
    inner[1] = (struct virtq_desc){(uint64_t)scratch, 16, VIRTQ_NEXT, 0};
    push(0);
}

void indirect_next_outside(void) {
    indirect((uint64_t)scratch, 32, 0)[0] =
        (struct virtq_desc){(uint64_t)scratch, 16, VIRTQ_NEXT, 0xffff};
    push(0);
}

void indirect_long(void)  // longer than the queue
{
    struct virtq_desc* inner = indirect((uint64_t)scratch, 65536, 0);
    for (unsigned i = 0; i < 4096; i++)
        inner[i] =
            (struct virtq_desc){(uint64_t)scratch + 65536, 1,
                                VIRTQ_NEXT | (writes() && i ? VIRTQ_WRITE : 0), (uint16_t)(i + 1)};
    inner[4095].flags &= (uint16_t)~VIRTQ_NEXT;
    push(0);
}
