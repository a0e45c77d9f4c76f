// What the cases of the hostile guest share: the device and the queue under attack, and ways to
// build chains.
#pragma once

#include "cpu.h"
#include "guest.h"
#include "irq.h"
#include "virtio.h"

#define SIZE 64  // of the queue
#define SCRATCH (1u << 20)
#define OUTSIDE 0x7000000000  // neither RAM nor device on any machine that this guest meets
#define HOLE 0xd00ff000

#define BLK 1
#define NET 2
#define RNG 4
#define CONSOLE 8
#define ALL 15

extern struct virtio_device device;
extern unsigned kind;  // BLK …
extern unsigned queue_index;
extern struct random rng;
extern uint64_t rounds, wait_ns;

// The queue, and memory at the end of RAM that may be destroyed: what a device writes too far ends
// there.
extern struct virtq_desc* table;
extern volatile struct virtq_avail* avail;
extern volatile struct virtq_used* used;
extern uint8_t* scratch;
extern uint64_t scratch_end;
extern const char* failure;  // of the case

uint64_t random_below(uint64_t n);
bool writes(void);  // whether this device's buffers are for it to write

// Makes the device run with this queue, and with features as given.
void configure(uint64_t features, uint32_t number, uint64_t desc_at, uint64_t avail_at,
               uint64_t used_at);
void configure_places(uint64_t desc_at, uint64_t avail_at,
                      uint64_t used_at);  // of the usual size and features

void desc(unsigned i, uint64_t address, uint32_t length, unsigned flags, unsigned next);
void kick(void);
void push(unsigned head);  // makes the chain available and kicks
void buffer(uint64_t address,
            uint32_t length);  // pushes a request that is right but for its data buffer
void blk_header(uint32_t type, uint64_t sector);  // at the start of the scratch memory
void blk_request(uint32_t type, uint64_t sector, uint64_t data, uint32_t length, bool writable);

// The cases.
void good(void);
void loop_of_one(void);
void loop_of_two(void);
void loop_of_all(void);
void head_out_of_range(void);
void next_out_of_range(void);
void readable_after_writable(void);
void all_flags(void);
void wrong_direction(void);
void indirect_in_indirect(void);
void indirect_and_next(void);
void indirect_and_write(void);
void indirect_odd_length(void);
void indirect_empty(void);
void indirect_huge(void);
void indirect_outside(void);
void indirect_at_end(void);
void indirect_loop(void);
void indirect_next_outside(void);
void indirect_long(void);
void length_zero(void);
void length_huge(void);
void address_wraps(void);
void address_outside(void);
void address_in_hole(void);
void address_of_device(void);
void address_of_apic(void);
void over_end_of_ram(void);
void over_4g(void);
void sum_overflows(void);
void buffer_on_rings(void);
void avail_jumps(void);
void avail_jumps_far(void);
void avail_goes_back(void);
void avail_moves_always(void);
void same_head_twice(void);
void used_on_avail(void);
void used_on_desc(void);
void all_rings_one(void);
void rings_odd(void);
void desc_outside(void);
void avail_outside(void);
void used_outside(void);
void used_in_hole(void);
void used_over_end(void);
void avail_over_end(void);
void rings_wrap(void);
void numbers(void);
void event_index_lies(void);
void notify_wrong(void);
void notify_early(void);
void no_features(void);
void all_features(void);
void only_driver_ok(void);
void no_queue(void);
void no_such_queue(void);
void change_while_running(void);
void failed_status(void);
void registers_all_widths(void);
void registers_unaligned(void);
void registers_random(void);
void config_far(void);
void reset_again(void);
void reset_in_flight(void);
void random_chains(void);
void blk_short_header(void);
void blk_only_header(void);
void blk_split_header(void);
void blk_status_readable(void);
void blk_status_empty(void);
void blk_status_outside(void);
void blk_unknown_types(void);
void blk_sector_max(void);
void blk_sector_overflow(void);
void blk_over_end(void);
void blk_odd_length(void);
void blk_wrong_direction(void);
void blk_flush_with_data(void);
void blk_id_short(void);
void blk_id_long(void);
void blk_ranges(void);
void net_short_header(void);
void net_empty_frame(void);
void net_tiny_frame(void);
void net_long_frame(void);
void net_checksum_lies(void);
void net_segments_lie(void);
void net_receive_tiny(void);
void net_receive_readable(void);
void net_receive_outside(void);
void net_control(void);
void console_receive_readable(void);
