// What an exit costs: n= (10000) accesses of each kind from ring 3, timed. kind= picks one of them:
//   out, in       an I/O port that nothing owns (port=0x80)
//   mmio_read     the magic register of the first virtio-mmio device, or address= (without a device
//                 0xd00ff000)
//   mmio_write    its driver features register, which may be written at any time before negotiation
//   apic          a local APIC register, an exit that the kernel answers itself
//   trap          the guest's own way into ring 0 and back
//   out_ring0, mmio_read_ring0   the same accesses made in ring 0
// Prints a line a kind: kind, n, ns (for one), total_us.

#include "cpu.h"
#include "guest.h"
#include "irq.h"
#include "virtio.h"

const char guest_name[] = "exits";

static uint16_t port;
static uint64_t mmio;

static void access_out(void) {
    outb(port, 0);
}

static void access_in(void) {
    inb(port);
}

static void access_mmio_read(void) {
    mmio_read32(mmio + VIRTIO_MAGIC);
}

static void access_mmio_write(void) {
    mmio_write32(mmio + VIRTIO_DRIVER_FEATURES, 0);
}

static void access_apic(void) {
    apic_id();
}

// Of the same in ring 0: n of them on one way there, so that only the exits count (and the loop,
// where it is emulated).
static uint64_t outs_in_ring0(uint64_t n, uint64_t b) {
    while (n--) outb(port, (uint8_t)b);
    return 0;
}

static uint64_t mmio_reads_in_ring0(uint64_t n, uint64_t b) {
    while (n--) mmio_read32(mmio + VIRTIO_MAGIC);
    return b;
}

static uint64_t nothing(uint64_t a, uint64_t b) {
    return a + b;
}

static void access_trap(void) {
    ring0(nothing, 0, 0);
}

const char* guest_main(void) {
    static const struct {
        const char* name;
        void (*access)(void);
        ring0_function* in_ring0;
    } kinds[] = {
        {"out", access_out, NULL},
        {"in", access_in, NULL},
        {"mmio_read", access_mmio_read, NULL},
        {"mmio_write", access_mmio_write, NULL},
        {"apic", access_apic, NULL},
        {"trap", access_trap, NULL},
        {"out_ring0", NULL, outs_in_ring0},
        {"mmio_read_ring0", NULL, mmio_reads_in_ring0},
    };
    struct virtio_device device;
    port = (uint16_t)arg_number("port", 0x80);
    mmio = arg_number("address", virtio_find(&device, VIRTIO_ANY, 0) ? device.base : 0xd00ff000);
    const uint64_t n = arg_number("n", 10000);
    bool any = false;
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const char* wanted = arg_string("kind", "all");
        if (!same(wanted, "all") && !same(wanted, kinds[k].name)) continue;
        any = true;
        const uint64_t start = now_ns();
        if (kinds[k].in_ring0) ring0(kinds[k].in_ring0, n, 0);
        for (uint64_t i = 0; i < n && kinds[k].access; i++) kinds[k].access();
        const uint64_t took = now_ns() - start;
        say("kind=%s n=%u ns=%u total_us=%u", kinds[k].name, n, took / max(n, 1), took / 1000);
    }
    return any ? NULL : "unknown kind";
}
