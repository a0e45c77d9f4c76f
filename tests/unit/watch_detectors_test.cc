#include <gmock/gmock.h>

#include "tests/support/frames.h"
#include "vmm/watch/detectors.h"
#include "vmm/watch/payload_tap.h"

namespace ivmm::watch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Detectors detectors(const std::string& toml) {
    const auto parsed =
        parse_rules("[[rule]]\nname = \"a\"\naction = \"log\"\n[detect]\n" + toml, "rules.toml");
    EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message);
    return Detectors(parsed ? parsed->detect : Detect{});
}

SeenFlow flow(uint32_t serial, uint16_t port, const char* remote = "198.51.100.7",
              const char* local = "192.0.2.10") {
    SeenFlow made;
    made.serial = serial;
    made.protocol = net::kTcp;
    made.remote = {*net::parse_ip(remote), static_cast<uint16_t>(30000 + serial)};
    made.local = {*net::parse_ip(local), port};
    return made;
}

std::vector<std::string> told(const std::vector<Alert>& alerts) {
    std::vector<std::string> texts;
    for (const auto& alert : alerts) {
        texts.push_back(fmt::format("{} {}: {}", to_string(alert.attacker.address), alert.source,
                                    alert.signature));
    }
    return texts;
}

TEST(WatchDetectors, ListsAndDecoys) {
    auto all = detectors(
        "addresses = [\"203.0.113.0/24\"]\ndecoy_ports = [2222]\n"
        "decoy_addresses = [\"192.0.2.11\"]\n");
    SeenFlow own = flow(9, 2222, "203.0.113.9");
    own.by_remote = false;  // the guest has opened it
    const std::vector<SeenFlow> flows{flow(1, 80), flow(2, 80, "203.0.113.5"), flow(3, 2222),
                                      flow(4, 80, "198.51.100.8", "192.0.2.11"), own};
    EXPECT_THAT(told(all.look_at(flows, 0)),
                ElementsAre("203.0.113.5 address-list: peer on a list of addresses",
                            "198.51.100.7 decoy: contact with decoy port 2222",
                            "198.51.100.8 decoy: contact with decoy address 192.0.2.11"));
}

TEST(WatchDetectors, Scans) {
    auto all = detectors("scan = { ports = 5, within_s = 10 }\n");
    const auto look = [&](const SeenFlow& one, uint64_t now_ms) {
        return told(all.look_at({&one, 1}, now_ms));
    };
    // The same port again and again is no scan; neither is a slow one.
    for (uint32_t i = 1; i < 100; ++i) {
        EXPECT_THAT(look(flow(i, 80), i), IsEmpty());
    }
    for (uint16_t port = 1; port < 100; ++port) {
        EXPECT_THAT(look(flow(port, port, "198.51.100.8"), port * 3000U), IsEmpty());
    }
    SeenFlow old = flow(1, 1, "198.51.100.9");
    old.idle_s = 60;  // from before somebody watched
    for (uint16_t port = 1; port < 10; ++port) {
        old.local.port = port;
        EXPECT_THAT(look(old, 500'000), IsEmpty());
    }
    for (uint16_t port = 1; port < 5; ++port) {
        EXPECT_THAT(look(flow(port, port), 600'000), IsEmpty());
    }
    EXPECT_THAT(look(flow(5, 5), 601'000),
                ElementsAre("198.51.100.7 scan: 5 ports opened in 10 s"));
    EXPECT_THAT(look(flow(6, 6), 601'000), IsEmpty());  // it begins anew
}

TEST(WatchDetectors, FailedLogins) {
    auto all = detectors("logins = { count = 3, within_s = 60, short_s = 5 }\n");
    std::vector<SeenFlow> flows{flow(1, 22), flow(2, 22), flow(3, 22), flow(4, 22, "198.51.100.8")};
    EXPECT_THAT(told(all.look_at_logins(flows, 1000)), IsEmpty());
    flows[0].is_closed = flows[1].is_closed = flows[3].is_closed = true;
    EXPECT_THAT(told(all.look_at_logins(flows, 2000)), IsEmpty());
    EXPECT_THAT(told(all.look_at_logins(flows, 2500)), IsEmpty());  // counted already
    flows[2].is_closed = true;  // after a long time: that was a session
    EXPECT_THAT(told(all.look_at_logins(flows, 10'000)), IsEmpty());
    // One that was opened and has ended between two looks.
    flows.push_back(flow(5, 22));
    flows.back().is_closed = true;
    EXPECT_THAT(told(all.look_at_logins(flows, 11'000)),
                ElementsAre("198.51.100.7 logins: 3 short connections to port 22 in 60 s"));
    // Slow ones are no attack.
    for (uint32_t i = 10; i < 20; ++i) {
        flows.assign(1, flow(i, 22));
        flows[0].is_closed = true;
        EXPECT_THAT(told(all.look_at_logins(flows, i * 31'000)), IsEmpty());
    }
}

TEST(WatchDetectors, ManyPeersAreBounded) {
    auto all = detectors("scan = { ports = 2 }\n");
    // Somebody who hides among more peers than are remembered is not found, and that is all.
    for (uint32_t i = 0; i < 20'000; ++i) {
        SeenFlow one = flow(1, 80);
        one.remote.address.bytes[15] = static_cast<uint8_t>(i);
        one.remote.address.bytes[14] = static_cast<uint8_t>(i >> 8);
        EXPECT_THAT(told(all.look_at({&one, 1}, 0)), IsEmpty());
    }
}

TEST(WatchPayload, FindsTextsInPacketsToTheGuest) {
    const std::vector<std::string> wanted{"/etc/passwd", "/bin/sh -i"};
    const std::vector<net::Prefix> home{*net::parse_prefix("192.0.2.10")};
    const net::test::Peers in;
    const auto found = find_payload(udp(in, 4000, 53, "GET /bin/sh -i;"), wanted, home);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->source, "payload");
    EXPECT_EQ(found->signature, "/bin/sh -i");
    EXPECT_EQ(to_string(found->attacker.address), in.from);
    EXPECT_EQ(found->attacker.port, 4000);
    EXPECT_FALSE(find_payload(tcp(in, 4000, 80, net::kTcpAck, "GET /"), wanted, home));
    EXPECT_FALSE(find_payload(tcp(in.back(), 80, 4000, net::kTcpAck, "/etc/passwd"), wanted, home));
    const auto whole = tcp(in, 4000, 80, net::kTcpAck, "/etc/passwd");
    EXPECT_TRUE(find_payload(whole, wanted, home));
    for (size_t length = 0; length < whole.size(); ++length) {
        EXPECT_FALSE(find_payload({whole.data(), length}, wanted, home));
    }
}

}  // namespace
}  // namespace ivmm::watch
