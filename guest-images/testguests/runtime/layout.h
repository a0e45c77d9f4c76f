// Constants that the assembly and the C side of the runtime share.
#pragma once

#define MAX_CPUS 8

// GDT selectors. The 16-byte TSS descriptors come last, one a CPU.
#define SEL_CODE32 0x08
#define SEL_DATA 0x10
#define SEL_CODE64 0x18
#define SEL_USER_DATA 0x23
#define SEL_USER_CODE 0x2b
#define SEL_TSS 0x30

// A TSS with an I/O permission map that opens the ports below IO_PORTS to ring 3: some hosts ignore
// IOPL.
#define TSS_FIXED 104
#define IO_PORTS 0x800
#define TSS_SIZE (TSS_FIXED + IO_PORTS / 8 + 8)

// Interrupt vectors. Each has a stub that counts and acknowledges; nothing else ever runs in an
// interrupt.
#define VEC_IRQ 0x20    // + I/O APIC pin, 24 of them
#define VEC_IPI 0x40    // + CPU the interrupt is for
#define VEC_TIMER 0x50  // + CPU whose timer it is
#define VEC_END 0x60
#define VEC_SPURIOUS 0xff

#define STUB_SIZE 32

#define LAPIC_BASE 0xfee00000
// The page tables show [3 GiB, 4 GiB) a second time at the very top, where a sign-extended 32-bit
// displacement reaches it: an interrupt stub acknowledges with one instruction and without a
// register.
#define LAPIC_EOI_ALIAS (-0x1200000 + 0xb0)

#define TRAMPOLINE 0x8000  // where started CPUs begin, in real mode
