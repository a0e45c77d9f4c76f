// What the switch itself costs: one thread, ports in memory. Prints one JSON object; each run is a
// sample of all of them. usage: switch-bench [SECONDS-OF-EACH]

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <thread>

#include "base/clock.h"
#include "base/event_loop.h"
#include "net/cable.h"
#include "net/switch.h"
#include "net/switch_server.h"
#include "net/wire.h"

namespace ivmm::net {
namespace {

constexpr size_t kBatch = 64;
constexpr size_t kSmall = 64;               // bytes of a frame
constexpr size_t kLarge = 14 + 40 + 65160;  // Ethernet, IP and TCP headers, 45 segments
constexpr uint16_t kSegment = 1448;
constexpr size_t kRing = size_t{2} << 20;
constexpr uint32_t kManyFlows = 1'000'000;
constexpr uint32_t kDiversions = 1000;
constexpr uint32_t kFloodFrames = 2'000'000;
constexpr uint64_t kScattered = 7'919'033;  // a prime: an order that no cache foresees
constexpr int kPings = 5000;
constexpr MacAddress kGuestMac{2, 0, 0, 0, 0, 1};
constexpr MacAddress kOtherMac{2, 0, 0, 0, 0, 2};
constexpr MacAddress kGatewayMac{2, 0, 0, 0, 0, 0xfe};

std::map<std::string, double> results;

[[noreturn]] void give_up(const std::string& why) {
    fmt::print(stderr, "switch-bench: {}\n", why);
    std::exit(1);
}

template <class T>
T must(Result<T> result) {
    if (!result) {
        give_up(result.error().message);
    }
    return std::move(*result);
}

/// An Ethernet frame with IPv4 and TCP, from the gateway to the guest or back.
std::vector<std::byte> make_frame(size_t length, bool to_guest) {
    std::vector<std::byte> bytes(length);
    const ByteSpan all(bytes);
    std::memcpy(bytes.data(), (to_guest ? kGuestMac : kGatewayMac).data(), 6);
    std::memcpy(bytes.data() + 6, (to_guest ? kGatewayMac : kGuestMac).data(), 6);
    store_be16(all, 12, 0x0800);
    store_be16(all, 14, 0x4500);
    store_be16(all, 16, static_cast<uint16_t>(length - 14));
    store_be16(all, 22, 0x4006);
    store_be32(all, to_guest ? 26 : 30, 0xc6336407);  // 198.51.100.7
    store_be32(all, to_guest ? 30 : 26, 0xc000020a);  // 192.0.2.10
    store_be16(all, to_guest ? 34 : 36, 1000);
    store_be16(all, to_guest ? 36 : 34, 22);
    store_be16(all, 46, 0x5010);
    return bytes;
}

/// A port at which the same frame comes again and again, of another flow each time, and from which
/// what is sent is copied to where a peer could read it.
class MemoryPort final : public Port {
 public:
    size_t receive(std::span<Frame> frames) override {
        // As a ring's port: the head is copied, the tail stays where it is.
        const size_t count = std::min({frames.size(), kBatch, left});
        for (size_t i = 0; i < count; ++i) {
            const size_t head = std::min(frame.size(), kHeadLength);
            std::copy_n(frame.begin(), head, heads_[i].begin());
            if (flows > 0) {
                const auto flow = static_cast<uint32_t>(next_++ * stride % flows);
                store_be32(ByteSpan(heads_[i]), 26, 0x0b000000 + flow);
            }
            frames[i] = {vnet, ByteSpan(heads_[i]).first(head), ConstByteSpan(frame).subspan(head)};
        }
        left -= count;
        return count;
    }
    bool send(const Frame& one) override {
        if (at_ + one.size() > kRing) {
            at_ = 0;
        }
        std::copy(one.head.begin(), one.head.end(), ring_.begin() + at_);
        std::copy(one.tail.begin(), one.tail.end(),
                  ring_.begin() + at_ + static_cast<std::ptrdiff_t>(one.head.size()));
        at_ += static_cast<std::ptrdiff_t>(align_up(one.size()));
        ++sent;
        return true;
    }
    void flush() override {}
    Offloads offloads() const override { return able; }

    std::vector<std::byte> frame;
    VnetHeader vnet;
    uint32_t flows = 0;  ///< 0: the frame as it is
    uint64_t stride = kScattered;
    size_t left = 0;  ///< frames to come
    size_t sent = 0;
    Offloads able{true, true, true, true};

 private:
    static size_t align_up(size_t size) { return (size + 15) / 16 * 16; }
    std::array<std::array<std::byte, kHeadLength>, kBatch> heads_;
    std::vector<std::byte> ring_ = std::vector<std::byte>(kRing);
    std::ptrdiff_t at_ = 0;
    uint64_t next_ = 0;
};

/// A switch with an uplink, a guest and its clone.
struct Bed {
    explicit Bed(uint32_t flows)
        : net({.flows = flows,
               .diversions = {.most = 4096, .most_per_minute = UINT32_MAX, .never = {}}},
              {}) {
        for (const auto& [id, port] : {std::pair(uplink, &up), {guest, &down}, {clone, &trap}}) {
            auto endpoint = std::make_unique<MemoryPort>();
            *port = endpoint.get();
            net.attach(id, std::move(endpoint));
        }
        up->frame = make_frame(kSmall, true);
        down->frame = make_frame(kSmall, false);
        pass(uplink, *up, 1);  // the gateway is known
        down->sent = 0;
    }

    /// Lets frames come at a port.
    void pass(PortId id, MemoryPort& port, size_t frames) {
        port.left = frames;
        while (port.left > 0) {
            net.poll(id, clock_ns(CLOCK_MONOTONIC));
        }
    }

    /// Frames a second that come at one port and leave at another.
    double rate(PortId id, MemoryPort& from, MemoryPort& to, double seconds) {
        constexpr size_t kAtOnce = 64 * kBatch;
        pass(id, from, kAtOnce);
        to.sent = 0;
        const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        uint64_t now = begin;
        size_t frames = 0;
        do {
            pass(id, from, kAtOnce);
            frames += kAtOnce;
            now = clock_ns(CLOCK_MONOTONIC);
        } while (static_cast<double>(now - begin) < seconds * 1e9);
        if (to.sent < frames) {
            give_up(fmt::format("{} frames came, {} went on", frames, to.sent));
        }
        return static_cast<double>(frames) * 1e9 / static_cast<double>(now - begin);
    }

    Switch net;
    PortId uplink = *net.add_uplink("up");
    PortId guest = *net.add_guest("web", kGuestMac);
    PortId clone = *net.add_clone("trap", guest, {});
    MemoryPort* up = nullptr;
    MemoryPort* down = nullptr;
    MemoryPort* trap = nullptr;
};

/// Bytes of memory that this process has.
double resident() {
    std::ifstream file("/proc/self/statm");
    size_t total = 0;
    size_t pages = 0;
    file >> total >> pages;
    return static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

void small_frames(double seconds) {
    {
        Bed bed(65536);
        auto frame = make_frame(kSmall, true);
        store_be16(ByteSpan(frame), 12, 0x88b5);  // not IP: no flow
        bed.up->frame = std::move(frame);
        results["frames_0"] = bed.rate(bed.uplink, *bed.up, *bed.down, seconds) / 1e6;
    }
    {
        Bed bed(65536);
        bed.up->flows = 1000;
        results["frames_1k"] = bed.rate(bed.uplink, *bed.up, *bed.down, seconds) / 1e6;
    }
    {
        const double before = resident();
        Bed bed(kManyFlows);
        bed.up->flows = kManyFlows;
        bed.up->stride = 1;
        bed.pass(bed.uplink, *bed.up, kManyFlows);
        bed.up->stride = kScattered;
        if (bed.net.tables()[0].flows < kManyFlows - 1) {
            give_up("the flows are not in the table");
        }
        const double memory = resident() - before;
        results["flows_memory"] = memory / (1 << 20);
        results["flows_bytes"] = memory / kManyFlows;
        results["frames_1m"] = bed.rate(bed.uplink, *bed.up, *bed.down, seconds) / 1e6;
    }
    results["cost_1k"] = 1e3 / results["frames_1k"] - 1e3 / results["frames_0"];
    results["cost_1m"] = 1e3 / results["frames_1m"] - 1e3 / results["frames_0"];
}

void large_frames(double seconds) {
    Bed bed(65536);
    bed.down->frame = make_frame(kLarge, false);
    bed.down->vnet.flags = VnetHeader::kNeedsChecksum;
    bed.down->vnet.gso_type = VnetHeader::kGsoTcpV4;
    bed.down->vnet.gso_size = kSegment;
    bed.down->vnet.checksum_start = 34;
    bed.down->vnet.checksum_offset = 16;
    constexpr double kGbit = kLarge * 8 / 1e9;
    results["gso"] = bed.rate(bed.guest, *bed.down, *bed.up, seconds) * kGbit;
    bed.up->able = {};  // the switch cuts it and sums it up
    results["gso_cut"] = bed.rate(bed.guest, *bed.down, *bed.up, seconds) * kGbit;
}

/// 1,000 addresses are diverted with the connections that they have, then somebody floods the
/// table; their next frames must still come to the clone.
void flood() {
    Bed bed(65536);
    bed.up->flows = kDiversions;
    bed.pass(bed.uplink, *bed.up, kDiversions);
    const double before = resident();
    for (uint32_t i = 0; i < kDiversions; ++i) {
        Selector selector;
        selector.scope = Scope::kIp;
        selector.remote.bytes = {0,
                                 0,
                                 0,
                                 0,
                                 0,
                                 0,
                                 0,
                                 0,
                                 0,
                                 0,
                                 0xff,
                                 0xff,
                                 0x0b,
                                 0,
                                 static_cast<uint8_t>(i >> 8U),
                                 static_cast<uint8_t>(i)};
        must(bed.net.divert(bed.clone, selector, 0, false));
    }
    results["diversions_memory"] = (resident() - before) / 1024;
    bed.up->flows = UINT32_MAX / 32;  // each frame has another source
    store_be16(ByteSpan(bed.up->frame), 46, 0x5002);
    store_be16(ByteSpan(bed.up->frame), 34, 2000);
    const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
    bed.pass(bed.uplink, *bed.up, kFloodFrames);
    results["flood"] = kFloodFrames * 1e3 / static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin);
    if (bed.net.tables()[0].evicted < kFloodFrames / 2) {
        give_up("the flood has not filled the table");
    }
    bed.up->flows = kDiversions;
    store_be16(ByteSpan(bed.up->frame), 46, 0x5010);
    store_be16(ByteSpan(bed.up->frame), 34, 1000);
    bed.trap->sent = 0;
    bed.pass(bed.uplink, *bed.up, kDiversions);
    results["flood_lost"] = static_cast<double>(kDiversions) - static_cast<double>(bed.trap->sent);
}

// --- Two guests' processes with a switch between them, and without one. ---

/// A guest's process's end: sends and gets frames, and sleeps while there are none.
class End {
 public:
    End(RingProducer out, RingConsumer in, const EventFd& peers, const EventFd& own)
        : out_(out), in_(in), peers_(peers), own_(own) {}

    void send(ConstByteSpan frame) {
        const auto room = out_.reserve(frame.size());
        if (!room) {
            give_up("a ring is full");
        }
        std::copy(frame.begin(), frame.end(), room->begin());
        out_.push({});
        if (out_.publish()) {
            peers_.signal();
        }
    }
    /// False: nothing has come for a second.
    bool wait() {
        while (true) {
            if (in_.next()) {
                if (in_.release()) {
                    peers_.signal();
                }
                return true;
            }
            if (!in_.sleep()) {
                continue;
            }
            pollfd wanted{own_.fd(), POLLIN, 0};
            if (::poll(&wanted, 1, 1000) == 0) {
                return false;
            }
            own_.drain();
        }
    }

 private:
    RingProducer out_;
    RingConsumer in_;
    const EventFd& peers_;
    const EventFd& own_;
};

/// Half of the round trips of frames to a thread that sends them back, sorted, in µs.
std::vector<double> ping(End& here, End& there, bool to_other) {
    auto frame = make_frame(kSmall, true);
    std::memcpy(frame.data() + 6, kOtherMac.data(), 6);
    auto answer = frame;
    std::swap_ranges(answer.begin(), answer.begin() + 6, answer.begin() + 6);
    std::jthread echo([&] {
        for (int i = 0; i < kPings && there.wait(); ++i) {
            there.send(to_other ? answer : frame);
        }
    });
    std::vector<double> times;
    for (int i = 0; i < kPings; ++i) {
        const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        here.send(frame);
        if (!here.wait()) {
            give_up("a frame was lost");
        }
        times.push_back(static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin) / 2000);
    }
    std::sort(times.begin(), times.end());
    return times;
}

std::vector<double> ping_directly() {
    const auto file = must(SharedMemory::create());
    const auto memory = must(SharedMemory::map(file));
    const auto wakes_a = must(EventFd::create());
    const auto wakes_b = must(EventFd::create());
    End a(RingProducer(memory.to_switch()), RingConsumer(memory.from_switch()), wakes_b, wakes_a);
    End b(RingProducer(memory.from_switch()), RingConsumer(memory.to_switch()), wakes_a, wakes_b);
    return ping(a, b, false);
}

std::vector<double> ping_through_switch() {
    std::string folder = "/tmp/switch-bench.XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr) {
        give_up("no folder in /tmp");
    }
    Switch net({}, {});
    const auto thread = must(LoopThread::start("switch"));
    std::unique_ptr<SwitchServer> server;
    std::array<CableEnd, 2> ends;
    thread->loop().call([&] {
        server = must(SwitchServer::create(thread->loop(), net, folder + "/cables",
                                           [](auto&&...) { return fail("nobody"); }));
        ends[0] = must(server->make_cable(must(net.add_guest("a", kOtherMac))));
        ends[1] = must(server->make_cable(must(net.add_guest("b", kGuestMac))));
    });
    std::vector<double> times;
    {
        const auto memory_a = must(SharedMemory::map(ends[0].memory));
        const auto memory_b = must(SharedMemory::map(ends[1].memory));
        const auto wakes_switch_a = EventFd::adopt(std::move(ends[0].wakes_switch));
        const auto wakes_switch_b = EventFd::adopt(std::move(ends[1].wakes_switch));
        const auto wakes_a = EventFd::adopt(std::move(ends[0].wakes_guest));
        const auto wakes_b = EventFd::adopt(std::move(ends[1].wakes_guest));
        End a(RingProducer(memory_a.to_switch()), RingConsumer(memory_a.from_switch()),
              wakes_switch_a, wakes_a);
        End b(RingProducer(memory_b.to_switch()), RingConsumer(memory_b.from_switch()),
              wakes_switch_b, wakes_b);
        times = ping(a, b, true);
    }
    thread->loop().call([&] { server.reset(); });
    ::rmdir(folder.c_str());
    return times;
}

void latency() {
    const auto direct = ping_directly();
    const auto through = ping_through_switch();
    const auto at = [](const std::vector<double>& times, size_t share) {
        return times[times.size() * share / 100];
    };
    results["latency"] = at(through, 50);
    results["latency_p99"] = at(through, 99);
    results["added_latency"] = at(through, 50) - at(direct, 50);
    // The rare slow ones of the switch, beside the usual ones without it.
    results["added_latency_p99"] = at(through, 99) - at(direct, 50);
}

}  // namespace
}  // namespace ivmm::net

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
    ivmm::net::small_frames(seconds);
    ivmm::net::large_frames(seconds);
    ivmm::net::flood();
    ivmm::net::latency();
    const char* separator = "{";
    for (const auto& [key, value] : ivmm::net::results) {
        fmt::print("{}\"{}\": {:.6g}", separator, key, value);
        separator = ", ";
    }
    fmt::print("}}\n");
    return 0;
}
