// A disk: drives the device= (0) th virtio-blk device. op= picks what is done (info):
//   info, getid       what the device says about itself
//   read, write, randread, randwrite
//                     n= (1000) requests of bs= (4096) bytes, with qd= (1) under way
//   fill, check       writes a pattern made of the sector's number and seed= (0); reads it back and
//                     compares
//   verify            both, passes= (1, 0: for ever) times with the next seed each time
//   flush, discard    n= such requests
//   zeroes            fills, writes zeroes (unmap=0) and compares with zero
// For all: start= sector (0), seconds= (0: no limit), segs= (1) data descriptors a request,
// queue= (0), indirect= (1), event_idx= (1) and poll= (0: interrupts). seed= also picks the order
// of the random ones. Prints a line a run: op, n, bs, qd, us, iops, mbps, errors, p50_us, p99_us,
// max_us, notifications, interrupts.

#include "guest.h"
#include "irq.h"
#include "virtio.h"

#define SECTOR 512
#define TYPE_IN 0
#define TYPE_OUT 1
#define TYPE_FLUSH 4
#define TYPE_GET_ID 8
#define TYPE_DISCARD 11
#define TYPE_WRITE_ZEROES 13

#define F_RO (1ull << 5)
#define F_FLUSH (1ull << 9)
#define F_MQ (1ull << 12)
#define F_DISCARD (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

#define CONFIG_CAPACITY 0
#define CONFIG_SEG_MAX 12
#define CONFIG_BLK_SIZE 20
#define CONFIG_QUEUES 34
#define CONFIG_MAX_DISCARD 36
#define CONFIG_MAX_ZEROES 48

#define SEGMENTS_MAX (VIRTQ_INDIRECT_MAX - 2)
#define TIMEOUT_NS 30000000000
#define SLOTS 20000  // of the latency histogram, a microsecond each

const char guest_name[] = "blk";

struct request {
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range;  // of discard and write zeroes
    volatile uint8_t status;
    uint64_t* data;
    uint64_t sector, submitted_ns;
};

struct job {
    const char* name;
    uint32_t type;
    bool random, make_pattern, check_pattern, check_zero;
};

static struct virtio_device device;
static struct virtq queue;
static struct request* requests;
static uint64_t block_size, depth, segments, seed, first_sector, capacity, deadline_ns;
static uint32_t latency[SLOTS];
static uint64_t latency_max;

static uint64_t pattern(uint64_t sector, unsigned word) {
    struct random random = {(seed << 48) ^ (sector * (SECTOR / 8) + word)};
    return random_next(&random);
}

static void make_pattern(struct request* request) {
    for (uint64_t i = 0; i < block_size / 8; i++)
        request->data[i] = pattern(request->sector + i / (SECTOR / 8), i % (SECTOR / 8));
}

static bool check(const struct request* request, bool zero) {
    for (uint64_t i = 0; i < block_size / 8; i++) {
        const uint64_t sector = request->sector + i / (SECTOR / 8);
        const uint64_t expected = zero ? 0 : pattern(sector, i % (SECTOR / 8));
        if (request->data[i] != expected) {
            say("mismatch sector=%u word=%u found=%x expected=%x", sector, i % (SECTOR / 8),
                request->data[i], expected);
            return false;
        }
    }
    return true;
}

static bool submit(struct request* request, const struct job* job) {
    struct buffer buffers[SEGMENTS_MAX + 2];
    unsigned count = 0;
    request->header.type = job->type;
    request->header.sector = request->sector;
    request->status = 0xff;
    buffers[count++] = (struct buffer){&request->header, sizeof request->header, false};
    if (job->type == TYPE_DISCARD || job->type == TYPE_WRITE_ZEROES) {
        request->header.sector = 0;
        request->range.sector = request->sector;
        request->range.sectors = (uint32_t)(block_size / SECTOR);
        request->range.flags =
            job->type == TYPE_WRITE_ZEROES ? (uint32_t)arg_number("unmap", 0) : 0;
        buffers[count++] = (struct buffer){&request->range, sizeof request->range, false};
    } else if (job->type != TYPE_FLUSH) {
        if (job->make_pattern) make_pattern(request);
        const uint64_t piece = block_size / segments / 8 * 8;
        for (uint64_t s = 0, at = 0; s < segments; s++, at += piece) {
            const uint64_t length = s + 1 == segments ? block_size - at : piece;
            buffers[count++] =
                (struct buffer){(char*)request->data + at, (uint32_t)length, job->type != TYPE_OUT};
        }
    }
    buffers[count++] = (struct buffer){(void*)&request->status, 1, true};
    request->submitted_ns = now_ns();
    return virtq_add(&queue, buffers, count, request);
}

// Whether the request went well.
static bool completed(const struct request* request, const struct job* job) {
    const uint64_t us = (now_ns() - request->submitted_ns) / 1000;
    latency[min(us, SLOTS - 1)]++;
    latency_max = max(latency_max, us);
    if (request->status != 0) {
        static bool told;
        if (!told)
            say("error op=%s sector=%u status=%u", job->name, request->sector,
                (uint64_t)request->status);
        told = true;
        return false;
    }
    if (job->check_pattern || job->check_zero) return check(request, job->check_zero);
    return true;
}

static uint64_t percentile(uint64_t total, unsigned percent) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if ((sum += latency[i]) * 100 >= total * percent) return i;
    return SLOTS;
}

static const char* run(const struct job* job, uint64_t n) {
    const uint64_t sectors = block_size / SECTOR, blocks = (capacity - first_sector) / sectors;
    if (first_sector >= capacity || blocks == 0) return "the disk is too small";
    struct random random = {seed};
    uint64_t submitted = 0, done = 0, errors = 0;
    const uint64_t interrupts = irq_count[device.vector], notifications = queue.notifications;
    const uint64_t start = now_ns();
    memset(latency, 0, sizeof latency);
    latency_max = 0;

    struct request* free = &requests[0];
    for (;;) {
        // First all `depth` of them, then each again as soon as it is free.
        while (free && submitted < n && (deadline_ns == 0 || now_ns() < deadline_ns)) {
            const uint64_t block = job->random ? random_next(&random) % blocks : submitted % blocks;
            free->sector = first_sector + block * sectors;
            if (!submit(free, job)) return "queue too small for this qd";
            submitted++;
            free = submitted < depth ? &requests[submitted] : virtq_take(&queue, NULL);
            if (free && submitted >= depth) {
                done++;
                errors += !completed(free, job);
            }
        }
        virtq_kick(&queue);
        if (done == submitted) break;
        free = virtq_wait(&queue, NULL, TIMEOUT_NS);
        if (!free) return "timeout";
        done++;
        errors += !completed(free, job);
    }

    const uint64_t us = max((now_ns() - start) / 1000, 1);
    say("op=%s n=%u bs=%u qd=%u us=%u iops=%u mbps=%f errors=%u p50_us=%u p99_us=%u max_us=%u "
        "notifications=%u "
        "interrupts=%u",
        job->name, done, block_size, depth, us, done * 1000000 / us, done * block_size * 1000 / us,
        errors, percentile(done, 50), percentile(done, 99), latency_max,
        queue.notifications - notifications, irq_count[device.vector] - interrupts);
    return errors ? "errors" : NULL;
}

static uint32_t config32(unsigned offset) {
    return virtio_read(&device, VIRTIO_CONFIG + offset);
}

static const char* info(void) {
    say("capacity=%u blk_size=%u queues=%u seg_max=%u max_discard=%u max_zeroes=%u read_only=%u "
        "features=%x "
        "queue_size=%u",
        capacity, (uint64_t)config32(CONFIG_BLK_SIZE),
        (uint64_t)(device.offered & F_MQ ? config32(CONFIG_QUEUES & ~3u) >> 16 : 1),
        (uint64_t)config32(CONFIG_SEG_MAX), (uint64_t)config32(CONFIG_MAX_DISCARD),
        (uint64_t)config32(CONFIG_MAX_ZEROES), (uint64_t) !!(device.offered & F_RO), device.offered,
        (uint64_t)queue.size);
    return NULL;
}

static const char* get_id(void) {
    static const struct job job = {"getid", TYPE_GET_ID, false, false, false, false};
    block_size = 20;
    segments = 1;
    struct request* request = &requests[0];
    request->sector = 0;
    memset(request->data, 0, 32);
    if (!submit(request, &job)) return "queue too small";
    virtq_kick(&queue);
    if (!virtq_wait(&queue, NULL, TIMEOUT_NS)) return "timeout";
    if (request->status) return "status";
    say("id=%s", (const char*)request->data);
    return NULL;
}

static const struct job jobs[] = {
    {"read", TYPE_IN, false, false, false, false},
    {"write", TYPE_OUT, false, false, false, false},
    {"randread", TYPE_IN, true, false, false, false},
    {"randwrite", TYPE_OUT, true, false, false, false},
    {"fill", TYPE_OUT, false, true, false, false},
    {"check", TYPE_IN, false, false, true, false},
    {"flush", TYPE_FLUSH, false, false, false, false},
    {"discard", TYPE_DISCARD, false, false, false, false},
    {"zeroes", TYPE_WRITE_ZEROES, false, false, false, false},
    {"check_zero", TYPE_IN, false, false, false, true},
};

static const char* run_named(const char* name, uint64_t n) {
    for (unsigned i = 0; i < sizeof jobs / sizeof *jobs; i++)
        if (same(name, jobs[i].name)) return run(&jobs[i], n);
    return "unknown op";
}

static const char* verify(uint64_t n) {
    const uint64_t passes = arg_number("passes", 1);
    const char* failure = NULL;
    n = min(n, (capacity - first_sector) /
                   (block_size / SECTOR));  // else the second round overwrites the first
    for (uint64_t pass = 0; !failure && (passes == 0 || pass < passes); pass++, seed++) {
        failure = run_named("fill", n);
        if (!failure && device.features & F_FLUSH) failure = run_named("flush", 1);
        if (!failure) failure = run_named("check", n);
        if (deadline_ns && now_ns() > deadline_ns) break;
    }
    return failure;
}

static const char* open_device(void) {
    uint64_t wanted = F_FLUSH | F_MQ | F_DISCARD | F_WRITE_ZEROES;
    if (arg_number("indirect", 1)) wanted |= VIRTIO_F_INDIRECT;
    if (arg_number("event_idx", 1)) wanted |= VIRTIO_F_EVENT_IDX;
    if (!virtio_find(&device, VIRTIO_BLK, (unsigned)arg_number("device", 0)))
        return "no virtio-blk device";
    const char* failure = virtio_begin(&device, wanted);
    if (!failure)
        failure = virtq_init(&queue, &device, (unsigned)arg_number("queue", 0), VIRTQ_MAX,
                             arg_number("poll", 0));
    if (!failure) virtio_start(&device);
    return failure;
}

const char* guest_main(void) {
    const char* failure = open_device();
    if (failure) return failure;
    capacity = config32(CONFIG_CAPACITY) | (uint64_t)config32(CONFIG_CAPACITY + 4) << 32;
    block_size = max(arg_number("bs", 4096) / SECTOR * SECTOR, SECTOR);
    depth = min(max(arg_number("qd", 1), 1), VIRTQ_MAX);
    segments = min(max(arg_number("segs", 1), 1), SEGMENTS_MAX);
    seed = arg_number("seed", 0);
    first_sector = arg_number("start", 0);
    const uint64_t seconds = arg_number("seconds", 0);
    const uint64_t n = arg_number("n", seconds ? UINT64_MAX : 1000);
    requests = allocate(depth * sizeof *requests, 64);
    for (uint64_t i = 0; i < depth; i++) {
        struct random random = {i};
        requests[i].data = allocate(block_size, 4096);
        for (uint64_t word = 0; word < block_size / 8; word++)
            requests[i].data[word] = random_next(&random);
    }
    deadline_ns = seconds ? now_ns() + seconds * 1000000000 : 0;

    char op[32] = "info";
    const char* position = NULL;
    arg_next("op", &position, op, sizeof op);
    if (same(op, "info")) return info();
    if (same(op, "getid")) return get_id();
    if (same(op, "verify")) return verify(n);
    if (same(op, "zeroes")) {
        failure = run_named("fill", n);
        if (!failure) failure = run_named("zeroes", n);
        return failure ? failure : run_named("check_zero", n);
    }
    return run_named(op, n);
}
