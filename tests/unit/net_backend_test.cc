// virtio-net on a real TAP: the host's kernel on one side, a driver's half of the queues on the
// other.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "devices/net/virtio_net.h"
#include "net/tap.h"
#include "tests/support/fake_driver.h"
#include "tests/support/own_network.h"
#include "vmm/net/tap_backend.h"

namespace ivmm::virtio {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kMemory = uint64_t{8} << 20;
constexpr std::array<uint8_t, 6> kGuestMac = {0x52, 0x54, 0, 1, 2, 3};
constexpr const char* kHostAddress = "10.9.0.1";
constexpr const char* kGuestAddress = "10.9.0.2";
constexpr size_t kUdpStart = sizeof(ethhdr) + sizeof(iphdr);
constexpr size_t kPayloadStart = kUdpStart + sizeof(udphdr);
constexpr size_t kTcpPayloadStart = kUdpStart + sizeof(tcphdr);

constexpr uint64_t bit(unsigned n) {
    return uint64_t{1} << n;
}
constexpr uint64_t kOffloadFeatures = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
                                      bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4);

in_addr_t address(const char* text) {
    return ::inet_addr(text);
}

/// The one's complement sum of 16-bit words, not inverted (RFC 1071).
uint16_t sum_of(ConstByteSpan bytes, uint64_t sum = 0) {
    for (size_t i = 0; i < bytes.size(); i += 2) {
        sum += load_le(bytes.subspan(i, std::min<size_t>(2, bytes.size() - i)));
    }
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return static_cast<uint16_t>(sum);
}

uint64_t pseudo_header(in_addr_t from, in_addr_t to, uint8_t protocol, size_t length) {
    return uint64_t{from} + to + htons(protocol) + htons(static_cast<uint16_t>(length));
}

template <class T>
void append(Bytes& bytes, const T& value) {
    const auto more = bytes_of(value);
    bytes.insert(bytes.end(), more.begin(), more.end());
}

struct Frame {
    NetHeader header{};
    Bytes bytes;

    template <class T>
    T at(size_t offset) const {
        return load_at<T>(bytes, offset);
    }
    uint16_t protocol() const { return ntohs(at<ethhdr>(0).h_proto); }
    bool is_ip(uint8_t ip_protocol) const {
        return protocol() == ETH_P_IP && at<iphdr>(sizeof(ethhdr)).protocol == ip_protocol;
    }
};

/// A guest on a TAP in the network namespace of the calling thread.
class Guest {
 public:
    explicit Guest(uint64_t features)
        : loop_(*EventLoop::create()),
          memory_(*GuestMemory::create(kMemory)),
          arena_(*memory_, 0x1000, kMemory - 0x1000) {
        auto tap = Tap::create("ivmm-test");
        if (!tap || !tap->set_host_address(*parse_host_address("10.9.0.1/24")) ||
            !tap->bring_up()) {
            ADD_FAILURE() << "no TAP";
            return;
        }
        net_ = *VirtioNet::create(*loop_, *memory_, *TapBackend::create(*loop_, *std::move(tap)),
                                  kGuestMac);
        port_.emplace(*memory_, arena_, *net_);
        port_->activate(
            features | bit(VIRTIO_NET_F_MRG_RXBUF) | kFeatureVersion1 | kFeatureEventIdx, 128);
        for (int i = 0; i < 100; ++i) {
            rx().chain().writable(2048).add();
        }
        rx().publish();
        port_->kick(VirtioNet::kReceiveQueue);
    }

    VirtioNet& net() { return *net_; }

    void send(const Bytes& frame, const NetHeader& header = {}) {
        auto& queue = port_->queue(VirtioNet::kTransmitQueue);
        queue.chain().readable(bytes_of(header)).readable(frame).send();
        port_->kick(VirtioNet::kTransmitQueue);
        EXPECT_TRUE(queue.take_used());
    }

    /// Lets the loop do what is due.
    void run_loop() {
        loop_->post([this] { loop_->post([this] { loop_->stop(); }); });
        loop_->run();
    }

    /// The next frame that is wanted; others (IPv6 has much to say on a new link) are passed over.
    std::optional<Frame> receive(const std::function<bool(const Frame&)>& wanted) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
        while (std::chrono::steady_clock::now() < deadline) {
            run_loop();
            while (auto frame = take()) {
                if (wanted(*frame)) {
                    return frame;
                }
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        ADD_FAILURE() << "the frame did not come";
        return std::nullopt;
    }

    /// Asks for the host's hardware address; from then on the host knows ours.
    void exchange_arp() {
        Bytes frame = ethernet(ETH_P_ARP);
        append(frame, arphdr{htons(ARPHRD_ETHER), htons(ETH_P_IP), 6, 4, htons(ARPOP_REQUEST)});
        append(frame, kGuestMac);
        append(frame, address(kGuestAddress));
        append(frame, std::array<uint8_t, 6>{});
        append(frame, address(kHostAddress));
        send(frame);
        const auto reply = receive([](const Frame& f) { return f.protocol() == ETH_P_ARP; });
        ASSERT_TRUE(reply);
        EXPECT_EQ(ntohs(reply->at<arphdr>(sizeof(ethhdr)).ar_op), ARPOP_REPLY);
        host_mac_ = reply->at<std::array<uint8_t, 6>>(sizeof(ethhdr) + sizeof(arphdr));
    }

    Bytes ethernet(uint16_t protocol) const {
        Bytes frame;
        append(frame, host_mac_);
        append(frame, kGuestMac);
        append(frame, htons(protocol));
        return frame;
    }
    Bytes ip(uint8_t protocol, size_t payload_length) const {
        iphdr header{};
        header.version = 4;
        header.ihl = 5;
        header.tot_len = htons(static_cast<uint16_t>(sizeof(header) + payload_length));
        header.ttl = 64;
        header.protocol = protocol;
        header.saddr = address(kGuestAddress);
        header.daddr = address(kHostAddress);
        header.check = static_cast<uint16_t>(~sum_of(bytes_of(header)));
        Bytes frame = ethernet(ETH_P_IP);
        append(frame, header);
        return frame;
    }
    /// A TCP segment whose checksum is left to the host.
    void send_tcp(tcphdr tcp, const Bytes& payload, NetHeader header = {}) {
        const size_t length = sizeof(tcp) + payload.size();
        tcp.doff = 5;
        tcp.window = htons(60'000);
        tcp.check = sum_of(
            {}, pseudo_header(address(kGuestAddress), address(kHostAddress), IPPROTO_TCP, length));
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = kUdpStart;
        header.csum_offset = 16;
        Bytes frame = ip(IPPROTO_TCP, length);
        append(frame, tcp);
        frame.insert(frame.end(), payload.begin(), payload.end());
        send(frame, header);
    }

 private:
    test::FakeQueue& rx() { return port_->queue(VirtioNet::kReceiveQueue); }
    std::optional<Frame> take() {
        Frame frame;
        Bytes all;
        uint16_t buffers = 1;
        for (uint16_t i = 0; i < buffers; ++i) {
            const auto used = rx().take_used();
            if (!used) {
                EXPECT_EQ(i, 0);
                return std::nullopt;
            }
            const auto part = rx().written(*used);
            all.insert(all.end(), part.begin(), part.end());
            frame.header = load_at<NetHeader>(all, 0);
            buffers = frame.header.num_buffers;
            rx().chain().writable(2048).send();
        }
        port_->kick(VirtioNet::kReceiveQueue);
        frame.bytes.assign(all.begin() + sizeof(NetHeader), all.end());
        return frame;
    }

    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<GuestMemory> memory_;
    test::Arena arena_;
    std::unique_ptr<VirtioNet> net_;
    std::optional<test::FakeDevicePort> port_;
    std::array<uint8_t, 6> host_mac_ = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
};

sockaddr_in endpoint(const char* host, uint16_t port) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(port);
    result.sin_addr.s_addr = address(host);
    return result;
}

using SocketCall = int (*)(int, const sockaddr*, socklen_t);

int with_address(SocketCall call, const UniqueFd& socket, const sockaddr_in& where) {
    return call(socket.get(), reinterpret_cast<const sockaddr*>(&where), sizeof(where));
}

UniqueFd udp_socket() {
    UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(with_address(&::bind, fd, endpoint(kHostAddress, 700)), 0);
    EXPECT_EQ(with_address(&::connect, fd, endpoint(kGuestAddress, 800)), 0);
    const timeval patience{3, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

bool is_udp(const Frame& frame) {
    return frame.is_ip(IPPROTO_UDP);
}
bool is_tcp(const Frame& frame) {
    return frame.is_ip(IPPROTO_TCP);
}

TEST(NetOnTap, TheHostAnswersPings) {
    IVMM_IN_OWN_NETWORK([] {
        Guest guest(0);
        guest.exchange_arp();
        Bytes echo = {std::byte{8}, std::byte{0}, std::byte{0}, std::byte{0}};
        for (int i = 0; i < 56; ++i) {
            echo.push_back(static_cast<std::byte>(i));
        }
        const auto check = static_cast<uint16_t>(~sum_of(echo));
        std::memcpy(&echo[2], &check, 2);
        Bytes frame = guest.ip(IPPROTO_ICMP, echo.size());
        frame.insert(frame.end(), echo.begin(), echo.end());
        guest.send(frame);
        const auto reply = guest.receive([](const Frame& f) { return f.is_ip(IPPROTO_ICMP); });
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->bytes[kUdpStart], std::byte{0});
        EXPECT_EQ(Bytes(reply->bytes.begin() + kUdpStart + 4, reply->bytes.end()),
                  Bytes(echo.begin() + 4, echo.end()));
        const auto counters = guest.net().counters();
        EXPECT_EQ(counters.transmitted_frames, 2U);
        EXPECT_EQ(counters.transmit_refused, 0U);
        EXPECT_GE(counters.received_frames, 2U);
    });
}

TEST(NetOnTap, TheHostCompletesTheGuestsChecksum) {
    IVMM_IN_OWN_NETWORK([] {
        Guest guest(kOffloadFeatures);
        guest.exchange_arp();
        const auto socket = udp_socket();
        const std::string text = "from the guest";
        const size_t length = sizeof(udphdr) + text.size();
        Bytes frame = guest.ip(IPPROTO_UDP, length);
        append(frame, udphdr{htons(800), htons(700), htons(static_cast<uint16_t>(length)),
                             sum_of({}, pseudo_header(address(kGuestAddress), address(kHostAddress),
                                                      IPPROTO_UDP, length))});
        for (const char c : text) {
            append(frame, c);
        }
        // Without the flag the checksum is simply wrong, and the host drops the datagram.
        guest.send(frame);
        NetHeader header{};
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = kUdpStart;
        header.csum_offset = 6;
        frame[kPayloadStart] = std::byte{'F'};
        guest.send(frame, header);
        std::array<char, 100> got{};
        ASSERT_EQ(::recv(socket.get(), got.data(), got.size(), 0),
                  static_cast<ssize_t>(text.size()));
        EXPECT_EQ(std::string(got.data()), "From the guest");
    });
}

TEST(NetOnTap, ChecksumsAreLeftToTheGuestOnlyIfItTakesThat) {
    IVMM_IN_OWN_NETWORK([] {
        for (const uint64_t features : {uint64_t{0}, kOffloadFeatures}) {
            Guest guest(features);
            guest.exchange_arp();
            const auto socket = udp_socket();
            ASSERT_EQ(::send(socket.get(), "from the host", 13, 0), 13);
            const auto frame = guest.receive(is_udp);
            ASSERT_TRUE(frame);
            const auto datagram = ConstByteSpan(frame->bytes).subspan(kUdpStart);
            const auto pseudo = pseudo_header(address(kHostAddress), address(kGuestAddress),
                                              IPPROTO_UDP, datagram.size());
            if (features == 0) {
                EXPECT_EQ(frame->header.flags, 0);
                EXPECT_EQ(sum_of(datagram, pseudo), 0xffff) << "the checksum is wrong";
            } else {
                EXPECT_EQ(frame->header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
                EXPECT_EQ(frame->header.csum_start, kUdpStart);
                EXPECT_EQ(frame->header.csum_offset, 6);
                EXPECT_EQ(frame->at<udphdr>(kUdpStart).check, sum_of({}, pseudo));
            }
        }
    });
}

TEST(NetOnTap, LongTcpSegmentsPassInBothDirections) {
    IVMM_IN_OWN_NETWORK([] {
        Guest guest(kOffloadFeatures);
        guest.exchange_arp();
        // The host connects; the guest answers.
        const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        with_address(&::connect, socket, endpoint(kGuestAddress, 80));
        const auto syn = guest.receive(is_tcp);
        ASSERT_TRUE(syn);
        const auto their = syn->at<tcphdr>(kUdpStart);
        ASSERT_TRUE(their.syn);
        tcphdr tcp{};
        tcp.source = their.dest;
        tcp.dest = their.source;
        tcp.seq = htonl(1000);
        tcp.ack_seq = htonl(ntohl(their.seq) + 1);
        tcp.syn = 1;
        tcp.ack = 1;
        guest.send_tcp(tcp, {});
        ASSERT_TRUE(guest.receive([](const Frame& f) {
            return is_tcp(f) && f.at<tcphdr>(kUdpStart).ack_seq == htonl(1001);
        }));

        // Guest to host: one frame of 20,000 bytes.
        tcp.syn = 0;
        tcp.seq = htonl(1001);
        NetHeader header{};
        header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        header.gso_size = 1400;
        header.hdr_len = kTcpPayloadStart;
        Bytes payload(20'000);
        for (size_t i = 0; i < payload.size(); ++i) {
            payload[i] = static_cast<std::byte>(i * 31 >> 3);
        }
        guest.send_tcp(tcp, payload, header);
        EXPECT_EQ(guest.net().counters().transmit_refused, 0U);
        ASSERT_TRUE(guest.receive([](const Frame& f) {
            return is_tcp(f) && f.at<tcphdr>(kUdpStart).ack_seq == htonl(21'001);
        }));
        Bytes got(payload.size());
        ASSERT_EQ(::recv(socket.get(), got.data(), got.size(), 0), 20'000);
        EXPECT_EQ(got, payload);

        // Host to guest: segments of the stream come in one piece.
        tcp.seq = htonl(21'001);
        ASSERT_EQ(::send(socket.get(), payload.data(), 5000, 0), 5000);
        const auto frame = guest.receive(
            [](const Frame& f) { return is_tcp(f) && f.bytes.size() > kTcpPayloadStart; });
        ASSERT_TRUE(frame);
        EXPECT_EQ(frame->header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
        EXPECT_GT(frame->header.gso_size, 0);
        EXPECT_LE(frame->header.gso_size, 1460);
        EXPECT_EQ(frame->header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
        EXPECT_GE(frame->header.num_buffers, 2);
        EXPECT_GT(frame->bytes.size(), 1514U) << "it was cut for the link";
        ASSERT_LE(frame->bytes.size(), kTcpPayloadStart + 5000);
        EXPECT_TRUE(std::equal(frame->bytes.begin() + kTcpPayloadStart, frame->bytes.end(),
                               payload.begin()));
        EXPECT_EQ(guest.net().counters().receive_dropped, 0U);
    });
}

TEST(NetOnTap, ALinkThatIsDownRefusesFrames) {
    IVMM_IN_OWN_NETWORK([] {
        Guest guest(0);
        guest.exchange_arp();
        const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq request{};
        std::strcpy(request.ifr_name, "ivmm-test");
        ASSERT_EQ(::ioctl(socket.get(), SIOCSIFFLAGS, &request), 0);  // no flags: down
        guest.send(guest.ip(IPPROTO_UDP, 0));
        EXPECT_EQ(guest.net().counters().transmit_refused, 1U);
    });
}

TEST(NetOnTap, ADeletedTapIsNotWatchedAnyMore) {
    IVMM_IN_OWN_NETWORK([] {
        Guest guest(0);
        guest.exchange_arp();
        struct {
            nlmsghdr header;
            ifinfomsg info;
        } request{};
        request.header.nlmsg_len = sizeof(request);
        request.header.nlmsg_type = RTM_DELLINK;
        request.header.nlmsg_flags = NLM_F_REQUEST;
        request.info.ifi_index = static_cast<int>(::if_nametoindex("ivmm-test"));
        const UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
        ASSERT_EQ(::send(socket.get(), &request, sizeof(request), 0),
                  static_cast<ssize_t>(sizeof(request)));
        ASSERT_EQ(::if_nametoindex("ivmm-test"), 0U);
        testing::internal::CaptureStderr();
        for (int i = 0; i < 10; ++i) {
            guest.run_loop();
        }
        const auto log = testing::internal::GetCapturedStderr();
        EXPECT_NE(log.find("was deleted"), std::string::npos);
        EXPECT_EQ(log.find("was deleted"), log.rfind("was deleted")) << "said more than once";
        guest.send(guest.ip(IPPROTO_UDP, 0));
        EXPECT_EQ(guest.net().counters().transmit_refused, 1U);
    });
}

}  // namespace
}  // namespace ivmm::virtio
