// Cases of any device: addresses, lengths and rings.

#include "hostile.h"

void length_zero(void) {
    buffer((uint64_t)scratch + 4096, 0);
}

void length_huge(void) {
    buffer((uint64_t)scratch + 4096, 0xffffffff);
}

void address_wraps(void) {
    buffer(0xfffffffffffff000, 0x2000);
}

void address_outside(void) {
    buffer(OUTSIDE, 4096);
}

void address_in_hole(void) {
    buffer(HOLE, 4096);
}

void address_of_device(void) {
    buffer(device.base, 512);
}

void address_of_apic(void) {
    buffer(LAPIC_BASE, 4096);
}

void over_end_of_ram(void) {
    buffer(scratch_end - 512, 8192);
}

void over_4g(void) {
    buffer(0xfffffe00, 4096);
}

void sum_overflows(void)  // each length is right, together they pass 2^32
{
    for (unsigned i = 0; i < SIZE; i++)
        desc(i, (uint64_t)scratch, 0x7ffffff0, VIRTQ_NEXT | (writes() && i ? VIRTQ_WRITE : 0),
             i + 1);
    table[SIZE - 1].flags &= (uint16_t)~VIRTQ_NEXT;
    push(0);
}

void buffer_on_rings(void)  // the device writes over what it is reading
{
    buffer((uint64_t)table, 4096);
    buffer((uint64_t)avail, 512);
    buffer((uint64_t)used, 512);
}

static void avail_jump(unsigned by) {
    good();
    avail->index = (uint16_t)(avail->index + by);
    kick();
}

void avail_jumps(void) {
    avail_jump(SIZE + 5);
}

void avail_jumps_far(void) {
    avail_jump(32768);
}

void avail_goes_back(void) {
    avail_jump(0xffff);
}

void avail_moves_always(void) {
    for (uint64_t i = 0; i < rounds; i++) {
        avail->index = (uint16_t)random_next(&rng);
        kick();
    }
}

void same_head_twice(void) {
    for (unsigned i = 0; i < SIZE; i++) avail->ring[i] = 0;
    good();
    avail->index = SIZE;
    kick();
}

static void at(uint64_t desc_at, uint64_t avail_at, uint64_t used_at) {
    configure_places(desc_at, avail_at, used_at);
    good();
}

void used_on_avail(void) {
    at((uint64_t)table, (uint64_t)avail, (uint64_t)avail);
}

void used_on_desc(void) {
    at((uint64_t)table, (uint64_t)avail, (uint64_t)table);
}

void all_rings_one(void) {
    at((uint64_t)table, (uint64_t)table, (uint64_t)table);
}

void rings_odd(void) {
    at((uint64_t)table + 1, (uint64_t)avail + 1, (uint64_t)used + 1);
}

void desc_outside(void) {
    at(OUTSIDE, (uint64_t)avail, (uint64_t)used);
}

void avail_outside(void) {
    at((uint64_t)table, OUTSIDE, (uint64_t)used);
}

void used_outside(void) {
    at((uint64_t)table, (uint64_t)avail, OUTSIDE);
}

void used_in_hole(void) {
    at((uint64_t)table, (uint64_t)avail, HOLE);
}

void used_over_end(void) {
    at((uint64_t)table, (uint64_t)avail, scratch_end - 16);
}

void avail_over_end(void) {
    at((uint64_t)table, scratch_end - 16, (uint64_t)used);
}

void rings_wrap(void) {
    at(-16ull, -16ull, -16ull);
}

void numbers(void) {
    static const uint32_t wrong[] = {0,     3,     7,     100,   257,        1024,
                                     32768, 32769, 65535, 65536, 0x80000000, 0xffffffff};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        configure(device.offered, wrong[i], (uint64_t)table, (uint64_t)avail, (uint64_t)used);
        good();
    }
}

void event_index_lies(void) {
    configure(device.offered, SIZE, (uint64_t)table, (uint64_t)avail, (uint64_t)used);
    for (unsigned i = 0; i < 16; i++) {
        avail->ring[SIZE] = (uint16_t)random_next(&rng);
        good();
    }
}
