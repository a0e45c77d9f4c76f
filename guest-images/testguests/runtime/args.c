// The command line and the memory map, as PVH hands them over.

#include "guest.h"

#define START_MAGIC 0x336ec578

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp, memory_map;
    uint32_t memory_entries, zero;
};

struct start_memory {
    uint64_t start, size;
    uint32_t type, zero;
};

char cmdline[4096];
struct memory_range memory_map[32];
unsigned memory_ranges;

// Copies all that matters: the originals may lie where the guest writes next.
void args_init(uint64_t address) {
    const struct start_info* info = (const struct start_info*)address;
    if (info->magic != START_MAGIC) return;
    const char* text = (const char*)info->cmdline;
    for (size_t i = 0; text && text[i] && i + 1 < sizeof cmdline; i++) cmdline[i] = text[i];
    const struct start_memory* map = (const struct start_memory*)info->memory_map;
    for (uint32_t i = 0; info->version >= 1 && i < info->memory_entries && memory_ranges < 32; i++)
        memory_map[memory_ranges++] = (struct memory_range){map[i].start, map[i].size, map[i].type};
}

bool arg_next(const char* key, const char** position, char* value, size_t size) {
    const char* p = *position ? *position : cmdline;
    const size_t length = strlen(key);
    while (*p) {
        while (*p == ' ') p++;
        const bool hit = memcmp(p, key, length) == 0 && p[length] == '=';
        const char* from = p + length + 1;
        while (*p && *p != ' ') p++;
        if (!hit) continue;
        const size_t count = min((size_t)(p - from), size - 1);
        memcpy(value, from, count);
        value[count] = 0;
        *position = p;
        return true;
    }
    return false;
}

const char* arg_string(const char* key, const char* otherwise) {
    static char value[256];
    const char* position = NULL;
    return arg_next(key, &position, value, sizeof value) ? value : otherwise;
}

uint64_t parse_number(const char** text) {
    const char* p = *text;
    uint64_t number = 0;
    const unsigned base = p[0] == '0' && p[1] == 'x' ? 16 : 10;
    if (base == 16) p += 2;
    for (;; p++) {
        const char low = (char)(*p | 0x20);
        if (*p >= '0' && *p <= '9')
            number = number * base + (unsigned)(*p - '0');
        else if (base == 16 && low >= 'a' && low <= 'f')
            number = number * 16 + (unsigned)(low - 'a' + 10);
        else
            break;
    }
    if (*p == 'K')
        number <<= 10, p++;
    else if (*p == 'M')
        number <<= 20, p++;
    else if (*p == 'G')
        number <<= 30, p++;
    *text = p;
    return number;
}

uint64_t arg_number(const char* key, uint64_t otherwise) {
    const char* text = arg_string(key, NULL);
    return text ? parse_number(&text) : otherwise;
}

bool is_ram(uint64_t start, uint64_t size) {
    while (size) {
        const struct memory_range* found = NULL;
        for (unsigned i = 0; i < memory_ranges; i++) {
            const struct memory_range* r = &memory_map[i];
            if (r->type == 1 && start >= r->start && start - r->start < r->size) found = r;
        }
        if (!found) return false;
        const uint64_t covered = min(size, found->size - (start - found->start));
        start += covered;
        size -= covered;
    }
    return true;
}

uint64_t ram_end(void) {
    uint64_t end = 0;
    for (unsigned i = 0; i < memory_ranges; i++)
        if (memory_map[i].type == 1) end = max(end, memory_map[i].start + memory_map[i].size);
    return end;
}
