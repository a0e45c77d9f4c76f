#include "devices/net/virtio_net.h"

#include <gtest/gtest.h>

#include <deque>
#include <limits>
#include <string>
#include <thread>

#include "base/state_codec.h"
#include "tests/support/fake_driver.h"
#include "tests/support/suspendable_conformance.h"

namespace ivmm::virtio {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kMemory = uint64_t{4} << 20;
constexpr std::array<uint8_t, 6> kMac = {0x52, 0x54, 0, 1, 2, 3};

constexpr uint64_t bit(unsigned n) {
    return uint64_t{1} << n;
}

/// A backend whose other end is the test.
class FakeBackend final : public NetBackend {
 public:
    void set_callbacks(Callback on_receivable, Callback on_sendable) override {
        on_receivable_ = std::move(on_receivable);
        on_sendable_ = std::move(on_sendable);
    }
    void want_receive(bool want) override { receive_wanted = want; }
    void want_send(bool want) override { send_wanted = want; }
    Sent send(std::span<const Frame> frames) override {
        Sent result;
        for (const Frame& frame : frames) {
            if (room == 0) {
                break;
            }
            --room;
            Bytes bytes;
            for (const iovec& piece : frame) {
                const auto* start = static_cast<const std::byte*>(piece.iov_base);
                bytes.insert(bytes.end(), start, start + piece.iov_len);
            }
            sent.push_back(std::move(bytes));
            ++result.taken;
            result.refused += refuse_all ? 1 : 0;
        }
        return result;
    }
    std::optional<size_t> receive(std::span<const iovec> buffer) override {
        if (incoming.empty()) {
            return std::nullopt;
        }
        const Bytes frame = std::move(incoming.front());
        incoming.pop_front();
        const size_t n = std::min(frame.size(), buffer[0].iov_len);
        std::memcpy(buffer[0].iov_base, frame.data(), n);
        return n;
    }
    Result<void> set_offloads(const NetOffloads& value) override {
        offloads = value;
        return {};
    }

    /// As an event loop does.
    void be_ready() {
        if (receive_wanted && !incoming.empty()) {
            on_receivable_();
        }
        if (send_wanted && room > 0) {
            on_sendable_();
        }
    }

    bool receive_wanted = false;
    bool send_wanted = false;
    bool refuse_all = false;
    size_t room = std::numeric_limits<size_t>::max();
    std::vector<Bytes> sent;
    std::deque<Bytes> incoming;
    NetOffloads offloads;

 private:
    Callback on_receivable_;
    Callback on_sendable_;
};

constexpr uint64_t kAllFeatures =
    bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
    bit(VIRTIO_NET_F_HOST_TSO6) | bit(VIRTIO_NET_F_HOST_ECN) | bit(VIRTIO_NET_F_GUEST_TSO4) |
    bit(VIRTIO_NET_F_GUEST_TSO6) | bit(VIRTIO_NET_F_GUEST_ECN) | bit(VIRTIO_NET_F_MRG_RXBUF) |
    bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) | bit(VIRTIO_NET_F_CTRL_MAC_ADDR) |
    bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS);

Bytes frame_of(size_t length, uint8_t seed = 0) {
    Bytes frame(length);
    for (size_t i = 0; i < length; ++i) {
        frame[i] = static_cast<std::byte>(i * 7 + seed);
    }
    return frame;
}

Bytes with_header(const NetHeader& header, const Bytes& frame) {
    const auto head = bytes_of(header);
    Bytes all(head.begin(), head.end());
    all.insert(all.end(), frame.begin(), frame.end());
    return all;
}

/// A network device with its driver; the loop is run by hand.
struct Wired {
    Wired()
        : loop(*EventLoop::create()),
          memory(*GuestMemory::create(kMemory)),
          arena(*memory, 0x1000, kMemory - 0x1000),
          net(*VirtioNet::create(*loop, *memory, make_backend(), kMac)),
          port(*memory, arena, *net) {}
    std::unique_ptr<NetBackend> make_backend() {
        auto made = std::make_unique<FakeBackend>();
        backend = made.get();
        return made;
    }
    void activate(uint64_t features = kAllFeatures, uint16_t queue_size = 64) {
        port.activate(features | kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirect,
                      queue_size);
    }
    test::FakeQueue& rx() { return port.queue(VirtioNet::kReceiveQueue); }
    test::FakeQueue& tx() { return port.queue(VirtioNet::kTransmitQueue); }
    void kick_rx() { port.kick(VirtioNet::kReceiveQueue); }
    void kick_tx() { port.kick(VirtioNet::kTransmitQueue); }
    void post_buffers(int count, uint32_t size) {
        for (int i = 0; i < count; ++i) {
            rx().chain().writable(size).send();
        }
    }
    /// The next frame that the driver has got, put together, with its header.
    Bytes take_frame() {
        Bytes frame;
        uint16_t buffers = 1;
        for (uint16_t i = 0; i < buffers; ++i) {
            const auto used = rx().take_used();
            if (!used) {
                EXPECT_EQ(i, 0) << "a buffer of the frame is missing";
                return {};
            }
            const auto part = rx().written(*used);
            frame.insert(frame.end(), part.begin(), part.end());
            if (i == 0) {
                buffers = load_at<NetHeader>(frame, 0).num_buffers;
            }
        }
        return frame;
    }
    Bytes take_payload() {
        const auto frame = take_frame();
        return frame.empty() ? frame : Bytes(frame.begin() + sizeof(NetHeader), frame.end());
    }
    void arrive(const Bytes& frame, const NetHeader& header = {}) {
        backend->incoming.push_back(with_header(header, frame));
        backend->be_ready();
    }
    uint8_t command(uint8_t command_class, uint8_t number, ConstByteSpan data) {
        auto& queue = port.queue(VirtioNet::kControlQueue);
        const std::array<uint8_t, 2> head = {command_class, number};
        queue.chain().readable(bytes_of(head)).readable(data).writable(1).send();
        port.kick(VirtioNet::kControlQueue);
        const auto used = queue.take_used();
        if (!used || used->written != 1) {
            return 0xff;
        }
        return std::to_integer<uint8_t>(queue.written(*used)[0]);
    }

    FakeBackend* backend = nullptr;
    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<GuestMemory> memory;
    test::Arena arena;
    std::unique_ptr<VirtioNet> net;
    test::FakeDevicePort port;
};

/// A good header for a TCP segment over IPv4 of `length` bytes.
NetHeader tso4_header() {
    NetHeader header{};
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    header.hdr_len = 54;
    header.gso_size = 1448;
    header.csum_start = 34;
    header.csum_offset = 16;
    return header;
}

constexpr NetOffloads kAll = {.checksum = true, .tso4 = true, .tso6 = true, .tso_ecn = true};

TEST(NetHeader, GoodOnesPassUnchanged) {
    EXPECT_TRUE(checked_header({}, 14, {}));
    EXPECT_TRUE(checked_header({}, kMaxFrameLength, {}));
    const auto checked = checked_header(tso4_header(), 60'000, kAll);
    ASSERT_TRUE(checked);
    EXPECT_EQ(std::memcmp(&*checked, bytes_of(tso4_header()).data(), sizeof(NetHeader)), 0);
}

TEST(NetHeader, LiesAreFound) {
    const auto refused = [](auto change, uint64_t length = 60'000, const NetOffloads& able = kAll) {
        NetHeader header = tso4_header();
        change(header);
        return !checked_header(header, length, able).has_value();
    };
    const auto nothing = [](NetHeader&) {};
    EXPECT_FALSE(refused(nothing));
    EXPECT_TRUE(refused(nothing, 13));
    EXPECT_TRUE(refused(nothing, 53)) << "the TCP header is not all there";
    EXPECT_FALSE(refused(nothing, 54));
    EXPECT_TRUE(refused(nothing, kMaxFrameLength + 1));
    EXPECT_TRUE(refused(nothing, 60'000, {.checksum = true, .tso6 = true}));
    EXPECT_TRUE(refused(nothing, 60'000, {}));
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_size = 0; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_size = 1; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.flags = 0; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.csum_start = 33; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.csum_start = 65535; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.csum_offset = 6; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type = VIRTIO_NET_HDR_GSO_TCPV6; }))
        << "no room for the IPv6 header";
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type = VIRTIO_NET_HDR_GSO_UDP; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type = 2; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type = VIRTIO_NET_HDR_GSO_ECN; }));
    EXPECT_FALSE(refused([](NetHeader& h) { h.gso_type |= VIRTIO_NET_HDR_GSO_ECN; }));
    EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type |= VIRTIO_NET_HDR_GSO_ECN; }, 60'000,
                        {.checksum = true, .tso4 = true}));
    // The hint may be anything, but does not get out.
    NetHeader header = tso4_header();
    header.hdr_len = 65535;
    EXPECT_EQ(checked_header(header, 1000, kAll)->hdr_len, 1000);
}

TEST(NetHeader, ChecksumMustLieInTheFrame) {
    NetHeader header{};
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = 34;
    header.csum_offset = 6;
    EXPECT_TRUE(checked_header(header, 42, kAll));
    EXPECT_FALSE(checked_header(header, 41, kAll));
    header.csum_start = 13;
    EXPECT_FALSE(checked_header(header, 42, kAll));
    header.csum_start = 65535;
    header.csum_offset = 65535;
    EXPECT_FALSE(checked_header(header, kMaxFrameLength, kAll));
}

TEST(NetHeader, OnlyKnownFlagsAreSentOn) {
    NetHeader header{};
    header.flags = 0xfe;
    header.num_buffers = 77;
    header.csum_start = 9;
    const auto checked = checked_header(header, 100, kAll);
    ASSERT_TRUE(checked);
    const NetHeader empty{};
    EXPECT_EQ(std::memcmp(&*checked, &empty, sizeof(empty)), 0);
}

TEST(NetHeader, OffloadsNeedWhatTheyDependOn) {
    EXPECT_EQ(receive_offloads(bit(VIRTIO_NET_F_GUEST_TSO4)), NetOffloads{});
    EXPECT_EQ(receive_offloads(bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_ECN)),
              NetOffloads{.checksum = true});
    EXPECT_EQ(receive_offloads(kAllFeatures), kAll);
    EXPECT_EQ(transmit_offloads(bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO6)),
              (NetOffloads{.checksum = true, .tso6 = true}));
}

TEST(VirtioNet, SendsFramesInOrder) {
    Wired wired;
    wired.activate();
    const auto first = frame_of(60);
    const auto second = frame_of(60'000, 1);
    wired.tx().chain().readable(with_header({}, first)).send();
    // Header and frame may be cut anywhere.
    const auto all = with_header(tso4_header(), second);
    const auto rest = std::span(all);
    wired.tx()
        .chain()
        .readable(rest.first(5))
        .readable(rest.subspan(5, 100))
        .readable(rest.subspan(105))
        .indirect()
        .send();
    wired.kick_tx();
    ASSERT_EQ(wired.backend->sent.size(), 2U);
    EXPECT_EQ(wired.backend->sent[0], with_header({}, first));
    EXPECT_EQ(wired.backend->sent[1], all);
    EXPECT_TRUE(wired.tx().take_used());
    EXPECT_TRUE(wired.tx().take_used());
    const auto counters = wired.net->counters();
    EXPECT_EQ(counters.transmitted_frames, 2U);
    EXPECT_EQ(counters.transmitted_bytes, 60'060U);
    EXPECT_EQ(counters.transmit_invalid, 0U);
}

TEST(VirtioNet, LyingFramesAreDroppedAndCounted) {
    Wired wired;
    wired.activate();
    NetHeader lie = tso4_header();
    lie.gso_size = 0;
    wired.tx().chain().readable(with_header({}, frame_of(60))).send();
    wired.tx().chain().readable(with_header(lie, frame_of(60))).send();
    wired.tx().chain().readable(with_header({}, frame_of(13))).send();
    wired.tx().chain().readable(frame_of(11)).send();
    wired.tx().chain().writable(100).send();
    wired.tx().chain().readable(with_header({}, {})).readable_at(0x1000, 200'000).send();
    wired.tx().chain().readable(with_header({}, frame_of(61))).send();
    wired.kick_tx();
    ASSERT_EQ(wired.backend->sent.size(), 2U);
    EXPECT_EQ(wired.backend->sent[1].size(), 73U);
    EXPECT_EQ(wired.net->counters().transmit_invalid, 5U);
    int used = 0;
    while (wired.tx().take_used()) {
        ++used;
    }
    EXPECT_EQ(used, 7);
    EXPECT_EQ(wired.port.failure(), "");
}

TEST(VirtioNet, OffloadsThatWereNotNegotiatedAreNotSent) {
    Wired wired;
    wired.activate(0);
    wired.tx().chain().readable(with_header(tso4_header(), frame_of(6000))).send();
    wired.kick_tx();
    EXPECT_TRUE(wired.backend->sent.empty());
    EXPECT_EQ(wired.net->counters().transmit_invalid, 1U);
}

TEST(VirtioNet, AFullBackendLosesNothing) {
    Wired wired;
    wired.activate();
    wired.backend->room = 2;
    for (uint8_t i = 0; i < 5; ++i) {
        wired.tx().chain().readable(with_header({}, frame_of(60, i))).send();
        wired.tx().chain().readable(frame_of(3)).send();  // invalid ones in between
    }
    wired.kick_tx();
    EXPECT_EQ(wired.backend->sent.size(), 2U);
    EXPECT_TRUE(wired.backend->send_wanted);
    EXPECT_EQ(wired.net->counters().transmit_invalid, 2U);
    wired.backend->room = 100;
    wired.backend->be_ready();
    EXPECT_FALSE(wired.backend->send_wanted);
    ASSERT_EQ(wired.backend->sent.size(), 5U);
    for (uint8_t i = 0; i < 5; ++i) {
        EXPECT_EQ(wired.backend->sent[i], with_header({}, frame_of(60, i)));
    }
    EXPECT_EQ(wired.net->counters().transmit_invalid, 5U);
    EXPECT_EQ(wired.tx().used_index(), 10);
}

TEST(VirtioNet, RefusedFramesAreCounted) {
    Wired wired;
    wired.activate();
    wired.backend->refuse_all = true;
    wired.tx().chain().readable(with_header({}, frame_of(60))).send();
    wired.kick_tx();
    EXPECT_EQ(wired.net->counters().transmit_refused, 1U);
    EXPECT_EQ(wired.net->counters().transmitted_frames, 1U);
    EXPECT_TRUE(wired.tx().take_used());
}

TEST(VirtioNet, ReceivesIntoOneBuffer) {
    Wired wired;
    wired.activate();
    wired.post_buffers(2, 2048);
    wired.kick_rx();
    EXPECT_TRUE(wired.backend->receive_wanted);
    wired.arrive(frame_of(60));
    const auto frame = wired.take_frame();
    ASSERT_EQ(frame.size(), 72U);
    EXPECT_EQ(load_at<NetHeader>(frame, 0).num_buffers, 1);
    EXPECT_EQ(Bytes(frame.begin() + 12, frame.end()), frame_of(60));
    EXPECT_GE(wired.port.interrupts(0), 1U);
    EXPECT_EQ(wired.net->counters().received_frames, 1U);
    EXPECT_EQ(wired.net->counters().received_bytes, 60U);
}

TEST(VirtioNet, MergesBuffersForALongFrame) {
    Wired wired;
    wired.activate();
    wired.post_buffers(50, 1526);
    wired.kick_rx();
    NetHeader header = tso4_header();
    wired.arrive(frame_of(60'000), header);
    const auto frame = wired.take_frame();
    header.num_buffers = 40;  // 60,012 bytes
    EXPECT_EQ(frame, with_header(header, frame_of(60'000)));
    wired.arrive(frame_of(70, 1));
    EXPECT_EQ(wired.take_payload(), frame_of(70, 1));
}

TEST(VirtioNet, WithoutMergeableBuffersAFrameMustFitIntoOne) {
    Wired wired;
    wired.activate(kAllFeatures & ~bit(VIRTIO_NET_F_MRG_RXBUF));
    wired.post_buffers(3, 1000);
    wired.kick_rx();
    wired.arrive(frame_of(989));
    EXPECT_EQ(wired.net->counters().receive_dropped, 1U);
    wired.arrive(frame_of(988));
    const auto frame = wired.take_frame();
    ASSERT_EQ(frame.size(), 1000U);
    EXPECT_EQ(load_at<NetHeader>(frame, 0).num_buffers, 1) << "5.1.6.4.1";
}

TEST(VirtioNet, FramesTooLongForAllTheBuffersAreDropped) {
    Wired wired;
    wired.activate();
    wired.post_buffers(4, 1000);
    wired.kick_rx();
    wired.arrive(frame_of(5000));
    EXPECT_EQ(wired.net->counters().receive_dropped, 1U);
    EXPECT_EQ(wired.rx().used_index(), 0);
    wired.arrive(frame_of(3000));
    EXPECT_EQ(wired.take_payload(), frame_of(3000));
}

TEST(VirtioNet, AFrameWaitsForBuffersThatTheDriverHas) {
    Wired wired;
    wired.activate();
    wired.post_buffers(3, 1000);
    wired.kick_rx();
    wired.arrive(frame_of(60));
    wired.arrive(frame_of(2500, 1));
    wired.arrive(frame_of(61, 2));
    EXPECT_FALSE(wired.backend->receive_wanted) << "it would be called again and again";
    EXPECT_EQ(wired.rx().used_index(), 1);
    wired.kick_rx();  // for nothing
    EXPECT_EQ(wired.net->counters().receive_dropped, 0U);

    wired.post_buffers(2, 1000);
    EXPECT_TRUE(wired.rx().must_notify());
    wired.kick_rx();
    EXPECT_EQ(wired.take_payload(), frame_of(60));
    EXPECT_EQ(wired.take_payload(), frame_of(2500, 1));
    wired.backend->be_ready();
    EXPECT_EQ(wired.take_payload(), frame_of(61, 2));
    EXPECT_EQ(wired.net->counters().receive_dropped, 0U);
}

TEST(VirtioNet, AFrameDoesNotWaitForEver) {
    Wired wired;
    wired.activate();
    wired.post_buffers(3, 1000);
    wired.kick_rx();
    wired.arrive(frame_of(60));
    wired.arrive(frame_of(2500, 1));
    ASSERT_FALSE(wired.backend->receive_wanted);
    // The driver brings nothing. The device's own timer must get things going again.
    auto watchdog = std::jthread([&](const std::stop_token& stop) {
        for (int i = 0; i < 100 && !stop.stop_requested(); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            wired.loop->post([&] {
                if (wired.backend->receive_wanted) {
                    wired.loop->stop();
                }
            });
        }
        wired.loop->stop();
    });
    wired.loop->run();
    watchdog.request_stop();
    watchdog.join();
    EXPECT_TRUE(wired.backend->receive_wanted);
    EXPECT_EQ(wired.net->counters().receive_dropped, 1U);
    wired.arrive(frame_of(61, 2));
    EXPECT_EQ(wired.take_payload(), frame_of(60));
    EXPECT_EQ(wired.take_payload(), frame_of(61, 2));
}

TEST(VirtioNet, WithoutBuffersItIsQuietUntilTheGuestKicks) {
    Wired wired;
    wired.activate();
    EXPECT_FALSE(wired.backend->receive_wanted);
    wired.arrive(frame_of(60));
    wired.post_buffers(1, 2048);
    EXPECT_TRUE(wired.rx().must_notify());
    wired.kick_rx();
    EXPECT_EQ(wired.take_payload(), frame_of(60));
    wired.arrive(frame_of(61));
    EXPECT_FALSE(wired.backend->receive_wanted);
    wired.post_buffers(2, 2048);
    EXPECT_TRUE(wired.rx().must_notify());
    wired.kick_rx();
    EXPECT_EQ(wired.take_payload(), frame_of(61));
    EXPECT_TRUE(wired.backend->receive_wanted);
}

TEST(VirtioNet, BuffersWithoutRoomDoNoHarm) {
    Wired wired;
    wired.activate();
    for (int i = 0; i < 3; ++i) {
        wired.rx().chain().readable("not writable").send();
    }
    wired.kick_rx();
    wired.arrive(frame_of(60));
    EXPECT_EQ(wired.net->counters().receive_dropped, 1U);
    EXPECT_EQ(wired.port.failure(), "");
}

TEST(VirtioNet, ABrokenQueueSilencesTheBackend) {
    Wired wired;
    wired.activate();
    wired.post_buffers(1, 2048);
    wired.kick_rx();
    wired.rx().write_available_index(1000);
    wired.backend->incoming.push_back(with_header({}, frame_of(60)));
    wired.backend->be_ready();
    wired.backend->be_ready();
    EXPECT_NE(wired.port.failure(), "");
    EXPECT_FALSE(wired.backend->receive_wanted);
}

TEST(VirtioNet, FramesThatTheDriverCannotTakeAreDropped) {
    Wired wired;
    wired.activate(bit(VIRTIO_NET_F_MRG_RXBUF));
    wired.post_buffers(8, 2048);
    wired.kick_rx();
    wired.arrive(frame_of(3000), tso4_header());
    NetHeader partial{};
    partial.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    wired.arrive(frame_of(60), partial);
    EXPECT_EQ(wired.net->counters().receive_dropped, 2U);
    NetHeader valid{};
    valid.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    wired.arrive(frame_of(60), valid);
    const auto frame = wired.take_frame();
    ASSERT_FALSE(frame.empty());
    EXPECT_EQ(load_at<NetHeader>(frame, 0).flags, 0) << "5.1.6.4.1";
}

TEST(VirtioNet, BackendIsToldWhatTheGuestTakes) {
    Wired wired;
    wired.activate();
    EXPECT_EQ(wired.backend->offloads, kAll);
    uint64_t offloads = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO6);
    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                            bytes_of(offloads)),
              VIRTIO_NET_OK);
    EXPECT_EQ(wired.backend->offloads, (NetOffloads{.checksum = true, .tso6 = true}));
    offloads = bit(VIRTIO_NET_F_CSUM);
    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                            bytes_of(offloads)),
              VIRTIO_NET_ERR);
    wired.port.reset();
    EXPECT_EQ(wired.backend->offloads, NetOffloads{});
    wired.activate(0);
    EXPECT_EQ(wired.backend->offloads, NetOffloads{});
}

TEST(VirtioNet, ControlCommands) {
    Wired wired;
    wired.activate();
    const std::array<uint8_t, 6> mac = {0x02, 1, 2, 3, 4, 5};
    const std::array<uint8_t, 6> multicast = {0x03, 1, 2, 3, 4, 5};
    const uint8_t on = 1;
    const uint8_t nonsense = 2;
    const auto set_mac = [&](ConstByteSpan address) {
        return wired.command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, address);
    };
    EXPECT_EQ(set_mac(bytes_of(mac)), VIRTIO_NET_OK);
    EXPECT_EQ(set_mac(bytes_of(multicast)), VIRTIO_NET_ERR);
    EXPECT_EQ(set_mac(bytes_of(mac).first(5)), VIRTIO_NET_ERR);
    std::array<uint8_t, 6> config{};
    wired.net->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(config, mac);

    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, bytes_of(on)),
              VIRTIO_NET_OK);
    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, bytes_of(nonsense)),
              VIRTIO_NET_ERR);
    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, bytes_of(on)),
              VIRTIO_NET_ERR);
    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_RX, 200, bytes_of(on)), VIRTIO_NET_ERR);

    struct [[gnu::packed]] Tables {
        uint32_t unicast = 1;
        std::array<uint8_t, 6> first{};
        uint32_t multicast = 0;
    } tables;
    const auto set_tables = [&](ConstByteSpan data) {
        return wired.command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data);
    };
    EXPECT_EQ(set_tables(bytes_of(tables)), VIRTIO_NET_OK);
    EXPECT_EQ(set_tables(bytes_of(tables).first(13)), VIRTIO_NET_ERR);
    tables.multicast = 0xffffffff;
    EXPECT_EQ(set_tables(bytes_of(tables)), VIRTIO_NET_ERR);
    EXPECT_EQ(wired.command(99, 0, bytes_of(on)), VIRTIO_NET_ERR);

    // A command without room for the answer, and an empty one.
    auto& queue = wired.port.queue(VirtioNet::kControlQueue);
    queue.chain().readable("xx").send();
    queue.chain().writable(1).send();
    wired.port.kick(VirtioNet::kControlQueue);
    EXPECT_EQ(queue.take_used()->written, 0U);
    EXPECT_EQ(queue.take_used()->written, 1U);

    wired.port.reset();
    wired.net->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(config, kMac);
}

TEST(VirtioNet, CommandsThatWereNotNegotiatedFail) {
    Wired wired;
    wired.activate(bit(VIRTIO_NET_F_CTRL_VQ));
    const std::array<uint8_t, 6> mac = {0x02, 1, 2, 3, 4, 5};
    EXPECT_EQ(wired.command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, bytes_of(mac)),
              VIRTIO_NET_ERR);
}

TEST(VirtioNet, Configuration) {
    Wired wired;
    virtio_net_config config{};
    wired.net->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(std::memcmp(config.mac, kMac.data(), 6), 0);
    EXPECT_EQ(config.status, VIRTIO_NET_S_LINK_UP);
    EXPECT_EQ(wired.net->offered_features() & bit(VIRTIO_NET_F_MTU), 0U);
    EXPECT_EQ(wired.net->offered_features() & kAllFeatures, kAllFeatures);
    const auto with_mtu =
        VirtioNet::create(*wired.loop, *wired.memory, std::make_unique<FakeBackend>(), kMac, 9000);
    ASSERT_TRUE(with_mtu);
    (*with_mtu)->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(config.mtu, 9000);
    EXPECT_FALSE(VirtioNet::create(*wired.loop, *wired.memory, std::make_unique<FakeBackend>(),
                                   {1, 0, 0, 0, 0, 0}));
}

TEST(VirtioNet, OneKickSendsABoundedNumber) {
    Wired wired;
    wired.activate(kAllFeatures, 256);
    for (int i = 0; i < 256; ++i) {
        wired.tx().chain().readable(with_header({}, frame_of(60))).add();
    }
    wired.tx().publish();
    wired.port.kick_once(VirtioNet::kTransmitQueue);
    EXPECT_LE(wired.backend->sent.size(), 256U);
    wired.kick_tx();
    EXPECT_EQ(wired.backend->sent.size(), 256U);

    wired.post_buffers(256, 100);
    wired.kick_rx();
    for (int i = 0; i < 200; ++i) {
        wired.backend->incoming.push_back(with_header({}, frame_of(60)));
    }
    wired.backend->be_ready();
    EXPECT_LE(wired.rx().used_index(), 100);
    EXPECT_TRUE(wired.backend->receive_wanted);
    wired.backend->be_ready();
    wired.backend->be_ready();
    wired.backend->be_ready();
    EXPECT_EQ(wired.rx().used_index(), 200);
}

TEST(VirtioNet, FrozenItDoesNothingAndThenGoesOn) {
    Wired wired;
    wired.activate();
    wired.post_buffers(4, 2048);
    wired.kick_rx();
    wired.net->freeze();
    EXPECT_FALSE(wired.backend->receive_wanted);
    wired.arrive(frame_of(60));
    wired.tx().chain().readable(with_header({}, frame_of(60))).send();
    wired.kick_tx();
    wired.kick_rx();
    EXPECT_TRUE(wired.backend->sent.empty());
    EXPECT_EQ(wired.rx().used_index(), 0);
    wired.net->thaw();
    EXPECT_EQ(wired.backend->sent.size(), 1U);
    EXPECT_EQ(wired.take_payload(), frame_of(60));
}

TEST(VirtioNet, StateGoesToAnotherDevice) {
    Wired wired;
    wired.activate();
    const std::array<uint8_t, 6> mac = {0x02, 1, 2, 3, 4, 5};
    const uint64_t offloads = bit(VIRTIO_NET_F_GUEST_CSUM);
    wired.command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, bytes_of(mac));
    wired.command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                  bytes_of(offloads));
    wired.post_buffers(3, 1000);
    wired.kick_rx();
    wired.arrive(frame_of(60));
    wired.arrive(frame_of(2500, 1));  // waits
    wired.net->freeze();
    const auto state = wired.net->save_state();

    Wired other;
    other.net->freeze();
    ASSERT_TRUE(other.net->restore_state(state));
    other.activate();
    EXPECT_EQ(other.net->save_state(), state);
    EXPECT_EQ(other.backend->offloads, NetOffloads{.checksum = true});
    std::array<uint8_t, 6> config{};
    other.net->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(config, mac);
    other.post_buffers(3, 1000);
    other.net->thaw();
    EXPECT_EQ(other.take_payload(), frame_of(2500, 1));
}

TEST(VirtioNet, ImpossibleStatesAreRefused) {
    Wired wired;
    wired.net->freeze();
    const auto refused = [&](auto change) {
        VirtioNet::State state;
        state.mac = kMac;
        change(state);
        return !wired.net->restore_state(encode_state(state));
    };
    EXPECT_FALSE(refused([](VirtioNet::State&) {}));
    EXPECT_TRUE(refused([](VirtioNet::State& s) { s.mac = {1}; }));
    EXPECT_TRUE(refused([](VirtioNet::State& s) { s.receive_modes = 0x80; }));
    EXPECT_TRUE(refused([](VirtioNet::State& s) { s.guest_offloads = 1; }));
    EXPECT_TRUE(refused([](VirtioNet::State& s) { s.waiting_frame.resize(70'000); }));
}

class NetFixture final : public test::SuspendableFixture {
 public:
    NetFixture() { wired_.activate(); }
    Suspendable& part() override { return *wired_.net; }
    bool change() override {
        const std::array<uint8_t, 6> mac = {0x02, 1, 2, 3, 4, ++changes_};
        return wired_.command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, bytes_of(mac)) ==
               VIRTIO_NET_OK;
    }
    void use() override {
        wired_.tx().chain().readable(with_header({}, frame_of(60))).send();
        wired_.kick_tx();
        while (wired_.tx().take_used()) {
        }
        wired_.post_buffers(2, 1000);
        wired_.kick_rx();
        wired_.arrive(frame_of(100));
        while (wired_.rx().take_used()) {
        }
    }

 private:
    Wired wired_;
    uint8_t changes_ = 0;
};

IVMM_SUSPENDABLE_CONFORMANCE(VirtioNet, [] { return std::make_unique<NetFixture>(); });

}  // namespace
}  // namespace ivmm::virtio
