// Interrupts against the clock. kind= picks one, each runs for ms= (1000) at hz= (100):
//   periodic, oneshot, deadline   the local APIC's timer
//   pit                           the PIT through the I/O APIC (pin 0 or 2)
//   self                          n= (1000) interrupts that the CPU sends itself
// Prints a line a kind: kind, count, expected, us, late_us_max (worst distance between two
// interrupts less the period). Fails if a count is not within tolerance= (30) percent; a kind that
// the machine lacks is told and passed over.

#include "irq.h"
#include "cpu.h"
#include "guest.h"

#define PIT_HZ 1193182
#define PIT_CHANNEL 0x40
#define PIT_COMMAND 0x43

const char guest_name[] = "irq";

static uint64_t hz, duration_ns;

static bool wrong(uint64_t count, uint64_t expected) {
    const uint64_t slack = expected * arg_number("tolerance", 30) / 100 + 2;
    return count + slack < expected || count > expected + slack;
}

// Counts a vector's interrupts until the time is over; `again` arms the next one, if that is
// needed.
static const char* run(const char* kind, unsigned vector, void (*again)(uint64_t period)) {
    const uint64_t period = 1000000000 / hz, first = irq_count[vector], start = now_ns();
    uint64_t seen = first, last = start, worst = 0;
    for (;;) {
        while (irq_count[vector] == seen && now_ns() < start + duration_ns + 10 * period) relax();
        const uint64_t now = now_ns();
        if (now >= start + duration_ns) break;
        seen++;
        worst = max(worst, now - last);
        last = now;
        if (again) again(period);
    }
    const uint64_t took = now_ns() - start, count = irq_count[vector] - first,
                   expected = took / period;
    timer_stop(0);
    if (count == 0) {
        say("kind=%s count=0 absent=1", kind);
        return NULL;
    }
    say("kind=%s hz=%u count=%u expected=%u us=%u late_us_max=%u", kind, hz, count, expected,
        took / 1000, (worst > period ? worst - period : 0) / 1000);
    // One that is armed anew each time comes later by the way there and back.
    return wrong(count, expected) && !again ? "count" : NULL;
}

static void arm_oneshot(uint64_t period) {
    timer_start(0, TIMER_ONESHOT, period);
}

static void arm_deadline(uint64_t period) {
    timer_start(0, TIMER_DEADLINE, rdtsc() + period * tsc_khz / 1000000);
}

static const char* run_pit(void) {
    const unsigned vector = VEC_IRQ;
    const uint64_t divisor = PIT_HZ / hz;
    irq_route(0, vector);  // hosts differ in which pin the PIT is wired to
    irq_route(2, vector);
    outb(PIT_COMMAND, 0x34);  // channel 0, both bytes, mode 2
    outb(PIT_CHANNEL, (uint8_t)divisor);
    outb(PIT_CHANNEL, (uint8_t)(divisor >> 8));
    const char* failure = divisor > 65535 ? "hz too low for the PIT" : run("pit", vector, NULL);
    outb(PIT_COMMAND, 0x30);  // stops
    return failure;
}

static const char* run_self(void) {
    const uint64_t n = arg_number("n", 1000), start = now_ns();
    uint64_t slowest = 0;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t seen = irq_count[VEC_IPI], sent = now_ns();
        ipi(0, IPI_SELF | VEC_IPI);
        while (irq_count[VEC_IPI] == seen)
            if (now_ns() - sent > 1000000000) return "self-IPI lost";
        slowest = max(slowest, now_ns() - sent);
    }
    const uint64_t took = now_ns() - start;
    say("kind=self count=%u ns=%u ns_max=%u", n, took / max(n, 1), slowest);
    return irq_count[VEC_IPI] == n ? NULL : "self-IPI count";
}

static bool wanted(const char* kind) {
    const char* picked = arg_string("kind", "all");
    return same(picked, "all") || same(picked, kind);
}

const char* guest_main(void) {
    const char* failure = NULL;
    hz = max(arg_number("hz", 100), 1);
    duration_ns = arg_number("ms", 1000) * 1000000;
    if (wanted("periodic")) {
        timer_start(0, TIMER_PERIODIC, 1000000000 / hz);
        failure = run("periodic", VEC_TIMER, NULL);
    }
    if (!failure && wanted("oneshot")) {
        arm_oneshot(1000000000 / hz);
        failure = run("oneshot", VEC_TIMER, arm_oneshot);
    }
    if (!failure && wanted("deadline")) {
        arm_deadline(1000000000 / hz);
        failure = run("deadline", VEC_TIMER, arm_deadline);
    }
    if (!failure && wanted("pit")) failure = run_pit();
    if (!failure && wanted("self")) failure = run_self();
    return failure;
}
