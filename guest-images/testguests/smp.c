// cpus= (2) CPUs: started by INIT and SIPI, count in ring 3 for ms= (500), then each exchanges n=
// (1000) turns with CPU 0, once through a shared cache line and once by interrupts. Prints a line a
// CPU:
//   cpu, counted, line_ns and ipi_ns (one turn: there and back).

#include "smp.h"
#include "cpu.h"
#include "guest.h"
#include "irq.h"

const char guest_name[] = "smp";

enum stage { COUNT = 1, LINE, IPI, OVER };

struct shared  // one a CPU
{
    volatile uint64_t stage;
    volatile uint64_t ball __attribute__((aligned(64)));  // odd: the started CPU has it
    volatile uint64_t counted __attribute__((aligned(64)));
} __attribute__((aligned(128)));

static struct shared shared[MAX_CPUS];
static uint64_t turns, count_ns;

static uint64_t count_for(uint64_t ns) {
    uint64_t n = 0;
    for (const uint64_t end = now_ns() + ns; now_ns() < end;) n++;
    return n;
}

static void wait_stage(struct shared* my, enum stage stage) {
    while (my->stage < stage) relax();
}

static void work(unsigned cpu) {
    struct shared* my = &shared[cpu];
    wait_stage(my, COUNT);
    my->counted = count_for(count_ns);
    wait_stage(my, LINE);
    for (uint64_t i = 0; i < turns; i++) {
        while (!(my->ball & 1)) relax();
        my->ball++;
    }
    wait_stage(my, IPI);
    for (uint64_t i = 0; i < turns; i++) {
        irq_sleep(VEC_IPI + cpu, i);
        ipi(0, VEC_IPI);
    }
    wait_stage(my, OVER);
}

static uint64_t line_turn_ns(struct shared* other) {
    const uint64_t start = now_ns();
    other->stage = LINE;
    for (uint64_t i = 0; i < turns; i++) {
        other->ball++;
        while (other->ball & 1) relax();
    }
    return (now_ns() - start) / turns;
}

static uint64_t ipi_turn_ns(struct shared* other, unsigned cpu) {
    const uint64_t start = now_ns();
    other->stage = IPI;
    for (uint64_t i = 0; i < turns; i++) {
        const uint64_t seen = irq_count[VEC_IPI];
        ipi(cpu, VEC_IPI + cpu);
        if (!irq_wait(VEC_IPI, seen, 0, 5000000000)) finish("an interrupt between CPUs was lost");
    }
    return (now_ns() - start) / turns;
}

const char* guest_main(void) {
    const unsigned cpus = (unsigned)min(max(arg_number("cpus", 2), 1), MAX_CPUS);
    turns = max(arg_number("n", 1000), 1);
    count_ns = arg_number("ms", 500) * 1000000;
    for (unsigned c = 1; c < cpus; c++)
        if (!smp_start(c, work)) return "a CPU did not start";
    for (unsigned c = 1; c < cpus; c++) shared[c].stage = COUNT;
    say("cpu=0 counted=%u apic_id=%u", count_for(count_ns), (uint64_t)apic_id());
    for (unsigned c = 1; c < cpus; c++) {
        const uint64_t line = line_turn_ns(&shared[c]);
        const uint64_t by_ipi = ipi_turn_ns(&shared[c], c);
        shared[c].stage = OVER;
        smp_wait(c);
        say("cpu=%u counted=%u line_ns=%u ipi_ns=%u", (uint64_t)c, shared[c].counted, line, by_ipi);
    }
    return NULL;
}
