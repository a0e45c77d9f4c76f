// What every guest has: its name and main function, parameters, output, time, memory, and a way to
// end.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Defined by each guest. Main returns NULL when all went well, else the reason why not.
extern const char guest_name[];
const char* guest_main(void);

// --- parameters: words of the command line ----

extern char cmdline[4096];
const char* arg_string(const char* key, const char* otherwise);  // valid until the next call
uint64_t arg_number(const char* key,
                    uint64_t otherwise);  // decimal or 0x…; with a suffix K, M or G
bool arg_next(const char* key, const char** position, char* value,
              size_t size);  // every word key=value in turn
uint64_t parse_number(const char** text);
bool same(const char* a, const char* b);

struct memory_range {
    uint64_t start, size;
    uint32_t type;  // 1 is RAM
};
extern struct memory_range memory_map[32];
extern unsigned memory_ranges;
bool is_ram(uint64_t start, uint64_t size);  // whether all of it is RAM
uint64_t ram_end(void);

// --- output: the serial port ----

// A line "guest NAME: …". Knows %s %c %d %u %x, all but %s and %c of 64 bits, and %f for
// thousandths shown as a decimal.
void say(const char* format, ...);
void say_part(const char* format, ...);  // the same without the name and the end of the line
void put(char c);

// --- time ----

extern uint64_t tsc_khz;         // 0 if nobody knows
extern bool kvmclock_available;  // else time comes from the TSC and tsc_khz alone
uint64_t now_ns(void);
uint64_t tsc_to_ns(uint64_t cycles);
void spin_ns(uint64_t ns);

// --- memory ----

void* memset(void* to, int value, size_t size);
void* memcpy(void* to, const void* from, size_t size);
int memcmp(const void* a, const void* b, size_t size);
size_t strlen(const char* text);
void* allocate(size_t size,
               size_t alignment);  // zeroed, never given back; ends the guest when RAM does

struct random {
    uint64_t state;
};
uint64_t random_next(struct random* random);

// --- the end ----

_Noreturn void finish(const char* failure);  // NULL: done
_Noreturn void power_off(void);

static inline uint64_t min(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static inline uint64_t max(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}
