#pragma once

#include <deque>
#include <string>
#include <vector>

#include "net/port.h"
#include "net/wire.h"

/// Frames for tests of the switch, and what they are sent through.
namespace ivmm::net::test {

using Bytes = std::vector<std::byte>;

inline const MacAddress kGuestMac{2, 0, 0, 0, 0, 1};
inline const MacAddress kGatewayMac{2, 0, 0, 0, 0, 0xfe};
inline const MacAddress kEverybody{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/// Builds a frame from the outside in.
class FrameBuilder {
 public:
    FrameBuilder(const MacAddress& from, const MacAddress& to) {
        append(to);
        append(from);
    }
    FrameBuilder& vlan(uint16_t id, uint16_t type = 0x8100) {
        be16(type);
        be16(id);
        return *this;
    }
    FrameBuilder& type(uint16_t ether_type) {
        be16(ether_type);
        return *this;
    }
    /// An IP header of either family, in front of `length` bytes. `fragment`: of IPv4, the field
    /// with flags and offset.
    FrameBuilder& ip(const char* from, const char* to, uint8_t protocol, size_t length,
                     uint16_t fragment = 0, uint16_t id = 1) {
        const IpAddress source = *parse_ip(from);
        const IpAddress destination = *parse_ip(to);
        if (source.is_v4()) {
            be16(0x0800);
            const size_t start = bytes_.size();
            be16(0x4500);
            be16(static_cast<uint16_t>(20 + length));
            be16(id);
            be16(fragment);
            be8(64);
            be8(protocol);
            be16(0);
            append(source, 12);
            append(destination, 12);
            Checksum sum;
            sum.add(ConstByteSpan(bytes_).subspan(start));
            store_be16(bytes_, start + 10, sum.value());
        } else {
            be16(0x86dd);
            be16(0x6000);
            be16(0);
            be16(static_cast<uint16_t>(length));
            be8(protocol);
            be8(64);
            append(source, 0);
            append(destination, 0);
        }
        return *this;
    }
    FrameBuilder& be8(uint8_t value) {
        bytes_.push_back(std::byte{value});
        return *this;
    }
    FrameBuilder& be16(uint16_t value) {
        return be8(static_cast<uint8_t>(value >> 8)).be8(static_cast<uint8_t>(value));
    }
    FrameBuilder& be32(uint32_t value) {
        return be16(static_cast<uint16_t>(value >> 16)).be16(static_cast<uint16_t>(value));
    }
    FrameBuilder& text(std::string_view text) {
        for (const char c : text) {
            be8(static_cast<uint8_t>(c));
        }
        return *this;
    }
    FrameBuilder& append(const MacAddress& mac) {
        for (const uint8_t byte : mac) {
            be8(byte);
        }
        return *this;
    }
    FrameBuilder& append(const IpAddress& address, size_t first) {
        for (size_t i = first; i < 16; ++i) {
            be8(address.bytes[i]);
        }
        return *this;
    }
    const Bytes& bytes() const { return bytes_; }

 private:
    Bytes bytes_;
};

/// Who talks to whom.
struct Peers {
    MacAddress from_mac = kGatewayMac;
    MacAddress to_mac = kGuestMac;
    const char* from = "198.51.100.7";
    const char* to = "192.0.2.10";
    uint16_t vlan = 0;

    Peers back() const { return {to_mac, from_mac, to, from, vlan}; }
    FrameBuilder ethernet() const {
        FrameBuilder frame(from_mac, to_mac);
        if (vlan != 0) {
            frame.vlan(vlan);
        }
        return frame;
    }
};

inline Bytes tcp(const Peers& peers, uint16_t from_port, uint16_t to_port, uint8_t flags,
                 std::string_view payload = {}, uint32_t sequence = 1) {
    return peers.ethernet()
        .ip(peers.from, peers.to, kTcp, 20 + payload.size())
        .be16(from_port)
        .be16(to_port)
        .be32(sequence)
        .be32(0)
        .be8(0x50)
        .be8(flags)
        .be16(1024)
        .be32(0)
        .text(payload)
        .bytes();
}

inline Bytes udp(const Peers& peers, uint16_t from_port, uint16_t to_port,
                 std::string_view payload = {}) {
    return peers.ethernet()
        .ip(peers.from, peers.to, kUdp, 8 + payload.size())
        .be16(from_port)
        .be16(to_port)
        .be16(static_cast<uint16_t>(8 + payload.size()))
        .be16(0)
        .text(payload)
        .bytes();
}

inline Bytes ping(const Peers& peers, uint16_t id, bool reply = false) {
    return peers.ethernet()
        .ip(peers.from, peers.to, kIcmp, 8)
        .be8(reply ? 0 : 8)
        .be8(0)
        .be16(0)
        .be16(id)
        .be16(1)
        .bytes();
}

/// "Port unreachable", about a TCP packet of the receiver's.
inline Bytes unreachable(const Peers& peers, const char* about_from, uint16_t from_port,
                         const char* about_to, uint16_t to_port) {
    FrameBuilder inner({}, {});
    inner.ip(about_from, about_to, kTcp, 20).be16(from_port).be16(to_port).be32(1);
    FrameBuilder frame = peers.ethernet();
    frame.ip(peers.from, peers.to, kIcmp, 8 + 28).be8(3).be8(3).be16(0).be32(0);
    for (size_t i = 14; i < inner.bytes().size(); ++i) {
        frame.be8(std::to_integer<uint8_t>(inner.bytes()[i]));
    }
    return frame.bytes();
}

inline Bytes arp(const Peers& peers, uint16_t operation, const char* sender, const char* target) {
    FrameBuilder frame = peers.ethernet();
    frame.type(0x0806).be16(1).be16(0x0800).be16(0x0604).be16(operation);
    frame.append(peers.from_mac).append(*parse_ip(sender), 12);
    frame.append(MacAddress{}).append(*parse_ip(target), 12);
    return frame.bytes();
}

/// A port whose two ends are lists.
class MemoryPort final : public Port {
 public:
    struct Ends {
        std::deque<std::pair<VnetHeader, Bytes>> to_switch;
        std::vector<std::pair<VnetHeader, Bytes>> from_switch;
        size_t room = SIZE_MAX;
        Offloads offloads{true, true, true, true};
        int flushes = 0;
    };
    explicit MemoryPort(Ends& ends) : ends_(ends) {}

    size_t receive(std::span<Frame> frames) override {
        given_.clear();
        for (size_t i = 0; i < frames.size() && !ends_.to_switch.empty(); ++i) {
            given_.push_back(std::move(ends_.to_switch.front()));
            ends_.to_switch.pop_front();
        }
        for (size_t i = 0; i < given_.size(); ++i) {
            const ByteSpan bytes(given_[i].second);
            const size_t head = std::min(bytes.size(), kHeadLength);
            frames[i] = {given_[i].first, bytes.first(head), bytes.subspan(head)};
        }
        return given_.size();
    }
    bool send(const Frame& frame) override {
        if (ends_.from_switch.size() >= ends_.room) {
            return false;
        }
        Bytes bytes(frame.head.begin(), frame.head.end());
        bytes.insert(bytes.end(), frame.tail.begin(), frame.tail.end());
        ends_.from_switch.emplace_back(frame.vnet, std::move(bytes));
        return true;
    }
    void flush() override { ++ends_.flushes; }
    Offloads offloads() const override { return ends_.offloads; }
    std::vector<StoredFrame> take_back(const Wanted& wanted) override {
        std::vector<StoredFrame> taken;
        std::erase_if(ends_.from_switch, [&](auto& one) {
            const ByteSpan bytes(one.second);
            const size_t head = std::min(bytes.size(), kHeadLength);
            const Frame frame{one.first, bytes.first(head), bytes.subspan(head)};
            if (wanted(frame)) {
                taken.emplace_back(frame);
                return true;
            }
            return false;
        });
        return taken;
    }

 private:
    Ends& ends_;
    std::deque<std::pair<VnetHeader, Bytes>> given_;
};

}  // namespace ivmm::net::test
