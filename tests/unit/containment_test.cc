// What a clone tries, and that none of it gets out.

#include <gtest/gtest.h>

#include "tests/support/switch_bed.h"

namespace ivmm::net {
namespace {

using test::Bytes;
using test::FrameBuilder;
using test::kEverybody;
using test::kGatewayMac;
using test::kGuestMac;
using test::Peers;
using test::SwitchBed;
using test::tcp;
using test::udp;
using test::whole;

const Peers kIn;
const Peers kOut = kIn.back();
const Peers kFar{kGuestMac, kGatewayMac, "192.0.2.10", "203.0.113.80"};

class Escape : public testing::TestWithParam<const char*> {
 protected:
    /// That a frame of the clone reaches neither the outside nor another guest.
    static void expect_contained(SwitchBed& bed, const Bytes& frame, const VnetHeader& vnet = {}) {
        bed.send(bed.clone, frame, vnet);
        EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
        EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    }
};

TEST_P(Escape, Fails) {
    SwitchBed bed(*preset_policy(GetParam()));
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole(), 0, false));
    bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpSyn));
    bed.clear();

    Peers spoofed = kFar;
    spoofed.from_mac = {2, 9, 9, 9, 9, 9};
    expect_contained(bed, tcp(spoofed, 1, 80, kTcpSyn));
    spoofed = kFar;
    spoofed.from = "192.0.2.99";
    expect_contained(bed, tcp(spoofed, 1, 80, kTcpSyn));
    spoofed = kFar;
    spoofed.vlan = 7;
    expect_contained(bed, tcp(spoofed, 1, 80, kTcpSyn));
    EXPECT_EQ(bed.drops(bed.clone, Drop::kSpoofed), 3U);
    // Double tags.
    expect_contained(bed, FrameBuilder(kGuestMac, kGatewayMac)
                              .vlan(1, 0x88a8)
                              .vlan(7)
                              .ip("192.0.2.10", "203.0.113.80", kUdp, 8)
                              .be32(0x00010035)
                              .be32(0x00080000)
                              .bytes());
    // A protocol other than IP, and one that nobody understands.
    expect_contained(bed, FrameBuilder(kGuestMac, kEverybody).type(0x88cc).be32(0).bytes());
    expect_contained(bed, FrameBuilder(kGuestMac, kGatewayMac).type(0x0800).be32(0).bytes());
    // To all, to a group, to the primary, to private networks and the metadata service.
    Peers to_all = kFar;
    to_all.to_mac = kEverybody;
    to_all.to = "255.255.255.255";
    expect_contained(bed, udp(to_all, 1, 9));
    for (const char* const address :
         {"224.0.0.251", "10.0.0.1", "192.168.1.1", "169.254.169.254", "192.0.2.10", "127.0.0.1"}) {
        Peers peers = kFar;
        peers.to = address;
        expect_contained(bed, tcp(peers, 1, 80, kTcpSyn));
    }
    // Straight to a station that nobody knows.
    Peers unknown = kFar;
    unknown.to_mac = {2, 7, 7, 7, 7, 7};
    expect_contained(bed, udp(unknown, 1, 9));
    // Fragments: tiny ones, and such that belong to nothing.
    expect_contained(
        bed,
        kFar.ethernet().ip(kFar.from, kFar.to, kTcp, 8, 0x2000).be32(0x00010050).be32(0).bytes());
    expect_contained(bed,
                     kFar.ethernet().ip(kFar.from, kFar.to, kTcp, 8, 5).be32(0).be32(0).bytes());
    // IPv4 options (a source route) and IPv6 extension headers.
    expect_contained(bed, kFar.ethernet()
                              .type(0x0800)
                              .be32(0x46000020)
                              .be32(0)
                              .be32(0x40110000)
                              .append(*parse_ip("192.0.2.10"), 12)
                              .append(*parse_ip("203.0.113.80"), 12)
                              .be32(0x83030400)
                              .be32(0x00010035)
                              .be32(0x00080000)
                              .bytes());
    expect_contained(bed, kFar.ethernet()
                              .type(0x86dd)
                              .be32(0x60000000)
                              .be32(0x00103c40)
                              .append(*parse_ip("2001:db8::10"), 0)
                              .append(*parse_ip("2001:db8:f::1"), 0)
                              .be32(0x11000000)
                              .be32(0)
                              .be32(0x00010035)
                              .be32(0x00080000)
                              .bytes());
    // A GSO header that lies: over UDP, and beyond the frame.
    VnetHeader lie;
    lie.flags = VnetHeader::kNeedsChecksum;
    lie.gso_type = VnetHeader::kGsoTcpV4;
    lie.gso_size = 1;
    lie.checksum_start = 34;
    lie.checksum_offset = 16;
    expect_contained(bed, tcp(kOut, 22, 1000, kTcpAck, "x"), lie);
    lie.gso_size = 1000;
    lie.checksum_start = 60000;
    expect_contained(bed, tcp(kOut, 22, 1000, kTcpAck, "x"), lie);
    EXPECT_EQ(bed.drops(bed.clone, Drop::kMalformed), 2U);
    // Neighbour discovery: a poisoned advertisement.
    expect_contained(bed, kFar.ethernet()
                              .ip("2001:db8::10", "ff02::1", kIcmpV6, 24)
                              .be32(0x88000000)
                              .be32(0x20000000)
                              .append(*parse_ip("2001:db8::1"), 0)
                              .bytes());
    // A complaint about a flow that is somebody else's.
    expect_contained(bed, test::unreachable(kOut, "203.0.113.5", 1, "192.0.2.10", 22));
    // All of this was told, and the flow that was diverted still works.
    EXPECT_GT(bed.count_events("contained"), 0U);
    EXPECT_GT(bed.count_events("spoofed"), 0U);
    EXPECT_GT(bed.count_events("malformed"), 0U);
    EXPECT_GT(bed.count_events("suppressed"), 0U);
    bed.send(bed.clone, tcp(kOut, 22, 1000, kTcpSyn | kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Presets, Escape, testing::Values("strict", "honeywall", "research"));

TEST(Containment, HoneywallCountsFlowsAnHour) {
    SwitchBed bed(*preset_policy("honeywall"));
    for (uint16_t port = 1; port <= 30; ++port) {
        bed.send(bed.clone, tcp(kFar, port, 80, kTcpSyn));
        bed.send(bed.clone, udp(kFar, port, 53));
        bed.send(bed.clone, test::ping(kFar, port));
    }
    EXPECT_EQ(bed.take(bed.uplink).size(), 20U + 20U + 30U);
    // A flow that was allowed goes on, and gets its answers.
    bed.send(bed.clone, tcp(kFar, 1, 80, kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
    bed.send(bed.uplink, tcp(kFar.back(), 80, 1, kTcpAck));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    bed.pass(3'600'000);
    bed.send(bed.uplink, tcp(kFar.back(), 80, 1, kTcpAck));  // the gateway is known again
    bed.clear();
    bed.send(bed.clone, tcp(kFar, 100, 80, kTcpSyn));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
}

TEST(Containment, StrictLetsNothingBegin) {
    SwitchBed bed;
    bed.send(bed.clone, tcp(kFar, 1, 80, kTcpSyn));
    bed.send(bed.clone, udp(kFar, 1, 53));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    EXPECT_EQ(bed.drops(bed.clone, Drop::kContained), 2U);
}

TEST(Containment, ReflectTurnsTheFlowRound) {
    auto policy = parse_policy("[[rule]]\nprotocol='tcp'\nverdict='reflect'\nvia='self'\n", "p");
    ASSERT_TRUE(policy.has_value()) << policy.error().message;
    SwitchBed bed(*policy);
    bed.send(bed.clone, tcp(kFar, 1000, 80, kTcpSyn));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    EXPECT_EQ(bed.take(bed.clone), std::vector<Bytes>{tcp(kFar.back(), 1000, 80, kTcpSyn)});
    // Its server answers, and its client gets that.
    bed.send(bed.clone, tcp(kFar, 80, 1000, kTcpSyn | kTcpAck));
    EXPECT_EQ(bed.take(bed.clone),
              std::vector<Bytes>{tcp(kFar.back(), 80, 1000, kTcpSyn | kTcpAck)});
}

TEST(Containment, RedirectGoesToTheSinkAndBack) {
    auto policy = parse_policy("[[rule]]\nverdict='redirect'\nvia='sink'\n", "p");
    ASSERT_TRUE(policy.has_value()) << policy.error().message;
    SwitchBed bed(*policy);
    bed.send(bed.clone, udp(kFar, 1, 53));
    EXPECT_EQ(bed.drops(bed.clone, Drop::kContained), 1U);  // there is no sink yet
    const MacAddress sink_mac{2, 5, 5, 5, 5, 5};
    const PortId sink = *bed.net.add_sink("sink", sink_mac);
    bed.attach(sink);
    bed.send(bed.clone, udp(kFar, 1, 53));
    Peers arrived = kFar;
    arrived.to_mac = sink_mac;
    EXPECT_EQ(bed.take(sink), std::vector<Bytes>{udp(arrived, 1, 53)});
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    bed.send(sink, udp(arrived.back(), 53, 1));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    bed.send(sink, udp(arrived.back(), 53, 2));  // nobody has asked
    EXPECT_EQ(bed.take(bed.clone).size() + bed.take(bed.guest).size(), 0U);
}

/// A query of the type for a name of one label.
std::string dns_query(std::string_view label, char type) {
    return std::string("\x12\x34\1\0\0\1\0\0\0\0\0\0", 12) + static_cast<char>(label.size()) +
           std::string(label) + std::string("\0\0", 2) + type + std::string("\0\1", 2);
}

TEST(Containment, TheSwitchAnswersQuestionsForNamesAndTheTime) {
    auto policy = parse_policy(
        "names = {www = ['203.0.113.9', '2001:db8::9']}\n"
        "[[rule]]\nprotocol='udp'\nports=[53, 123]\nverdict='answer'\n",
        "p");
    ASSERT_TRUE(policy.has_value()) << policy.error().message;
    SwitchBed bed(*policy);
    Peers resolver = kFar;
    resolver.to = "10.0.0.53";  // out of reach, and nobody gets it
    const auto payload = [&](const Bytes& frame) {
        const Headers headers = parse_headers(frame, frame.size());
        EXPECT_TRUE(headers.is_udp());
        EXPECT_EQ(headers.source, kGatewayMac);
        EXPECT_EQ(headers.tuple.source, *parse_ip(resolver.to));
        EXPECT_EQ(headers.tuple.destination, *parse_ip("192.0.2.10"));
        EXPECT_EQ(headers.tuple.destination_port, 4000);
        Checksum sum;
        const auto whole = ConstByteSpan(frame);
        sum.add(whole.subspan(headers.network_offset + 12U, 8));
        sum.add_be16(kUdp);
        const auto udp =
            whole.subspan(headers.transport_offset, headers.packet_end - headers.transport_offset);
        sum.add_be16(static_cast<uint16_t>(udp.size()));
        sum.add(udp);
        EXPECT_EQ(sum.folded(), 0xffff);
        return Bytes(frame.begin() + headers.payload_offset, frame.end());
    };
    bed.send(bed.clone, udp(resolver, 4000, 53, dns_query("WWW", 1)));
    auto answers = bed.take(bed.clone);
    ASSERT_EQ(answers.size(), 1U);
    const Bytes dns = payload(answers[0]);
    EXPECT_EQ(load_be16(dns, 0), 0x1234);
    EXPECT_EQ(load_be16(dns, 2), 0x8180);
    EXPECT_EQ(load_be16(dns, 6), 1);
    EXPECT_EQ(load_be32(dns, dns.size() - 4), 0xcb007109U);
    bed.send(bed.clone, udp(resolver, 4000, 123, std::string("\x23") + std::string(47, 'x')));
    answers = bed.take(bed.clone);
    ASSERT_EQ(answers.size(), 1U);
    const Bytes ntp = payload(answers[0]);
    ASSERT_EQ(ntp.size(), 48U);
    EXPECT_EQ(load8(ntp, 0), 0x24);
    EXPECT_EQ(bed.count_events("dns"), 1U);
    // What is no question gets no answer, and nothing of all this got out.
    bed.send(bed.clone, udp(resolver, 4000, 53, "?"));
    bed.send(bed.clone, udp(resolver, 4000, 123, "?"));
    bed.send(bed.clone, udp(resolver, 4000, 53, dns_query(std::string(60, 'x'), 1).substr(0, 40)));
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
    EXPECT_EQ(bed.drops(bed.clone, Drop::kContained), 3U);
    EXPECT_EQ(bed.take(bed.uplink).size() + bed.take(bed.guest).size(), 0U);
}

TEST(Policy, FilesAreReadAndMistakesAreTold) {
    const auto policy = parse_policy(
        "preset = 'honeywall'\nunreachable = ['203.0.113.0/24']\n"
        "[[rule]]\nprotocol = 'tcp'\nports = [80, '1000-2000']\nto = ['198.51.100.0/24']\n"
        "verdict = 'forward'\n",
        "p.toml");
    ASSERT_TRUE(policy.has_value()) << policy.error().message;
    EXPECT_EQ(policy->rules.size(), 5U);
    Containment containment(*policy);
    FlowKey key;
    key.protocol = kTcp;
    key.remote = *parse_ip("198.51.100.1");
    key.remote_port = 1500;
    EXPECT_EQ(containment.decide(key, 1).verdict, Verdict::kForward);
    key.remote_port = 2001;
    EXPECT_EQ(containment.decide(key, 1).verdict, Verdict::kLimit);
    key.remote = *parse_ip("203.0.113.1");
    EXPECT_EQ(containment.decide(key, 1).verdict, Verdict::kDrop);
    for (const char* const wrong :
         {"preset = 'none'",
          "x = 1",
          "[[rule]]",
          "[[rule]]\nverdict = 'limit'",
          "[[rule]]\nverdict = 'reflect'",
          "[[rule]]\nverdict = 'drop'\nvia = 'x'",
          "[[rule]]\nverdict = 'drop'\nports = [80]",
          "[[rule]]\nprotocol = 'tcp'\nverdict = 'drop'\nports = [70000]",
          "[[rule]]\nprotocol = 'tcp'\nverdict = 'drop'\nports = ['9-1']",
          "[[rule]]\nverdict = 'drop'\nto = ['10.0.0.0/33']",
          "[[rule]]\nverdict = 'drop'\nto = []",
          "[[rule]]\nverdict = 'answer'",
          "[[rule]]\nprotocol = 'udp'\nports = [54]\nverdict = 'answer'",
          "[[rule]]\nprotocol = 'tcp'\nports = [53]\nverdict = 'answer'",
          "names = 1",
          "names = {'a..b' = []}",
          "names = {'a*' = []}",
          "names = {'*a' = []}",
          "names = {'' = []}",
          "names = {a = 'x'}",
          "names = {a = ['x']}",
          "names = {a = ['1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1',"
          "'1.1.1.1','1.1.1.1']}",
          "rule = 1",
          "= 1",
          "[",
          "[\n",
          "[[\n"}) {
        const auto refused = parse_policy(wrong, "p.toml");
        ASSERT_FALSE(refused.has_value()) << wrong;
        EXPECT_EQ(refused.error().kind, ErrorKind::kUsage) << wrong;
        EXPECT_EQ(refused.error().message.rfind("p.toml:", 0), 0U) << refused.error().message;
    }
}

}  // namespace
}  // namespace ivmm::net
