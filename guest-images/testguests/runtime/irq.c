#include "irq.h"

#include "cpu.h"
#include "guest.h"

#define VEC_INVALID_OPCODE 6

#define APIC_ID (LAPIC_BASE + 0x20)
#define APIC_TPR (LAPIC_BASE + 0x80)
#define APIC_SPURIOUS (LAPIC_BASE + 0xf0)
#define APIC_ICR_LOW (LAPIC_BASE + 0x300)
#define APIC_ICR_HIGH (LAPIC_BASE + 0x310)
#define APIC_LVT_TIMER (LAPIC_BASE + 0x320)
#define APIC_LVT_LINT0 (LAPIC_BASE + 0x350)
#define APIC_TIMER_COUNT (LAPIC_BASE + 0x380)
#define APIC_TIMER_DIVIDE (LAPIC_BASE + 0x3e0)
#define APIC_MASKED 0x10000
#define APIC_DIVIDE_BY_1 0xb
#define MSR_TSC_DEADLINE 0x6e0

#define IOAPIC_SELECT 0xfec00000
#define IOAPIC_WINDOW 0xfec00010

#define WATCH_PERIOD 100000000

struct irq_waiting {
    volatile uint64_t* counter;
    uint64_t seen, acknowledge;
};

struct gate {
    uint16_t address_low, selector;
    uint8_t ist, type;
    uint16_t address_mid;
    uint32_t address_high, zero;
};

extern struct gate idt[256];
extern const uint8_t exception_stubs[], irq_stubs[], spurious_stub[], ring0_stub[];

static bool watching;  // a periodic tick runs that ends any sleep

static uint32_t timer_lvt[MAX_CPUS];

static void set_gate(unsigned vector, const uint8_t* stub) {
    const uint64_t address = (uint64_t)stub;
    idt[vector] = (struct gate){
        .address_low = (uint16_t)address,
        .address_mid = (uint16_t)(address >> 16),
        .address_high = (uint32_t)(address >> 32),
        .selector = SEL_CODE64,
        .type = 0x8e,
    };
}

void irq_init(void) {
    for (unsigned v = 0; v < 32; v++) set_gate(v, exception_stubs + v * STUB_SIZE);
    for (unsigned v = VEC_IRQ; v < VEC_END; v++) set_gate(v, irq_stubs + (v - VEC_IRQ) * STUB_SIZE);
    set_gate(VEC_SPURIOUS, spurious_stub);
    set_gate(VEC_INVALID_OPCODE, ring0_stub);

    outb(0x21, 0xff);  // the old interrupt controllers stay silent
    outb(0xa1, 0xff);
    irq_init_cpu();
}

void irq_init_cpu(void) {
    mmio_write32(APIC_LVT_LINT0, APIC_MASKED);
    mmio_write32(APIC_TPR, 0);
    mmio_write32(APIC_SPURIOUS, 0x100 | VEC_SPURIOUS);
    ring0(ring0_enable_irqs, 0, 0);
}

void irq_route(unsigned pin, unsigned vector) {
    mmio_write32(IOAPIC_SELECT, 0x10 + 2 * pin + 1);
    mmio_write32(IOAPIC_WINDOW, 0);
    mmio_write32(IOAPIC_SELECT, 0x10 + 2 * pin);
    mmio_write32(IOAPIC_WINDOW, vector);
}

void irq_sleep(unsigned vector, uint64_t seen) {
    const struct irq_waiting waiting = {&irq_count[vector], seen, 0};
    while (irq_count[vector] == seen) ring0(ring0_wait, (uint64_t)&waiting, 0);
}

bool irq_wait(unsigned vector, uint64_t seen, uint64_t acknowledge, uint64_t timeout_ns) {
    const struct irq_waiting waiting = {&irq_count[vector], seen, acknowledge};
    const uint64_t end = now_ns() + timeout_ns;
    if (!watching) timer_start(0, TIMER_PERIODIC, WATCH_PERIOD);
    watching = true;
    do {
        ring0(ring0_wait, (uint64_t)&waiting, 0);
        if (irq_count[vector] != seen) return true;
    } while (now_ns() < end);
    return false;
}

void timer_start(unsigned cpu, enum timer_mode mode, uint64_t ns_or_deadline) {
    watching = false;
    const uint32_t lvt = (VEC_TIMER + cpu) | (uint32_t)mode << 17;
    if (timer_lvt[cpu] != lvt) {  // only then, as each write is an exit
        mmio_write32(APIC_TIMER_DIVIDE, APIC_DIVIDE_BY_1);
        mmio_write32(APIC_LVT_TIMER, lvt);
        timer_lvt[cpu] = lvt;
    }
    if (mode == TIMER_DEADLINE)
        ring0(ring0_wrmsr, MSR_TSC_DEADLINE, ns_or_deadline);
    else
        mmio_write32(APIC_TIMER_COUNT, (uint32_t)max(1, min(ns_or_deadline, UINT32_MAX)));
}

void timer_stop(unsigned cpu) {
    watching = false;
    timer_lvt[cpu] = APIC_MASKED;
    mmio_write32(APIC_LVT_TIMER, APIC_MASKED);
}

void sleep_until(uint64_t ns) {
    for (uint64_t now = now_ns(); now < ns; now = now_ns()) {
        const uint64_t seen = irq_count[VEC_TIMER];
        const struct irq_waiting waiting = {&irq_count[VEC_TIMER], seen, 0};
        timer_start(0, TIMER_ONESHOT, ns - now);
        ring0(ring0_wait, (uint64_t)&waiting, 0);
    }
}

void ipi(unsigned apic_id, uint32_t command) {
    mmio_write32(APIC_ICR_HIGH, apic_id << 24);
    mmio_write32(APIC_ICR_LOW, command);
}

unsigned apic_id(void) {
    return mmio_read32(APIC_ID) >> 24;
}
