// Interrupts are only counted, by vector; whoever waits for one watches the count.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

extern volatile uint64_t irq_count[256];

void irq_init(void);      // tables, PIC off, local APIC on
void irq_init_cpu(void);  // local APIC of a started CPU, and its interrupts on
void irq_route(unsigned pin, unsigned vector);   // I/O APIC: edge triggered, to CPU 0
void irq_sleep(unsigned vector, uint64_t seen);  // until the count is not `seen`
// The same, and writes 3 to the register acknowledge (0: none) when it wakes: both in one way to
// ring 0, as each costs tens of microseconds on some hosts. False after the timeout, which a slow
// timer tick bounds. CPU 0 only.
bool irq_wait(unsigned vector, uint64_t seen, uint64_t acknowledge, uint64_t timeout_ns);

enum timer_mode {
    TIMER_ONESHOT = 0,
    TIMER_PERIODIC = 1,
    TIMER_DEADLINE = 2,
};
// The local APIC's timer raises VEC_TIMER + cpu. One count is a nanosecond in KVM's APIC; deadlines
// are absolute TSC values.
void timer_start(unsigned cpu, enum timer_mode mode, uint64_t ns_or_deadline);
void timer_stop(unsigned cpu);
void sleep_until(uint64_t ns);  // CPU 0 only

#define IPI_SELF 0x40000
#define IPI_INIT 0x4500
#define IPI_STARTUP 0x4600
void ipi(unsigned apic_id, uint32_t command);
unsigned apic_id(void);
