#include "net/headers.h"

#include <gtest/gtest.h>

#include "net/flow_key.h"
#include "tests/support/frames.h"

namespace ivmm::net {
namespace {

using test::Bytes;
using test::FrameBuilder;
using test::Peers;

Headers parse(const Bytes& bytes) {
    return parse_headers(bytes, bytes.size());
}

TEST(Headers, TellsWhoTalksToWhom) {
    Peers peers;
    peers.vlan = 5;
    const Headers headers = parse(test::tcp(peers, 1000, 22, kTcpSyn, "x"));
    ASSERT_TRUE(headers.is_tcp());
    EXPECT_EQ(to_string(flow_key(headers, Direction::kIn)),
              "tcp 198.51.100.7:1000 192.0.2.10:22 vlan 5");
    EXPECT_EQ(headers.tcp_flags, kTcpSyn);
    EXPECT_EQ(headers.payload_offset, 18 + 40);
    EXPECT_EQ(headers.packet_end, 18U + 41);
}

TEST(Headers, SeesThroughExtensionHeaders) {
    const Bytes bytes = FrameBuilder({}, {})
                            .ip("2001:db8::1", "2001:db8::2", 0, 8 + 8 + 8)  // hop by hop
                            .be32(0x2c000000)
                            .be32(0)
                            .be32(0x11000001)  // a first fragment
                            .be32(77)
                            .be32(0x00350036)
                            .be32(0x00080000)
                            .bytes();
    const Headers headers = parse(bytes);
    ASSERT_TRUE(headers.is_udp());
    EXPECT_EQ(headers.tuple.source_port, 0x35);
    EXPECT_EQ(headers.fragment, Headers::Fragment::kFirst);
    EXPECT_EQ(headers.fragment_id, 77U);
    EXPECT_TRUE(headers.has_options);
}

TEST(Headers, ReadsWhatAnIcmpErrorComplainsAbout) {
    const Headers headers = parse(test::unreachable({}, "192.0.2.10", 22, "198.51.100.7", 1000));
    ASSERT_TRUE(headers.embedded.has_value());
    EXPECT_EQ(to_string(embedded_flow_key(headers, Direction::kIn)),
              "tcp 198.51.100.7:1000 192.0.2.10:22");
}

TEST(Headers, WhatIsCutOffIsMalformedOrHasNoPorts) {
    const Bytes whole = test::tcp({}, 1000, 22, kTcpSyn);
    for (size_t length = 0; length < whole.size(); ++length) {
        const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        EXPECT_EQ(parse(cut).kind, Headers::Kind::kMalformed) << length;
        const Headers head = parse_headers(cut, whole.size());
        EXPECT_TRUE(head.kind == Headers::Kind::kMalformed || head.no_ports) << length;
    }
}

TEST(Headers, TooManyTagsAndMappedAddressesAreMalformed) {
    EXPECT_EQ(parse(FrameBuilder({}, {}).vlan(1).vlan(2).vlan(3).type(0x0800).be32(0).bytes()).kind,
              Headers::Kind::kMalformed);
    FrameBuilder mapped({}, {});
    mapped.type(0x86dd).be32(0x60000000).be32(0x00003b40);
    mapped.append(*parse_ip("192.0.2.1"), 0).append(*parse_ip("192.0.2.2"), 0);
    EXPECT_EQ(parse(mapped.bytes()).kind, Headers::Kind::kMalformed);
}

}  // namespace
}  // namespace ivmm::net
