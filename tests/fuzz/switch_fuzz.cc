// What guests, clones and the network may send through a switch, with virtio-net headers that lie.
// The input is a list of steps: frames that are built of its bytes, so that they get past the first
// checks, and what an operator does. Whatever it is, a port gets only what it can take, cut and
// summed correctly, and a clone reaches only whom it may.

#include <cstdlib>
#include <map>

#include "net/segments.h"
#include "net/switch.h"
#include "tests/fuzz/input.h"
#include "tests/support/frames.h"

namespace ivmm::net {
namespace {

using test::Bytes;
using test::FrameBuilder;
using test::kEverybody;
using test::kGatewayMac;
using test::kGuestMac;

constexpr MacAddress kOtherMac{2, 0, 0, 0, 0, 2};
constexpr MacAddress kSinkMac{2, 0, 0, 0, 0, 3};
constexpr const char* kAttacker = "198.51.100.7";
constexpr int kMaxSteps = 64;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

struct Input : fuzz::Input {
    uint8_t u8() { return next<uint8_t>(); }
    uint16_t u16() {
        const uint8_t high = u8();
        return static_cast<uint16_t>(high << 8 | u8());
    }
    template <class T, size_t N>
    T one_of(const std::array<T, N>& all) {
        return all[u8() % N];
    }
};

/// The sum over a TCP or UDP segment and its pseudo-header: 0xffff if it is right.
uint16_t transport_sum(ConstByteSpan frame, const Headers& headers) {
    Checksum sum;
    const size_t first = headers.tuple.source.is_v4() ? 12 : 0;
    sum.add(std::as_bytes(std::span(headers.tuple.source.bytes)).subspan(first));
    sum.add(std::as_bytes(std::span(headers.tuple.destination.bytes)).subspan(first));
    sum.add_be16(headers.tuple.protocol);
    const auto segment = frame.first(headers.packet_end).subspan(headers.transport_offset);
    sum.add_be16(static_cast<uint16_t>(segment.size()));
    sum.add(segment);
    return sum.folded();
}

Bytes joined(const Frame& frame) {
    Bytes bytes(frame.head.begin(), frame.head.end());
    bytes.insert(bytes.end(), frame.tail.begin(), frame.tail.end());
    return bytes;
}

/// Cuts a frame as for a port that can do nothing: the pieces are right, and together are the
/// whole.
void check_pieces(const Bytes& given, VnetHeader vnet) {
    Bytes bytes = given;
    const size_t head = std::min(bytes.size(), kHeadLength);
    const Headers headers = parse_headers(ByteSpan(bytes).first(head), bytes.size());
    if (!make_honest(vnet, headers) || takes({}, vnet)) {
        return;
    }
    // Of a frame that asks for a checksum the field holds the pseudo-header's sum; what else is in
    // it is a wrong checksum, and stays one. So here it is made right.
    Checksum pseudo;
    const size_t first = headers.tuple.source.is_v4() ? 12 : 0;
    pseudo.add(std::as_bytes(std::span(headers.tuple.source.bytes)).subspan(first));
    pseudo.add(std::as_bytes(std::span(headers.tuple.destination.bytes)).subspan(first));
    pseudo.add_be16(headers.tuple.protocol);
    pseudo.add_be16(static_cast<uint16_t>(headers.packet_end - headers.transport_offset));
    store_be16(bytes, size_t{vnet.checksum_start} + vnet.checksum_offset, pseudo.folded());

    const ByteSpan all(bytes);
    const bool cut = vnet.gso_type != VnetHeader::kGsoNone;
    Bytes payload;
    size_t pieces = 0;
    complete({vnet, all.first(head), all.subspan(head)}, headers, [&](const Frame& piece) {
        ++pieces;
        require(piece.vnet == VnetHeader{});
        const Bytes whole = joined(piece);
        require(whole.size() <= bytes.size());
        const Headers now = parse_headers(piece.head, whole.size());
        require(now.is_ip() && now.tuple.protocol == headers.tuple.protocol);
        require(now.packet_end == whole.size() || !cut);
        require(transport_sum(whole, now) == 0xffff);
        require(now.payload_offset == headers.payload_offset);
        require(!cut || now.packet_end - now.payload_offset <= vnet.gso_size);
        if (cut) {
            require(load_be32(whole, size_t{now.transport_offset} + 4) ==
                    static_cast<uint32_t>(load_be32(bytes, size_t{now.transport_offset} + 4) +
                                          payload.size()));
        }
        if (cut && now.tuple.source.is_v4()) {
            const auto ip = ConstByteSpan(whole).subspan(now.network_offset);
            Checksum sum;
            sum.add(ip.first((load8(ip, 0) & 0xfU) * size_t{4}));
            require(sum.folded() == 0xffff);
        }
        payload.insert(payload.end(), whole.begin() + now.payload_offset,
                       whole.begin() + static_cast<std::ptrdiff_t>(now.packet_end));
        return true;
    });
    require(pieces > 0);
    require(std::equal(payload.begin(), payload.end(), bytes.begin() + headers.payload_offset,
                       bytes.begin() + static_cast<std::ptrdiff_t>(headers.packet_end)));
}

class Bed {
 public:
    explicit Bed(Input input)
        : input_(input),
          net_({.flows = 64, .diversions = {.most = 8, .most_per_minute = 1000, .never = {}}},
               [](const Event& event) { require(event.name[0] != 0); }) {
        uplink_ = *net_.add_uplink("up");
        mirror_ = *net_.add_mirror("mirror");
        sink_ = *net_.add_sink("sink", kSinkMac);
        guest_ = *net_.add_guest("web", kGuestMac);
        other_ = *net_.add_guest("other", kOtherMac);
        const uint8_t choice = input_.u8() % 5;
        strict_ = choice == 0;
        open_ = choice == 1;
        clone_ = *net_.add_clone("trap", guest_, policy(choice));
        for (const PortId id : {uplink_, mirror_, sink_, guest_, other_, clone_}) {
            attach(id);
        }
        // So that the gateway and the guest are known, and the attacker has talked.
        send(guest_, frame({kGuestMac, kEverybody}, "192.0.2.10", kAttacker, 9, 9), {});
        send(uplink_, frame({kGatewayMac, kGuestMac}, kAttacker, "192.0.2.10", 1000, 22), {});
    }

    void run() {
        for (int steps = 0; steps < kMaxSteps && !input_.rest.empty(); ++steps) {
            const uint8_t step = input_.u8();
            if (step < 224) {
                send_one(step);
            } else {
                operate(step);
            }
        }
        static_cast<void>(net_.ports());
        static_cast<void>(net_.diversions());
        for (const auto& table : net_.tables()) {
            require(table.flows <= 64);
        }
    }

 private:
    /// A port that checks what it gets.
    class CheckedPort final : public Port {
     public:
        CheckedPort(Bed& bed, PortId id, Offloads able) : bed_(bed), id_(id), able_(able) {}
        size_t receive(std::span<Frame> frames) override {
            if (next_.empty()) {
                return 0;
            }
            given_ = std::exchange(next_, {});
            const ByteSpan bytes(given_);
            const size_t head = std::min(bytes.size(), kHeadLength);
            frames[0] = {vnet_, bytes.first(head), bytes.subspan(head)};
            return 1;
        }
        bool send(const Frame& frame) override {
            bed_.check(id_, frame, able_);
            return --room_ % 16 != 0;  // full now and then
        }
        void flush() override {}
        Offloads offloads() const override { return able_; }
        void give(const Bytes& bytes, const VnetHeader& vnet) {
            next_ = bytes;
            vnet_ = vnet;
        }

     private:
        Bed& bed_;
        const PortId id_;
        const Offloads able_;
        Bytes next_;
        Bytes given_;
        VnetHeader vnet_;
        unsigned room_ = 0;
    };

    struct Ends {
        MacAddress from;
        MacAddress to;
    };

    static Policy policy(uint8_t choice) {
        switch (choice) {
            case 0:
                return {};
            case 1:
                return *preset_policy("research");
            case 2:
                return *parse_policy("[[rule]]\nverdict='reflect'\nvia='self'\n", "p");
            case 3:
                return *parse_policy("[[rule]]\nverdict='redirect'\nvia='sink'\n", "p");
            default:
                return *parse_policy(
                    "names = {'*' = ['203.0.113.5', '2001:db8:f::1']}\n"
                    "[[rule]]\nprotocol='udp'\nports=[53, 123]\nverdict='answer'\n",
                    "p");
        }
    }

    void attach(PortId id) {
        const uint8_t able = id == mirror_ ? uint8_t{0} : input_.u8();
        auto port = std::make_unique<CheckedPort>(*this, id, offloads_from_bits(able));
        ends_[id] = port.get();
        net_.attach(id, std::move(port));
    }

    static Offloads offloads_from_bits(uint8_t bits) {
        const bool checksum = (bits & 1U) != 0;
        return {checksum, checksum && (bits & 2U) != 0, checksum && (bits & 4U) != 0,
                checksum && (bits & 8U) != 0};
    }

    /// What has come out of the switch at a port.
    void check(PortId at, const Frame& frame, const Offloads& able) {
        require(frame.size() >= kMinFrameLength && frame.size() <= kMaxFrameLength);
        require(takes(able, frame.vnet));
        const Headers headers = parse_headers(frame.head, frame.size());
        VnetHeader honest = frame.vnet;
        honest.flags &= VnetHeader::kNeedsChecksum;
        const VnetHeader told = honest;
        require(make_honest(honest, headers) && honest == told);
        // Of what is completed here, the pieces are looked at in check_pieces().
        if (sender_ == clone_ && at != clone_ && at != mirror_ && at != sink_) {
            require(headers.is_ip());
            const bool his = headers.tuple.destination == *parse_ip(kAttacker);
            require(his ? diverted_ || open_
                        : open_ && !always_unreachable(headers.tuple.destination));
        }
        if (at == clone_ && sender_ == uplink_ && !is_multicast(headers.destination)) {
            // Only the attacker's, or answers to what the clone has begun.
            require(headers.is_ip());
            require(headers.tuple.source == *parse_ip(kAttacker) || !strict_ || headers.embedded);
        }
    }

    void send(PortId from, const Bytes& bytes, const VnetHeader& vnet) {
        if (!net_.is_attached(from)) {
            return;
        }
        sender_ = from;
        ends_.at(from)->give(bytes, vnet);
        now_ns_ += 1'000'000;
        net_.poll(from, now_ns_);
        sender_ = kNobody;
    }

    /// TCP without options and payload.
    static Bytes frame(const Ends& ends, const char* from, const char* to, uint16_t from_port,
                       uint16_t to_port) {
        return test::tcp({ends.from, ends.to, from, to, 0}, from_port, to_port, kTcpSyn);
    }

    Bytes build() {
        static const std::array<MacAddress, 6> kMacs{kGuestMac, kGatewayMac, kOtherMac,
                                                     kSinkMac,  kEverybody,  {2, 9, 9, 9, 9, 9}};
        static constexpr std::array<const char*, 6> kV4{"192.0.2.10", kAttacker,     "203.0.113.5",
                                                        "10.0.0.1",   "224.0.0.251", "192.0.2.20"};
        static constexpr std::array<const char*, 4> kV6{"2001:db8::10", "2001:db8:f::1", "ff02::1",
                                                        "fe80::1"};
        static constexpr std::array<uint8_t, 6> kProtocols{kTcp, kUdp, kIcmp, kIcmpV6, 2, 44};
        static constexpr std::array<uint16_t, 4> kFragments{0, 0x2000, 3, 0x2003};
        static constexpr std::array<uint16_t, 5> kPorts{22, 1000, 53, 67, 123};
        const MacAddress from_mac = input_.one_of(kMacs);
        FrameBuilder frame(from_mac, input_.one_of(kMacs));
        const uint8_t shape = input_.u8();
        if ((shape & 1U) != 0) {
            frame.vlan(input_.u8());
        }
        if ((shape & 2U) != 0) {
            frame.vlan(input_.u8(), 0x88a8);
        }
        if ((shape & 0x1cU) == 0x1cU) {  // anything
            const auto raw = input_.next(input_.u8());
            for (const std::byte byte : raw) {
                frame.be8(std::to_integer<uint8_t>(byte));
            }
            return frame.bytes();
        }
        const bool v6 = (shape & 0x20U) != 0;
        const uint8_t protocol = input_.one_of(kProtocols);
        const uint16_t fragment = (shape & 0x40U) != 0 ? input_.one_of(kFragments) : uint16_t{0};
        const char* const from = v6 ? input_.one_of(kV6) : input_.one_of(kV4);
        const char* const to = v6 ? input_.one_of(kV6) : input_.one_of(kV4);
        FrameBuilder transport({}, {});
        if (protocol == kTcp) {
            const uint8_t offset = (shape & 0x80U) != 0 ? input_.u8() : uint8_t{0x50};
            transport.be16(input_.one_of(kPorts)).be16(input_.one_of(kPorts));
            transport.be32(input_.u16()).be32(0).be8(offset).be8(input_.u8()).be16(1024).be32(0);
        } else if (protocol == kUdp) {
            transport.be16(input_.one_of(kPorts)).be16(input_.one_of(kPorts)).be32(0);
        }
        for (const std::byte byte : input_.next(input_.u8())) {
            transport.be8(std::to_integer<uint8_t>(byte));
        }
        const size_t more = (shape & 0x04U) != 0 ? input_.u16() % 60000U : 0;
        const size_t length = transport.bytes().size() - 12 + more;
        frame.ip(from, to, protocol, length, fragment, input_.u8());
        Bytes bytes = frame.bytes();
        if (v6 && (shape & 0x40U) != 0) {  // addresses of the other family, mapped
            const IpAddress mapped = *parse_ip(kAttacker);
            const auto place = bytes.end() - (input_.u8() % 2 == 0 ? 16 : 32);
            std::copy_n(std::as_bytes(std::span(mapped.bytes)).begin(), 16, place);
        }
        bytes.insert(bytes.end(), transport.bytes().begin() + 12, transport.bytes().end());
        bytes.resize(bytes.size() + more);
        if ((shape & 0x08U) != 0) {
            bytes.resize(bytes.size() - input_.u8() % bytes.size());  // cut off
        }
        return bytes;
    }

    /// Nearly true, or anything.
    VnetHeader vnet_of(const Bytes& bytes) {
        VnetHeader vnet;
        const uint8_t kind = input_.u8();
        if (kind % 4 == 0) {
            return vnet;
        }
        const Headers headers = parse_headers(
            ConstByteSpan(bytes).first(std::min(bytes.size(), kHeadLength)), bytes.size());
        vnet.flags = VnetHeader::kNeedsChecksum;
        vnet.checksum_start = headers.transport_offset;
        vnet.checksum_offset = headers.is_tcp() ? 16 : 6;
        if (kind % 4 >= 2) {
            vnet.gso_type =
                headers.tuple.source.is_v4() ? VnetHeader::kGsoTcpV4 : VnetHeader::kGsoTcpV6;
            vnet.gso_size = input_.u16();
        }
        if (kind % 4 == 3) {  // one thing of it is a lie
            std::array<std::byte, sizeof(VnetHeader)> raw{};
            std::memcpy(raw.data(), &vnet, sizeof(vnet));
            raw[input_.u8() % raw.size()] = std::byte{input_.u8()};
            std::memcpy(&vnet, raw.data(), sizeof(vnet));
        }
        return vnet;
    }

    void send_one(uint8_t choice) {
        const std::array<PortId, 5> senders{uplink_, guest_, clone_, sink_, other_};
        const Bytes bytes = build();
        if (bytes.empty()) {
            return;
        }
        const VnetHeader vnet = vnet_of(bytes);
        check_pieces(bytes, vnet);
        send(senders[choice % senders.size()], bytes, vnet);
    }

    void operate(uint8_t step) {
        Selector selector;
        selector.remote = *parse_ip(kAttacker);
        const std::array<Scope, 2> scopes{Scope::kIp, Scope::kIpAndNewFlows};
        selector.scope = input_.one_of(scopes);
        switch (step % 8) {
            case 0:
                diverted_ |= net_.divert(clone_, selector, input_.u8(), false).has_value();
                break;
            case 1:
                if (net_.undivert(guest_, selector)) {
                    diverted_ = false;
                }
                break;
            case 2:
                if (const auto hold = net_.begin_hold(guest_, selector, {{4, 4096}, 100})) {
                    hold_ = *hold;
                }
                break;
            case 3:
                diverted_ |= net_.commit_hold(hold_, clone_, 0).has_value();
                break;
            case 4:
                net_.roll_back_hold(hold_);
                break;
            case 5:
                now_ns_ += uint64_t{input_.u8()} * 100'000'000;
                net_.tick(now_ns_);
                break;
            case 6:
                net_.detach(clone_);
                break;
            default:
                attach(clone_);
        }
    }

    static constexpr PortId kNobody = 254;
    Input input_;
    Switch net_;
    std::map<PortId, CheckedPort*> ends_;
    uint64_t now_ns_ = 1'000'000'000;
    PortId uplink_ = 0;
    PortId mirror_ = kNobody;
    PortId sink_ = 0;
    PortId guest_ = 0;
    PortId other_ = 0;
    PortId clone_ = 0;
    PortId sender_ = kNobody;
    Switch::HoldId hold_ = 0;
    bool diverted_ = false;  // to the clone
    bool strict_ = false;    // its policy lets it begin nothing
    bool open_ = false;      // … something outside
};

}  // namespace
}  // namespace ivmm::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    ivmm::net::Bed({std::as_bytes(std::span(data, size))}).run();
    return 0;
}
