// Time: the TSC, scaled by what kvmclock says about it.

#include "cpu.h"
#include "guest.h"

#define MSR_KVMCLOCK 0x4b564d01

struct kvmclock {
    uint32_t version, zero;
    uint64_t tsc, ns;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, padding[2];
};

static volatile struct kvmclock clock __attribute__((aligned(64)));
bool kvmclock_available;
uint64_t tsc_khz;

static uint64_t scale(uint64_t cycles, uint64_t multiplier, int shift) {
    cycles = shift < 0 ? cycles >> -shift : cycles << shift;
    return (uint64_t)((unsigned __int128)cycles * multiplier >> 32);
}

void clock_init(void) {
    tsc_khz = arg_number("tsc_khz", 0);
    if (arg_number("kvmclock", 1) == 0) return;
    if (ring0(ring0_wrmsr, MSR_KVMCLOCK, (uint64_t)&clock | 1).fault || clock.multiplier == 0)
        return;
    kvmclock_available = true;
    // ns = cycles * 2^shift * multiplier / 2^32, so a million ns are this many cycles:
    const uint64_t khz = (1000000ull << 32) / clock.multiplier;
    if (tsc_khz == 0) tsc_khz = clock.shift < 0 ? khz << -clock.shift : khz >> clock.shift;
}

uint64_t tsc_to_ns(uint64_t cycles) {
    return tsc_khz ? scale(cycles, (1000000ull << 32) / tsc_khz, 0) : cycles;
}

uint64_t now_ns(void) {
    if (!kvmclock_available) return tsc_to_ns(rdtsc());
    for (;;) {  // an odd or changed version: the host was writing
        const uint32_t version = clock.version;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        const uint64_t ns = clock.ns + scale(rdtsc() - clock.tsc, clock.multiplier, clock.shift);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(version & 1) && clock.version == version) return ns;
    }
}

void spin_ns(uint64_t ns) {
    const uint64_t end = now_ns() + ns;
    while (now_ns() < end) relax();
}
