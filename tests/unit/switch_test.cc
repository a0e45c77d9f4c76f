// What goes wrong when one machine becomes two, seen from the switch.

#include "net/switch.h"

#include <gtest/gtest.h>

#include "tests/support/switch_bed.h"

namespace ivmm::net {
namespace {

using test::arp;
using test::Bytes;
using test::FrameBuilder;
using test::kEverybody;
using test::kGatewayMac;
using test::kGuestMac;
using test::one_flow;
using test::Peers;
using test::ping;
using test::SwitchBed;
using test::tcp;
using test::udp;
using test::unreachable;
using test::whole;

const Peers kIn;                // from the attacker to the guest
const Peers kOut = kIn.back();  // and back
const Peers kBystander{kGatewayMac, kGuestMac, "203.0.113.5", "192.0.2.10"};

/// The attacker's connection, opened at the primary.
void connect(SwitchBed& bed, uint16_t port) {
    bed.send(bed.uplink, tcp(kIn, port, 22, kTcpSyn));
    bed.send(bed.guest, tcp(kOut, 22, port, kTcpSyn | kTcpAck));
    bed.send(bed.uplink, tcp(kIn, port, 22, kTcpAck));
    bed.clear();
}

TEST(Switch, WithoutDiversionsAllIsThePrimarys) {
    SwitchBed bed;
    bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
    bed.send(bed.guest, tcp(kOut, 22, 1000, kTcpSyn | kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
}

TEST(Switch, AFlowThatIsDivertedGoesToTheCloneAlone) {
    SwitchBed bed;
    connect(bed, 1000);
    connect(bed, 1001);
    ASSERT_TRUE(*bed.net.divert(bed.clone, one_flow(1000, 22), 0, false));
    const Bytes frame = tcp(kIn, 1000, 22, kTcpAck, "id");
    bed.send(bed.uplink, frame);
    EXPECT_EQ(bed.take(bed.clone), std::vector<Bytes>{frame});
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    const Bytes answer = tcp(kOut, 22, 1000, kTcpAck, "uid=0");
    bed.send(bed.clone, answer);
    EXPECT_EQ(bed.take(bed.uplink), std::vector<Bytes>{answer});
    // Another flow of the same address, and another address, stay.
    bed.send(bed.uplink, tcp(kIn, 1001, 22, kTcpAck, "x"));
    bed.send(bed.uplink, tcp(kBystander, 1000, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 2U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
}

TEST(Switch, ThePrimarysHalfOfADivertedFlowIsCut) {
    SwitchBed bed;
    connect(bed, 1000);
    ASSERT_TRUE(*bed.net.divert(bed.clone, one_flow(1000, 22), 0, false));
    bed.send(bed.guest, tcp(kOut, 22, 1000, kTcpAck, "retransmitted"));
    bed.send(bed.guest, tcp(kOut, 22, 1000, kTcpRst));
    bed.send(bed.guest, unreachable(kOut, "198.51.100.7", 1000, "192.0.2.10", 22));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    EXPECT_EQ(bed.drops(bed.guest, Drop::kCut), 3U);
}

TEST(Switch, TheClonesCopiesOfOtherFlowsGoNowhere) {
    SwitchBed bed(*preset_policy("research"));
    connect(bed, 1000);
    bed.send(bed.uplink, tcp(kBystander, 2000, 22, kTcpSyn));
    bed.send(bed.guest, tcp(kBystander.back(), 22, 2000, kTcpSyn | kTcpAck));
    bed.send(bed.guest, udp({kGuestMac, kGatewayMac, "192.0.2.10", "203.0.113.53"}, 4000, 53));
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole(), 0, false));
    bed.clear();
    // A retransmission; one of a flow that the switch does not know; a query that is still open.
    bed.send(bed.clone, tcp(kBystander.back(), 22, 2000, kTcpAck, "data"));
    bed.send(bed.clone, tcp(kBystander.back(), 22, 2001, kTcpAck, "data"));
    bed.send(bed.clone, udp({kGuestMac, kGatewayMac, "192.0.2.10", "203.0.113.53"}, 4000, 53));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    EXPECT_EQ(bed.drops(bed.clone, Drop::kStale), 3U);
    // And its answer is the primary's.
    bed.send(bed.uplink, udp({kGatewayMac, kGuestMac, "203.0.113.53", "192.0.2.10"}, 53, 4000));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
}

TEST(Switch, ScopesDifferInNewFlows) {
    for (const Scope scope : {Scope::kIp, Scope::kIpAndNewFlows}) {
        SwitchBed bed;
        connect(bed, 1000);
        ASSERT_TRUE(*bed.net.divert(bed.clone, whole("198.51.100.7", scope), 0, false));
        bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpAck, "old"));
        EXPECT_EQ(bed.take(bed.clone).size(), 1U);
        bed.send(bed.uplink, tcp(kIn, 1001, 22, kTcpSyn));
        EXPECT_EQ(bed.take(bed.clone).size(), scope == Scope::kIpAndNewFlows ? 1U : 0U);
        EXPECT_EQ(bed.take(bed.guest).size(), scope == Scope::kIpAndNewFlows ? 0U : 1U);
        // Once the old connection has ended, the same ports are a new one.
        bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpRst));
        bed.take(bed.clone);
        bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpSyn));
        EXPECT_EQ(bed.take(bed.clone).size(), scope == Scope::kIpAndNewFlows ? 1U : 0U);
    }
}

TEST(Switch, AFloodDoesNotEvictWhatIsDiverted) {
    SwitchBed bed({}, {.flows = 256, .diversions = {}});
    connect(bed, 1000);
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole("198.51.100.7", Scope::kIp), 0, false));
    for (uint16_t port = 1; port < 5000; ++port) {
        bed.send(bed.uplink, tcp(kBystander, port, 80, kTcpSyn));
    }
    // Also flows that both sides have talked in.
    for (uint16_t port = 1; port < 1000; ++port) {
        bed.send(bed.uplink, tcp(kBystander, port, 81, kTcpSyn));
        bed.send(bed.guest, tcp(kBystander.back(), 81, port, kTcpSyn | kTcpAck));
    }
    bed.clear();
    bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpAck, "still here"));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    ASSERT_TRUE(*bed.net.undivert(bed.guest, whole("198.51.100.7", Scope::kIp)));
    EXPECT_EQ(bed.net.tables()[0].pinned, 0U);
}

TEST(Switch, HeldFramesGoToTheCloneInTheirOrderAndToItAlone) {
    SwitchBed bed;
    connect(bed, 1000);
    bed.net.detach(bed.clone);  // its process starts later
    const auto hold = *bed.net.begin_hold(bed.guest, whole(), {});
    std::vector<Bytes> sent;
    for (uint32_t i = 0; i < 10; ++i) {
        sent.push_back(tcp(kIn, 1000, 22, kTcpAck, "x", i));
        bed.send(bed.uplink, sent.back());
    }
    bed.send(bed.uplink, tcp(kBystander, 2000, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);  // the bystander's
    // Until the fork the primary is the one that answers.
    bed.send(bed.guest, tcp(kOut, 22, 1000, kTcpAck, "before"));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
    // What it had sent before the fork is still on its way.
    bed.ends[bed.guest].to_switch.emplace_back(VnetHeader{},
                                               tcp(kOut, 22, 1000, kTcpAck, "in the ring"));
    const auto report = *bed.net.commit_hold(hold, bed.clone, 0);
    EXPECT_EQ(report.held_frames, 10U);
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
    sent.push_back(tcp(kIn, 1000, 22, kTcpAck, "x", 10));
    bed.send(bed.uplink, sent.back());
    bed.attach(bed.clone);
    sent.push_back(tcp(kIn, 1000, 22, kTcpAck, "x", 11));
    bed.send(bed.uplink, sent.back());
    EXPECT_EQ(bed.take(bed.clone), sent);
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    // The copy of what was in the guest's transmit ring has one owner as well.
    bed.send(bed.guest, tcp(kOut, 22, 1000, kTcpAck, "copy"));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    bed.send(bed.clone, tcp(kOut, 22, 1000, kTcpAck, "copy"));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
    bed.send(bed.clone, tcp(kBystander.back(), 22, 2000, kTcpSyn | kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    bed.send(bed.guest, tcp(kBystander.back(), 22, 2000, kTcpSyn | kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
}

TEST(Switch, WhatTheGuestHadNotReceivedGoesToTheOneItIsFor) {
    SwitchBed bed;
    connect(bed, 1000);
    const Bytes his = tcp(kIn, 1000, 22, kTcpAck, "on its way");
    const Bytes new_one = tcp(kIn, 1001, 22, kTcpSyn);
    const Bytes others = tcp(kBystander, 2000, 22, kTcpSyn);
    bed.send(bed.uplink, his);
    bed.send(bed.uplink, others);
    bed.send(bed.uplink, new_one);
    bed.send(bed.uplink, arp({kGatewayMac, kEverybody}, 1, "192.0.2.1", "192.0.2.10"));
    const auto hold = *bed.net.begin_hold(bed.guest, whole(), {});
    const Bytes held = tcp(kIn, 1000, 22, kTcpAck, "held");
    bed.send(bed.uplink, held);
    const auto report = *bed.net.commit_hold(hold, bed.clone, 0);
    EXPECT_EQ(report.unread_frames, 2U);
    EXPECT_EQ(report.held_frames, 1U);
    EXPECT_EQ(bed.take(bed.clone), (std::vector<Bytes>{his, new_one, held}));
    const auto kept = bed.take(bed.guest);
    ASSERT_EQ(kept.size(), 2U);
    EXPECT_EQ(kept[0], others);
}

TEST(Switch, AHoldThatIsRolledBackOrTooOldGoesToThePrimary) {
    SwitchBed bed;
    connect(bed, 1000);
    auto hold = *bed.net.begin_hold(bed.guest, whole(), {});
    const Bytes frame = tcp(kIn, 1000, 22, kTcpAck, "x");
    bed.send(bed.uplink, frame);
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    EXPECT_TRUE(bed.net.roll_back_hold(hold));
    EXPECT_EQ(bed.take(bed.guest), std::vector<Bytes>{frame});
    EXPECT_FALSE(bed.net.roll_back_hold(hold));

    hold = *bed.net.begin_hold(bed.guest, whole(), {.queue = {}, .most_ms = 100});
    bed.send(bed.uplink, frame);
    bed.pass(99);
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    bed.pass(1);
    EXPECT_EQ(bed.take(bed.guest), std::vector<Bytes>{frame});
    EXPECT_EQ(bed.count_events("hold.expired"), 1U);
    EXPECT_FALSE(bed.net.commit_hold(hold, bed.clone, 0).has_value());
    EXPECT_TRUE(bed.net.diversions().empty());
}

TEST(Switch, AHoldIsBounded) {
    SwitchBed bed;
    const auto hold = *bed.net.begin_hold(bed.guest, whole(), {.queue = {4, 1000}, .most_ms = 100});
    for (int i = 0; i < 10; ++i) {
        bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpSyn));
    }
    EXPECT_EQ(bed.drops(bed.guest, Drop::kHoldFull), 6U);
    const auto report = *bed.net.commit_hold(hold, bed.clone, 0);
    EXPECT_EQ(report.held_frames, 4U);
    EXPECT_EQ(report.refused, 6U);
}

TEST(Switch, OneOfBothAnswersArpAndPings) {
    SwitchBed bed;
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole(), 0, false));
    bed.send(bed.uplink, arp({kGatewayMac, kEverybody}, 1, "192.0.2.1", "192.0.2.10"));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
    bed.send(bed.uplink, ping(kIn, 7));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    bed.send(bed.clone, ping(kOut, 7, true));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
    bed.send(bed.uplink, ping(kBystander, 7));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
}

TEST(Switch, TheCloneIsQuietAndItsQuestionsAreAnsweredByTheSwitch) {
    SwitchBed bed;
    const Peers to_all{kGuestMac, kEverybody};
    bed.send(bed.clone, arp(to_all, 1, "192.0.2.10", "192.0.2.10"));  // gratuitous
    bed.send(bed.clone, arp(to_all, 1, "0.0.0.0", "192.0.2.10"));     // a probe
    bed.send(bed.clone, arp(to_all, 2, "192.0.2.1", "192.0.2.9"));    // a lie
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
    bed.send(bed.clone, arp(to_all, 1, "192.0.2.10", "192.0.2.1"));
    const auto answers = bed.take(bed.clone);
    ASSERT_EQ(answers.size(), 1U);
    const Headers headers = parse_headers(answers[0], answers[0].size());
    EXPECT_EQ(headers.kind, Headers::Kind::kArp);
    EXPECT_EQ(headers.arp_operation, 2);
    EXPECT_EQ(headers.arp_sender, kGatewayMac);
    EXPECT_EQ(to_string(headers.arp_sender_ip), "192.0.2.1");
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
}

/// A DHCP message of this type.
Bytes dhcp(const Peers& peers, uint16_t from, uint16_t to, uint8_t type, uint32_t transaction) {
    FrameBuilder frame = peers.ethernet();
    frame.ip(peers.from, peers.to, kUdp, 8 + 244).be16(from).be16(to).be16(8 + 244).be16(0);
    frame.be8(from == 67 ? 2 : 1).be8(1).be8(6).be8(0).be32(transaction).be32(0);
    frame.be32(0).append(*parse_ip("192.0.2.10"), 12).be32(0).be32(0);
    frame.append(kGuestMac).text(std::string(10 + 192, '\0'));
    return frame.be32(0x63825363).be8(53).be8(1).be8(type).be8(255).bytes();
}

TEST(Switch, TheCloneGetsTheGuestsLeaseFromTheSwitch) {
    SwitchBed bed;
    const Peers client{kGuestMac, kEverybody, "0.0.0.0", "255.255.255.255"};
    bed.send(bed.clone, dhcp(client, 68, 67, 1, 7));
    EXPECT_EQ(bed.take(bed.clone).size() + bed.take(bed.uplink).size(), 0U);  // not known yet
    bed.send(bed.guest, dhcp(client, 68, 67, 3, 6));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);  // the primary renews upstream
    const Peers server{kGatewayMac, kGuestMac, "192.0.2.1", "192.0.2.10"};
    bed.send(bed.uplink, dhcp(server, 67, 68, 5, 6));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    for (const auto& [asked, answered] : {std::pair<uint8_t, uint8_t>{1, 2}, {3, 5}}) {
        bed.send(bed.clone, dhcp(client, 68, 67, asked, 8));
        EXPECT_EQ(bed.take(bed.clone), std::vector<Bytes>{dhcp(server, 67, 68, answered, 8)});
    }
    EXPECT_EQ(bed.take(bed.uplink).size() + bed.take(bed.guest).size(), 0U);
}

TEST(Switch, NeighbourSolicitationsOfTheCloneAreAnsweredByTheSwitch) {
    SwitchBed bed;
    const auto message = [](const Peers& peers, uint8_t type, const char* target,
                            const MacAddress& mac) {
        FrameBuilder frame = peers.ethernet();
        frame.ip(peers.from, peers.to, kIcmpV6, 32).be8(type).be8(0).be16(0).be32(0);
        frame.append(*parse_ip(target), 0).be8(type == 135 ? 1 : 2).be8(1).append(mac);
        return frame.bytes();
    };
    const Peers in{kGatewayMac, kGuestMac, "2001:db8::1", "2001:db8::10"};
    const Peers out{kGuestMac, {0x33, 0x33, 0xff, 0, 0, 1}, "2001:db8::10", "ff02::1:ff00:1"};
    bed.send(bed.uplink, message(in, 136, "2001:db8::1", kGatewayMac));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    Peers probe = out;
    probe.from = "::";
    bed.send(bed.clone, message(probe, 135, "2001:db8::10", kGuestMac));  // duplicate detection
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
    bed.send(bed.clone, message(out, 135, "2001:db8::1", kGuestMac));
    const auto answers = bed.take(bed.clone);
    ASSERT_EQ(answers.size(), 1U);
    const ConstByteSpan bytes(answers[0]);
    const Headers headers = parse_headers(bytes, bytes.size());
    EXPECT_EQ(headers.icmp_type, 136);
    EXPECT_EQ(headers.source, kGatewayMac);
    EXPECT_EQ(to_string(headers.tuple.source), "2001:db8::1");
    Checksum sum;
    sum.add(bytes.subspan(22, 32));
    sum.add_be16(32);
    sum.add_be16(kIcmpV6);
    sum.add(bytes.subspan(54));
    EXPECT_EQ(sum.value(), 0);
    EXPECT_EQ(bed.take(bed.uplink).size() + bed.take(bed.guest).size(), 0U);
}

TEST(Switch, IcmpErrorsGoToTheOwnerOfTheFlow) {
    SwitchBed bed;
    connect(bed, 1000);
    connect(bed, 1001);
    ASSERT_TRUE(*bed.net.divert(bed.clone, one_flow(1000, 22), 0, false));
    // A router on the way complains.
    const Peers router{kGatewayMac, kGuestMac, "203.0.113.99", "192.0.2.10"};
    bed.send(bed.uplink, unreachable(router, "192.0.2.10", 22, "198.51.100.7", 1000));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    bed.send(bed.uplink, unreachable(router, "192.0.2.10", 22, "198.51.100.7", 1001));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    EXPECT_EQ(bed.take(bed.clone).size(), 0U);
}

/// A fragment of a UDP packet; the first one has the ports.
Bytes fragment(const Peers& peers, uint16_t place, uint16_t id, uint16_t port) {
    return peers.ethernet()
        .ip(peers.from, peers.to, kUdp, 16, place, id)
        .be16(port)
        .be16(53)
        .be16(24)
        .be16(0)
        .be32(1)
        .be32(2)
        .bytes();
}

TEST(Switch, FragmentsFollowTheirFirstAndEarlyOnesWait) {
    SwitchBed bed;
    ASSERT_TRUE(*bed.net.divert(bed.clone, one_flow(1000, 53, kUdp), 0, false));
    const Bytes first = fragment(kIn, 0x2000, 7, 1000);
    const Bytes later = fragment(kIn, 2, 7, 0);
    bed.send(bed.uplink, later);
    EXPECT_EQ(bed.take(bed.clone).size() + bed.take(bed.guest).size(), 0U);
    bed.send(bed.uplink, first);
    bed.send(bed.uplink, later);
    EXPECT_EQ(bed.take(bed.clone), (std::vector<Bytes>{first, later, later}));
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    // Those of other flows and other addresses.
    bed.send(bed.uplink, fragment(kIn, 0x2000, 8, 1001));
    bed.send(bed.uplink, fragment(kIn, 2, 8, 0));
    bed.send(bed.uplink, fragment(kBystander, 2, 7, 0));
    EXPECT_EQ(bed.take(bed.guest).size(), 3U);
    // What waits for nothing goes in the end.
    bed.send(bed.uplink, fragment(kIn, 2, 9, 0));
    bed.pass(3000);
    EXPECT_EQ(bed.drops(bed.guest, Drop::kFragment), 1U);
    // The primary's fragments of the flow are cut.
    bed.send(bed.guest, kOut.ethernet()
                            .ip(kOut.from, kOut.to, kUdp, 16, 0x2000, 5)
                            .be16(53)
                            .be16(1000)
                            .be16(24)
                            .be16(0)
                            .be32(0)
                            .be32(0)
                            .bytes());
    bed.send(bed.guest, fragment(kOut, 2, 5, 0));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
}

TEST(Switch, TheVlanIsPartOfTheFlow) {
    SwitchBed bed;
    Peers tagged = kIn;
    tagged.vlan = 5;
    bed.send(bed.uplink, tcp(tagged, 1000, 22, kTcpSyn));
    bed.clear();
    Selector selector = one_flow(1000, 22);
    selector.flow.outer_vlan = 5;
    ASSERT_TRUE(*bed.net.divert(bed.clone, selector, 0, false));
    bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpAck));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    bed.send(bed.uplink, tcp(tagged, 1000, 22, kTcpAck));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
}

TEST(Switch, TheSharedAddressIsNeverLearned) {
    SwitchBed bed;
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole(), 0, false));
    connect(bed, 1000);
    for (int i = 0; i < 3; ++i) {
        bed.send(bed.clone, tcp(kOut, 22, 1000, kTcpAck, "x"));
        bed.send(bed.uplink, tcp(kBystander, 5, 22, kTcpSyn));
        bed.send(bed.uplink, tcp(kIn, 1000, 22, kTcpAck));
    }
    EXPECT_EQ(bed.take(bed.guest).size(), 3U);
    EXPECT_EQ(bed.take(bed.clone).size(), 3U);
    // Nor does somebody outside get it.
    bed.send(bed.uplink, tcp({kGuestMac, kGatewayMac}, 1, 2, kTcpSyn));
    EXPECT_EQ(bed.drops(bed.uplink, Drop::kSpoofed), 1U);
}

TEST(Switch, DiversionsAreIdempotentEndAndCanBeTakenBack) {
    SwitchBed bed;
    EXPECT_TRUE(*bed.net.divert(bed.clone, whole(), 10, true));
    EXPECT_TRUE(bed.net.diversions().empty());
    EXPECT_TRUE(*bed.net.divert(bed.clone, whole(), 10, false));
    EXPECT_FALSE(*bed.net.divert(bed.clone, whole(), 10, false));
    bed.send(bed.uplink, tcp(kIn, 1, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    bed.pass(10'000);
    EXPECT_EQ(bed.count_events("diversion.expired"), 1U);
    bed.send(bed.uplink, tcp(kIn, 2, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    EXPECT_TRUE(*bed.net.divert(bed.clone, whole(), 0, false));
    EXPECT_TRUE(*bed.net.undivert(bed.guest, whole()));
    EXPECT_FALSE(*bed.net.undivert(bed.guest, whole()));
    bed.send(bed.uplink, tcp(kIn, 3, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
}

TEST(Switch, SomeAreNeverDivertedAndNotTooManyAtOnce) {
    DiversionLimits limits;
    limits.never = {*parse_prefix("203.0.113.0/24")};
    limits.most_per_minute = 3;
    limits.most = 4;
    SwitchBed bed({}, {.flows = 1024, .diversions = limits});
    EXPECT_FALSE(bed.net.divert(bed.clone, whole("203.0.113.5"), 0, false).has_value());
    for (const char* const address : {"198.51.100.1", "198.51.100.2", "198.51.100.3"}) {
        EXPECT_TRUE(bed.net.divert(bed.clone, whole(address), 0, false).has_value());
    }
    EXPECT_FALSE(bed.net.divert(bed.clone, whole("198.51.100.4"), 0, false).has_value());
    bed.pass(60'000);
    EXPECT_TRUE(bed.net.divert(bed.clone, whole("198.51.100.4"), 0, false).has_value());
    EXPECT_FALSE(bed.net.divert(bed.clone, whole("198.51.100.5"), 0, false).has_value());
}

TEST(Switch, WhoWasDivertedStaysCutOffWhenTheCloneIsGone) {
    SwitchBed bed;
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole(), 0, false));
    bed.net.remove_port(bed.clone);
    bed.send(bed.uplink, tcp(kIn, 1, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 0U);
    // And a new clone does not get what was the old one's.
    const PortId other = *bed.net.add_clone("other", bed.guest, {});
    bed.attach(other);
    bed.send(bed.uplink, tcp(kIn, 1, 22, kTcpSyn));
    EXPECT_EQ(bed.take(other).size(), 0U);
}

TEST(Switch, AGuestThatDiesCanComeBack) {
    SwitchBed bed;
    bed.net.detach(bed.guest);
    bed.send(bed.uplink, tcp(kIn, 1, 22, kTcpSyn));
    EXPECT_EQ(bed.drops(bed.guest, Drop::kNoRoom), 1U);
    bed.attach(bed.guest);
    bed.send(bed.uplink, tcp(kIn, 1, 22, kTcpSyn));
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
}

TEST(Switch, SixIsDivertedAsFourIs) {
    SwitchBed bed;
    const Peers in{kGatewayMac, kGuestMac, "2001:db8:1::7", "2001:db8::10"};
    bed.send(bed.uplink, tcp(in, 1000, 22, kTcpSyn));
    bed.clear();
    ASSERT_TRUE(*bed.net.divert(bed.clone, whole("2001:db8:1::7"), 0, false));
    bed.send(bed.uplink, tcp(in, 1000, 22, kTcpAck));
    EXPECT_EQ(bed.take(bed.clone).size(), 1U);
    bed.send(bed.clone, tcp(in.back(), 22, 1000, kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 1U);
    bed.send(bed.guest, tcp(in.back(), 22, 1000, kTcpAck));
    EXPECT_EQ(bed.take(bed.uplink).size(), 0U);
}

TEST(Switch, TheMirrorGetsCompleteFrames) {
    SwitchBed bed;
    const PortId mirror = *bed.net.add_mirror("ids");
    bed.ends[mirror].offloads = {};
    bed.attach(mirror);
    const std::string payload(2500, 'x');
    VnetHeader vnet;
    vnet.flags = VnetHeader::kNeedsChecksum;
    vnet.gso_type = VnetHeader::kGsoTcpV4;
    vnet.gso_size = 1000;
    vnet.checksum_start = 34;
    vnet.checksum_offset = 16;
    bed.send(bed.uplink, tcp(kIn, 1, 22, kTcpAck | kTcpFin, payload, 100), vnet);
    EXPECT_EQ(bed.ends[bed.guest].from_switch.at(0).first.gso_size, 1000);
    EXPECT_EQ(bed.take(bed.guest).size(), 1U);
    const auto pieces = bed.take(mirror);
    ASSERT_EQ(pieces.size(), 3U);
    for (size_t i = 0; i < 3; ++i) {
        const ConstByteSpan bytes(pieces[i]);
        EXPECT_EQ(bytes.size(), 54U + (i < 2 ? 1000 : 500));
        EXPECT_EQ(load_be32(bytes, 38), 100 + i * 1000);
        EXPECT_EQ(load8(bytes, 47), i < 2 ? kTcpAck : kTcpAck | kTcpFin);
        Checksum ip;
        ip.add(bytes.subspan(14, 20));
        EXPECT_EQ(ip.value(), 0);
        Checksum sum;
        sum.add(bytes.subspan(26, 8));
        sum.add_be16(kTcp);
        sum.add_be16(static_cast<uint16_t>(bytes.size() - 34));
        sum.add(bytes.subspan(34));
        EXPECT_EQ(sum.value(), 0) << i;
    }
}

}  // namespace
}  // namespace ivmm::net
