// Ends badly, so that a VMM can show how it takes it. kind=
//   triple   triple fault
//   ud       an invalid opcode in ring 3: the guest reports the exception itself and powers off
//   emul     what KVM cannot emulate: an instruction that its emulator lacks, in ring 0, and where
//            ring 0 runs natively, an instruction fetch from an address without memory
//   hlt      halts with interrupts off: stands still for ever
//   reset    asks the keyboard controller for a reset
//   panic    tells the pvpanic port that the guest panicked, then halts
//   spin     loops in ring 3; spin0 in ring 0 with interrupts off
// Each first prints a line with its kind. What does not end the guest is a failure.

#include "cpu.h"
#include "guest.h"

#define NOWHERE 0xd00ff000
#define PANIC_PORT 0x505

const char guest_name[] = "fault";

static uint64_t triple(uint64_t a, uint64_t b) {
    static const uint8_t no_idt[10];
    __asm__ volatile("lidt %0; ud2" : : "m"(no_idt));
    return a + b;
}

static uint64_t not_emulated(uint64_t a, uint64_t b) {
    __asm__ volatile("popcnt %1, %0" : "=r"(a) : "r"(b));
    __asm__ volatile("jmp *%0" : : "r"((uint64_t)NOWHERE));
    return a;
}

static uint64_t halt(uint64_t a, uint64_t b) {
    __asm__ volatile("cli; hlt");
    return a + b;
}

static uint64_t spin(uint64_t a, uint64_t b) {
    for (;;) relax();
    return a + b;
}

const char* guest_main(void) {
    const char* kind = arg_string("kind", "");
    say("kind=%s", kind);
    if (same(kind, "triple"))
        ring0(triple, 0, 0);
    else if (same(kind, "ud"))
        __asm__ volatile("ud2");
    else if (same(kind, "emul"))
        ring0(not_emulated, 0, 0);
    else if (same(kind, "hlt"))
        ring0(halt, 0, 0);
    else if (same(kind, "reset"))
        outb(0x64, 0xfe);
    else if (same(kind, "panic"))
        outb(PANIC_PORT, 1), ring0(halt, 0, 0);
    else if (same(kind, "spin"))
        spin(0, 0);
    else if (same(kind, "spin0"))
        ring0(spin, 0, 0);
    else
        return "unknown kind";
    spin_ns(100000000);  // a reset may take a moment
    return "still here";
}
