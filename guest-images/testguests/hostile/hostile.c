// A driver that breaks every rule it can find. The VMM has to survive, to touch nothing that is not
// the guest's, and to let the device work again after a reset. The guest only says what it saw; it
// fails if a device does not come back.
//   case= (all)     the number of one case
//   device= (all)   blk, net, rng or console; else every one that is there
//   skip=           numbers of cases to leave out, with commas: for a VMM that is known not to
//   survive seed= (1)       of the random cases, rounds= (200) their length wait_ms= (3)    how
//   long each case waits for a reaction
// Prints a line a case and device: case, name, device, status (register, before the reset), used
// (index), alive (after it); then the totals: cases, dead.

#include "hostile.h"

const char guest_name[] = "hostile";

#define CASE(devices, function) \
    { #function, function, devices }

static const struct {
    const char* name;
    void (*run)(void);
    unsigned devices;
} cases[] = {
    CASE(ALL, good),
    CASE(ALL, loop_of_one),
    CASE(ALL, loop_of_two),
    CASE(ALL, loop_of_all),
    CASE(ALL, head_out_of_range),
    CASE(ALL, next_out_of_range),
    CASE(ALL, readable_after_writable),
    CASE(ALL, all_flags),
    CASE(ALL, wrong_direction),
    CASE(ALL, indirect_in_indirect),
    CASE(ALL, indirect_and_next),
    CASE(ALL, indirect_and_write),
    CASE(ALL, indirect_odd_length),
    CASE(ALL, indirect_empty),
    CASE(ALL, indirect_huge),
    CASE(ALL, indirect_outside),
    CASE(ALL, indirect_at_end),
    CASE(ALL, indirect_loop),
    CASE(ALL, indirect_next_outside),
    CASE(ALL, indirect_long),
    CASE(ALL, length_zero),
    CASE(ALL, length_huge),
    CASE(ALL, address_wraps),
    CASE(ALL, address_outside),
    CASE(ALL, address_in_hole),
    CASE(ALL, address_of_device),
    CASE(ALL, address_of_apic),
    CASE(ALL, over_end_of_ram),
    CASE(ALL, over_4g),
    CASE(ALL, sum_overflows),
    CASE(ALL, buffer_on_rings),
    CASE(ALL, avail_jumps),
    CASE(ALL, avail_jumps_far),
    CASE(ALL, avail_goes_back),
    CASE(ALL, avail_moves_always),
    CASE(ALL, same_head_twice),
    CASE(ALL, used_on_avail),
    CASE(ALL, used_on_desc),
    CASE(ALL, all_rings_one),
    CASE(ALL, rings_odd),
    CASE(ALL, desc_outside),
    CASE(ALL, avail_outside),
    CASE(ALL, used_outside),
    CASE(ALL, used_in_hole),
    CASE(ALL, used_over_end),
    CASE(ALL, avail_over_end),
    CASE(ALL, rings_wrap),
    CASE(ALL, numbers),
    CASE(ALL, event_index_lies),
    CASE(ALL, notify_wrong),
    CASE(ALL, notify_early),
    CASE(ALL, no_features),
    CASE(ALL, all_features),
    CASE(ALL, only_driver_ok),
    CASE(ALL, no_queue),
    CASE(ALL, no_such_queue),
    CASE(ALL, change_while_running),
    CASE(ALL, failed_status),
    CASE(ALL, registers_all_widths),
    CASE(ALL, registers_unaligned),
    CASE(ALL, registers_random),
    CASE(ALL, config_far),
    CASE(ALL, reset_again),
    CASE(ALL, reset_in_flight),
    CASE(ALL, random_chains),
    CASE(BLK, blk_short_header),
    CASE(BLK, blk_only_header),
    CASE(BLK, blk_split_header),
    CASE(BLK, blk_status_readable),
    CASE(BLK, blk_status_empty),
    CASE(BLK, blk_status_outside),
    CASE(BLK, blk_unknown_types),
    CASE(BLK, blk_sector_max),
    CASE(BLK, blk_sector_overflow),
    CASE(BLK, blk_over_end),
    CASE(BLK, blk_odd_length),
    CASE(BLK, blk_wrong_direction),
    CASE(BLK, blk_flush_with_data),
    CASE(BLK, blk_id_short),
    CASE(BLK, blk_id_long),
    CASE(BLK, blk_ranges),
    CASE(NET, net_short_header),
    CASE(NET, net_empty_frame),
    CASE(NET, net_tiny_frame),
    CASE(NET, net_long_frame),
    CASE(NET, net_checksum_lies),
    CASE(NET, net_segments_lie),
    CASE(NET, net_receive_tiny),
    CASE(NET, net_receive_readable),
    CASE(NET, net_receive_outside),
    CASE(NET, net_control),
    CASE(CONSOLE, console_receive_readable),
};

static const struct {
    const char* name;
    uint32_t id;
    unsigned kind, queue;
} kinds[] = {
    {"blk", VIRTIO_BLK, BLK, 0},
    {"net", VIRTIO_NET, NET, 1},
    {"rng", VIRTIO_RNG, RNG, 0},
    {"console", VIRTIO_CONSOLE, CONSOLE, 1},
};

// The queue as the standard wants it, with nothing in it.
static void prepare(void) {
    virtio_reset(&device);
    memset(table, 0, 4096);
    memset((void*)avail, 0, 4096);
    memset((void*)used, 0, 4096);
    memset(scratch, 0, 8192);
    configure_places((uint64_t)table, (uint64_t)avail, (uint64_t)used);
}

static bool alive(void) {
    prepare();
    good();
    for (const uint64_t end = now_ns() + 2000000000; used->index == 0;)
        if (now_ns() > end) return false;
    return used->index == 1 && (kind != BLK || scratch[64] == 0);
}

static bool skipped(unsigned c) {
    const char* list = arg_string("skip", "");
    while (*list) {
        const char* number = list;
        if (parse_number(&list) == c) return true;
        if (*list == ',' || list == number) list++;
    }
    return false;
}

static bool run_case(unsigned c, unsigned k) {
    kind = kinds[k].kind;
    queue_index = kinds[k].queue;
    failure = NULL;
    prepare();
    cases[c].run();
    for (const uint64_t end = now_ns() + wait_ns; used->index == 0 && now_ns() < end;) relax();
    const uint64_t status = virtio_read(&device, VIRTIO_STATUS), index = used->index;
    queue_index = kinds[k].queue;
    const bool back = alive();
    say("case=%u name=%s device=%s status=%x used=%u alive=%u%s%s", (uint64_t)c, cases[c].name,
        kinds[k].name, status, index, (uint64_t)back, failure ? " wrong: " : "",
        failure ? failure : "");
    return back && !failure;
}

const char* guest_main(void) {
    char only_device[16] = "all", only_case[16] = "all";
    const char* position = NULL;
    arg_next("device", &position, only_device, sizeof only_device);
    position = NULL;
    arg_next("case", &position, only_case, sizeof only_case);
    const char* digits = only_case;
    const uint64_t number = same(only_case, "all") ? UINT64_MAX : parse_number(&digits);
    rounds = arg_number("rounds", 200);
    wait_ns = arg_number("wait_ms", 3) * 1000000;
    table = allocate(4096, 4096);
    avail = allocate(4096, 4096);
    used = allocate(4096, 4096);
    scratch_end = ram_end();
    scratch = (uint8_t*)(scratch_end - SCRATCH);
    if (!is_ram((uint64_t)scratch, SCRATCH)) return "no scratch memory";

    uint64_t ran = 0, dead = 0;
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (!(same(only_device, "all") || same(only_device, kinds[k].name)) ||
            !virtio_find(&device, kinds[k].id, 0))
            continue;
        virtio_reset(&device);
        virtio_write(&device, VIRTIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
        device.offered = virtio_offered(&device);
        for (unsigned c = 0; c < sizeof cases / sizeof *cases; c++) {
            if (!(cases[c].devices & kinds[k].kind) || (number != UINT64_MAX && number != c) ||
                skipped(c))
                continue;
            rng.state = arg_number("seed", 1) * 1000 +
                        c;  // so that a case alone does what it does among the others
            ran++;
            dead += !run_case(c, k);
        }
        virtio_reset(&device);
    }
    say("cases=%u dead=%u", ran, dead);
    return dead ? "a device did not come back" : ran ? NULL : "nothing to attack";
}
