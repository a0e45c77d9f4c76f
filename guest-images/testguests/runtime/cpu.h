// Instructions that C lacks, and the trap into ring 0.
#pragma once

#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint64_t rdtsc(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void relax(void) {
    __asm__ volatile("pause" : : : "memory");
}

static inline void fence(void) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

// Each is exactly one mov of its width: a VMM decodes what it sees, and tests count exits.
#define MMIO_ACCESSORS(bits, type, constraint)                                                  \
    static inline type mmio_read##bits(uint64_t address) {                                      \
        type value;                                                                             \
        __asm__ volatile("mov %1, %0" : "=" constraint(value) : "m"(*(volatile type*)address)); \
        return value;                                                                           \
    }                                                                                           \
    static inline void mmio_write##bits(uint64_t address, type value) {                         \
        __asm__ volatile("mov %1, %0"                                                           \
                         : "=m"(*(volatile type*)address)                                       \
                         : constraint(value)                                                    \
                         : "memory");                                                           \
    }
MMIO_ACCESSORS(8, uint8_t, "q")
MMIO_ACCESSORS(16, uint16_t, "r")
MMIO_ACCESSORS(32, uint32_t, "r")
MMIO_ACCESSORS(64, uint64_t, "r")
#undef MMIO_ACCESSORS

// Runs a function in ring 0 with interrupts off. A fault in it makes the call return with fault =
// vector + 1.
struct ring0_result {
    uint64_t value;
    uint64_t fault;
};
typedef uint64_t ring0_function(uint64_t a, uint64_t b);
struct ring0_result ring0(ring0_function* function, uint64_t a, uint64_t b);

// Functions for it, in start.S; what they take stands there.
ring0_function ring0_rdmsr, ring0_wrmsr, ring0_wait, ring0_enable_irqs;
