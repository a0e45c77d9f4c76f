#include "smp.h"

#include "cpu.h"
#include "guest.h"
#include "irq.h"

#define STACK_SIZE 16384
#define ANSWER_NS 2000000000

// Read by start.S on the way up; one CPU is started at a time.
extern uint32_t boot_cpu;
extern uint64_t boot_stack, boot_entry;
extern const uint8_t trampoline[], trampoline_end[];

extern uint8_t gdt[];
extern uint8_t tss[MAX_CPUS][TSS_SIZE];

static void (*work_of[MAX_CPUS])(unsigned cpu);
static volatile bool running[MAX_CPUS], finished[MAX_CPUS];

static void started(void) {
    const unsigned cpu = boot_cpu;
    irq_init_cpu();
    running[cpu] = true;
    work_of[cpu](cpu);
    finished[cpu] = true;
    for (;;) irq_sleep(VEC_TIMER + cpu, irq_count[VEC_TIMER + cpu]);
}

// As start.S does for the first CPU.
static void describe_tss(unsigned cpu) {
    const uint64_t base = (uint64_t)tss[cpu];
    uint8_t* descriptor = gdt + SEL_TSS + 16 * cpu;
    descriptor[2] = (uint8_t)base;
    descriptor[3] = (uint8_t)(base >> 8);
    descriptor[4] = (uint8_t)(base >> 16);
    descriptor[7] = (uint8_t)(base >> 24);
}

static bool answers(unsigned cpu, uint64_t ns) {
    const uint64_t end = now_ns() + ns;
    while (!running[cpu] && now_ns() < end) relax();
    return running[cpu];
}

bool smp_start(unsigned cpu, void (*work)(unsigned cpu)) {
    if (cpu == 0 || cpu >= MAX_CPUS || running[cpu]) return false;
    memcpy((void*)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
    describe_tss(cpu);
    work_of[cpu] = work;
    boot_cpu = cpu;
    boot_stack = (uint64_t)allocate(STACK_SIZE, 16) + STACK_SIZE - 8;  // as if called
    boot_entry = (uint64_t)started;
    ipi(cpu, IPI_INIT);
    spin_ns(1000000);
    ipi(cpu, IPI_STARTUP | TRAMPOLINE >> 12);
    if (answers(cpu, ANSWER_NS / 10)) return true;
    ipi(cpu,
        IPI_STARTUP |
            TRAMPOLINE >> 12);  // the first may come too early for a CPU that is still being reset
    return answers(cpu, ANSWER_NS);
}

void smp_wait(unsigned cpu) {
    while (!finished[cpu]) relax();
}
