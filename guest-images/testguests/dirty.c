// Dirties memory at a chosen rate and in an order that anybody can check afterwards.
//   start= (16), size= (64)  the region, in MiB, or with a suffix K, M or G. It may lie beyond 4
//   GiB rate= (100)              MB/s (10^6 bytes; each write of 8 bytes counts as its page of
//   4096);
//                            0: as fast as it goes
//   seconds= (0: for ever), interval_ms= (1000) between two report lines
//   stride= (1)              in pages, made coprime to their number. 1 is sequential, 0 takes a
//                            scattering one
//   fill= (0)                1: first fills every page with content of its own, so that none is
//   zero op= (write)              verify: also compares each page's word before writing it, and its
//                            content if filled
//   idle= (hlt)              what to do while ahead of the rate: hlt, or spin in ring 3
//   cpus= (1)                each CPU writes a slice of its own, with a header of its own; only CPU
//   0
//                            reports
//
// Layout. CPU c of n has the slice [start + c * size / n, + size / n), in whole pages. Its first
// page is the header below; then come the data pages 0 ... pages - 1. Pass 1, 2, ... writes the
// first word of every data page once, in the order of position k = 0 ... pages - 1, page (k *
// stride) % pages, with the value pass << 32 | page. After each page it counts progress up by one.
// All by one CPU with ordered stores, so at every instant, with g = progress / pages and k =
// progress % pages:
//   a page at a position before k holds pass g + 1, one at a position after k holds pass g,
//   the page at k itself holds either. Pass 0 is the value 0: the page was never written.
// The other words w = 1 ... 511 of data page p are, if the header says filled,
// (p << 32 | w) * 0x9e3779b97f4a7c15.
//
// Prints every interval: generation, pages (written in the interval), mbps, write_us (time spent
// writing), gap_us_max (the longest that the guest stood still between two looks at the clock, less
// the sleep that it wanted: a pause shows here), errors. At the end: total pages, us, errors.

#include "cpu.h"
#include "guest.h"
#include "irq.h"
#include "smp.h"

#define PAGE 4096
#define MIB 1048576
#define MAGIC 0x5954524944564d49  // "IMVDIRTY"
#define QUANTUM_NS 1000000        // writes come in bursts this far apart
#define BACKLOG_NS 10000000       // after a pause, no more than this is caught up
#define BURST 64                  // pages between two looks at the clock

const char guest_name[] = "dirty";

struct header {
    uint64_t magic, version;
    uint64_t cpu, cpus;
    uint64_t start, size;  // of the slice, with this page
    uint64_t pages, stride, filled;
    volatile uint64_t progress;  // pages written in all passes
    volatile uint64_t errors;
    volatile uint64_t ns;  // the clock at the last report
};

static uint64_t rate, interval_ns, duration_ns;
static bool verify, spin;
static struct header* slices[MAX_CPUS];

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint64_t content(uint64_t page, uint64_t word) {
    return (page << 32 | word) * 0x9e3779b97f4a7c15;
}

static volatile uint64_t* page_words(const struct header* header, uint64_t page) {
    return (volatile uint64_t*)(header->start + PAGE * (1 + page));
}

static void prepare(unsigned cpu, unsigned cpus, uint64_t start, uint64_t size) {
    struct header* header = (struct header*)start;
    memset(header, 0, PAGE);
    header->version = 1;
    header->cpu = cpu;
    header->cpus = cpus;
    header->start = start;
    header->size = size;
    header->pages = size / PAGE - 1;
    header->filled = arg_number("fill", 0);
    header->stride = arg_number("stride", 1);
    if (header->stride == 0) header->stride = header->pages * 618 / 1000 | 1;
    while (gcd(header->stride, header->pages) != 1) header->stride++;
    for (uint64_t page = 0; header->filled && page < header->pages; page++)
        for (uint64_t word = 1; word < PAGE / 8; word++)
            page_words(header, page)[word] = content(page, word);
    header->magic = MAGIC;
    slices[cpu] = header;
}

static void mismatch(struct header* header, uint64_t page, uint64_t word, uint64_t found,
                     uint64_t expected) {
    if (header->errors++ == 0)
        say("mismatch cpu=%u page=%u word=%u found=%x expected=%x", header->cpu, page, word, found,
            expected);
}

struct cursor  // progress, taken apart
{
    uint64_t generation, position, page;
};

static void check(struct header* header, const struct cursor* at) {
    const uint64_t expected = at->generation ? at->generation << 32 | at->page : 0;
    volatile uint64_t* words = page_words(header, at->page);
    if (words[0] != expected) mismatch(header, at->page, 0, words[0], expected);
    for (uint64_t word = 1; header->filled && word < PAGE / 8; word++)
        if (words[word] != content(at->page, word))
            mismatch(header, at->page, word, words[word], content(at->page, word));
}

static void write_pages(struct header* header, struct cursor* at, uint64_t count) {
    while (count--) {
        if (verify) check(header, at);
        *page_words(header, at->page) = (at->generation + 1) << 32 | at->page;
        header->progress++;
        at->page = (at->page + header->stride) % header->pages;
        if (++at->position == header->pages) {
            at->generation++;
            at->position = 0;  // and the page is 0 again, by itself
        }
    }
}

static void rest(unsigned cpu, uint64_t until) {
    if (cpu == 0 && !spin) sleep_until(until);
    while (now_ns() < until) relax();
}

static void report(struct header* header, uint64_t pages, uint64_t ns, uint64_t write_ns,
                   uint64_t gap_ns) {
    uint64_t errors = 0;
    for (unsigned c = 0; c < header->cpus; c++) errors += slices[c]->errors;
    say("generation=%u pages=%u mbps=%f write_us=%u gap_us_max=%u errors=%u",
        header->progress / header->pages, pages, pages * PAGE * 1000000 / max(ns, 1),
        write_ns / 1000, gap_ns / 1000, errors);
}

// What every CPU does with its slice, until the time is over.
static void work(unsigned cpu) {
    struct header* header = slices[cpu];
    const uint64_t start = now_ns(), cpu_rate = rate / header->cpus;
    struct cursor at = {0};
    uint64_t reported = start, reported_pages = 0, write_ns = 0, gap_ns = 0;
    uint64_t credit_from = start, last = start;
    while (duration_ns == 0 || last - start < duration_ns) {
        uint64_t due = BURST;
        if (cpu_rate) {
            if (last - credit_from > BACKLOG_NS) credit_from = last - BACKLOG_NS;
            due = min(BURST, (last - credit_from) * cpu_rate / 1000000 / PAGE);
        }
        if (due == 0) {
            const uint64_t wake = last + QUANTUM_NS;
            rest(cpu, wake);
            last = now_ns();
            gap_ns = max(gap_ns, last - wake);
        } else {
            write_pages(header, &at, due);
            if (cpu_rate) credit_from += due * PAGE * 1000000 / cpu_rate;
            const uint64_t now = now_ns();
            write_ns += now - last;
            gap_ns = max(gap_ns, now - last);
            last = now;
        }
        if (cpu == 0 && last - reported >= interval_ns) {
            header->ns = last;
            report(header, header->progress - reported_pages, last - reported, write_ns, gap_ns);
            reported_pages = header->progress;
            write_ns = gap_ns = 0;
            reported = last = now_ns();  // the line itself takes its time
        }
    }
}

// A number of MiB, or of bytes with a suffix.
static uint64_t arg_mib(const char* key, uint64_t otherwise) {
    const char* text = arg_string(key, NULL);
    if (!text) return otherwise;
    const char* end = text;
    const uint64_t number = parse_number(&end);
    const char suffix = end[-1];
    return suffix >= '0' && suffix <= '9' ? number * MIB : number;
}

const char* guest_main(void) {
    const uint64_t start = arg_mib("start", 16 * MIB), size = arg_mib("size", 64 * MIB);
    const unsigned cpus = (unsigned)min(max(arg_number("cpus", 1), 1), MAX_CPUS);
    rate = arg_number("rate", 100) * 1000;  // bytes a millisecond
    interval_ns = arg_number("interval_ms", 1000) * 1000000;
    duration_ns = arg_number("seconds", 0) * 1000000000;
    verify = same(arg_string("op", "write"), "verify");
    spin = same(arg_string("idle", "hlt"), "spin");
    const uint64_t slice = size / cpus / PAGE * PAGE;
    if (slice < 2 * PAGE || !is_ram(start, size) || start < 2 * MIB)
        return "the region is not free RAM";
    for (unsigned c = 0; c < cpus; c++) prepare(c, cpus, start + c * slice, slice);
    say("start=%x size=%x cpus=%u pages=%u stride=%u rate=%u", start, size, (uint64_t)cpus,
        slices[0]->pages, slices[0]->stride, rate / 1000);
    for (unsigned c = 1; c < cpus; c++)
        if (!smp_start(c, work)) return "a CPU did not start";
    const uint64_t began = now_ns();
    work(0);
    for (unsigned c = 1; c < cpus; c++) smp_wait(c);
    uint64_t errors = 0, written = 0;
    for (unsigned c = 0; c < cpus; c++) {
        errors += slices[c]->errors;
        written += slices[c]->progress;
    }
    say("total pages=%u us=%u errors=%u", written, (now_ns() - began) / 1000, errors);
    return errors ? "mismatch" : NULL;
}
