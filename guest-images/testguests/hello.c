// Greets, shows what it was given, and ends. For tests of the serial port and of a guest that goes
// on:
//   spin=1   stays in ring 3 and prints a counter line every interval_ms= (1000), for
//            seconds= (0: for ever)
//   echo=1   sends back what comes in on the serial port, by interrupt, until a byte 4 (end of
//            transmission)

#include "cpu.h"
#include "guest.h"
#include "irq.h"

#define SERIAL 0x3f8
#define SERIAL_IRQ 4

const char guest_name[] = "hello";

static void spin(void) {
    const uint64_t interval = arg_number("interval_ms", 1000) * 1000000;
    const uint64_t seconds = arg_number("seconds", 0);
    const uint64_t start = now_ns(), tsc = rdtsc();
    uint64_t loops = 0;
    for (uint64_t tick = 1; seconds == 0 || tick * interval <= seconds * 1000000000; tick++) {
        while (now_ns() < start + tick * interval) loops++;
        say("tick=%u loops=%u clock_us=%u tsc_us=%u", tick, loops, (now_ns() - start) / 1000,
            tsc_to_ns(rdtsc() - tsc) / 1000);
    }
}

static void echo(void) {
    const unsigned vector = VEC_IRQ + SERIAL_IRQ;
    irq_route(SERIAL_IRQ, vector);
    outb(SERIAL + 4, 0x0b);  // OUT2 lets the interrupt out
    outb(SERIAL + 1, 1);     // when data has come
    say("echo=1");
    uint64_t bytes = 0;
    for (;;) {
        const uint64_t seen = irq_count[vector];
        while (inb(SERIAL + 5) & 1) {
            const uint8_t byte = inb(SERIAL);
            if (byte == 4) {
                say("echoed=%u interrupts=%u", bytes, irq_count[vector]);
                return;
            }
            put((char)byte);
            bytes++;
        }
        irq_sleep(vector, seen);
    }
}

const char* guest_main(void) {
    say("hello");
    say("cmdline %s", cmdline);
    for (unsigned i = 0; i < memory_ranges; i++)
        say("memory start=%x size=%x type=%u", memory_map[i].start, memory_map[i].size,
            (uint64_t)memory_map[i].type);
    say("kvmclock=%u tsc_khz=%u", (uint64_t)kvmclock_available, tsc_khz);
    if (arg_number("spin", 0)) spin();
    if (arg_number("echo", 0)) echo();
    return NULL;
}
