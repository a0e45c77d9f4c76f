// From boot to guest_main and to the end, and the few library functions that guests and the
// compiler need.

#include "cpu.h"
#include "guest.h"
#include "irq.h"

void args_init(uint64_t address);
void print_init(void);
void clock_init(void);

extern uint32_t start_info;
extern uint64_t fault_vector, fault_error, fault_rip, fault_cr2;
extern uint8_t image_end[];

static uint64_t heap;

void runtime_main(void) {
    args_init(start_info);
    print_init();
    irq_init();
    clock_init();
    finish(guest_main());
}

void finish(const char* failure) {
    if (failure)
        say("FAILED %s", failure);
    else
        say("done");
    power_off();
}

// Where execution goes on after an exception in ring 3.
_Noreturn void fault_report(void) {
    say("FAILED exception=%u error=%x rip=%x cr2=%x", fault_vector, fault_error, fault_rip,
        fault_cr2);
    power_off();
}

static uint64_t ring0_triple_fault(uint64_t a, uint64_t b) {
    static const uint8_t no_idt[10];
    __asm__ volatile("lidt %0; ud2" : : "m"(no_idt));
    return a + b;
}

void power_off(void) {
    outb(0x600, 0x34);  // the ACPI sleep control register: sleep type 5, sleep enable
    outb(0xf4, 0);      // QEMU's isa-debug-exit
    ring0(ring0_triple_fault, 0, 0);
    for (;;) relax();
}

void* allocate(size_t size, size_t alignment) {
    if (heap == 0) heap = (uint64_t)image_end;
    const uint64_t start = (heap + alignment - 1) & ~(alignment - 1);
    if (!is_ram(start, size)) finish("out of memory");
    heap = start + size;
    return memset((void*)start, 0, size);
}

uint64_t random_next(struct random* random) {
    uint64_t x = random->state += 0x9e3779b97f4a7c15;  // splitmix64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

bool same(const char* a, const char* b) {
    const size_t length = strlen(a);
    return length == strlen(b) && memcmp(a, b, length) == 0;
}

size_t strlen(const char* text) {
    const char* p = text;
    while (*p) p++;
    return (size_t)(p - text);
}

void* memset(void* to, int value, size_t size) {
    void* p = to;
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(size) : "a"(value) : "memory");
    return to;
}

void* memcpy(void* to, const void* from, size_t size) {
    void* p = to;
    __asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(size) : : "memory");
    return to;
}

int memcmp(const void* a, const void* b, size_t size) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}
