#include <gmock/gmock.h>

#include "tests/support/temp_dir.h"
#include "vmm/watch/decider.h"

namespace ivmm::watch {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kHour = 3'600'000;

Rules rules(const std::string& toml) {
    auto parsed = parse_rules(toml, "rules.toml");
    EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message);
    return parsed ? *parsed : Rules{};
}

Alert alert(const std::string& attacker = "198.51.100.7", uint16_t port = 4000) {
    Alert made;
    made.source = "eve";
    made.attacker = {*net::parse_ip(attacker), port};
    made.victim = {*net::parse_ip("192.0.2.10"), 80};
    made.signature_id = 2018358;
    made.signature = "ET EXPLOIT Some Overflow";
    made.category = "Attempted Administrator Privilege Gain";
    made.severity = 1;
    return made;
}

Alert numbered(uint32_t attacker) {
    return alert(
        fmt::format("10.{}.{}.{}", attacker >> 16 & 255, attacker >> 8 & 255, attacker & 255));
}

const std::string kFork = "[[rule]]\nname = \"fork\"\naction = \"fork\"\n";

/// "fork", the reason why it is withheld, or "none".
std::string decide(Decider& decider, const Alert& about, uint64_t now_ms) {
    const auto decision = decider.decide(about, now_ms);
    if (decision.rule == nullptr) {
        return "none";
    }
    EXPECT_NE(decision.reason, "");
    if (decision.withheld != Withheld::kNo) {
        return to_string(decision.withheld);
    }
    return to_string(decision.rule->action);
}

TEST(WatchRules, EachConditionMustHold) {
    const auto fits = [&](const std::string& condition) {
        return rules(kFork + condition).rules[0].fits(alert());
    };
    EXPECT_TRUE(fits(""));
    EXPECT_TRUE(fits("signature = \"et exploit\""));
    EXPECT_FALSE(fits("signature = \"ET SCAN\""));
    EXPECT_TRUE(fits("category = \"privilege gain\""));
    EXPECT_FALSE(fits("category = \"leak\""));
    EXPECT_TRUE(fits("severity = 1"));
    EXPECT_TRUE(fits("severity = 2"));
    EXPECT_TRUE(fits("source = [\"scan\", \"eve\"]"));
    EXPECT_FALSE(fits("source = [\"scan\"]"));
    EXPECT_TRUE(fits("signature_id = [1, \"2018000-2018999\"]"));
    EXPECT_FALSE(fits("signature_id = [2018357]"));
    EXPECT_FALSE(fits("severity = 1\nsignature = \"ET SCAN\""));
    Alert bland = alert();
    bland.severity = 3;
    EXPECT_FALSE(rules(kFork + "severity = 2").rules[0].fits(bland));
    bland.severity = 0;
    EXPECT_FALSE(rules(kFork + "severity = 2").rules[0].fits(bland));
}

TEST(WatchRules, ErrorsNameThePlace) {
    for (const auto& [toml, text] : std::vector<std::pair<std::string, std::string>>{
             {"", "no [[rule]]"},
             {"x = 1", "rules.toml:1: unknown key 'x'"},
             {"[[rule]", "rules.toml:1:"},
             {"[ # rule", "rules.toml:1:"},  // toml++ 3.3 has an assertion against it
             {"rule = 3", "rule must be a list"},
             {"rule = [3]", "written as [[rule]]"},
             {"[[rule]]\naction = \"fork\"", "needs a name"},
             {"[[rule]]\nname = \"a\"", "needs an action"},
             {"[[rule]]\nname = \"a\"\naction = \"kill\"", "needs an action"},
             {"[[rule]]\nname = \"a\"\naction = \"divert\"", "divert needs it"},
             {kFork + "clone = \"trap\"", "clone is for divert"},
             {kFork + "scope = \"all\"", "write flow, ip or ip+new-flows"},
             {kFork + "lifetime_s = 0", "rules.toml:4: lifetime_s must be a number from 1"},
             {kFork + "policy = \"none.toml\"", "rules.toml:4: policy: "},
             {"[[rule]]\nname = \"a\"\naction = \"log\"\npolicy = \"strict\"", "are for fork"},
             {kFork + "count = 0", "rules.toml:4: count must be a number from 1"},
             {kFork + "severity = \"high\"", "severity must be a number"},
             {kFork + "signature = \"\"", "signature must be a text"},
             {kFork + "signature_id = [\"9-1\"]", "write 2018358 or"},
             {kFork + "signature_id = [\"1-9x\"]", "write 2018358 or"},
             {kFork + "speed = 1", "unknown key 'speed'"},
             {kFork + kFork, "two rules 'fork'"},
             {"allow = []\n" + kFork, "allow must be a list"},
             {"home = [\"here\"]\n" + kFork, "home: 'here'"},
             {"dry_run = 1\n" + kFork, "dry_run must be true or false"},
             {"forks_per_hour = 1001\n" + kFork, "forks_per_hour must be"},
             {kFork + "[detect]\nscan = 1", "scan is written as a table"},
             {kFork + "[detect]\nscan = {speed = 1}", "unknown key 'speed'"},
             {kFork + "[detect]\ndecoy_ports = [0]", "decoy_ports must be a number"},
             {kFork + "[detect]\naddress_files = [\"/nowhere\"]", "cannot open the list"},
         }) {
        const auto parsed = parse_rules(toml, "rules.toml");
        ASSERT_FALSE(parsed) << toml;
        EXPECT_EQ(parsed.error().kind, ErrorKind::kUsage);
        EXPECT_THAT(parsed.error().message, HasSubstr(text)) << toml;
    }
    const auto nowhere = load_rules("/nowhere/rules.toml");
    ASSERT_FALSE(nowhere);
    EXPECT_EQ(nowhere.error().kind, ErrorKind::kUsage);
    EXPECT_FALSE(load_rules("/"));
}

TEST(WatchRules, ListsOfAddressesInFiles) {
    const ivmm::test::TempDir dir;
    dir.file("bad.txt", "# bad ones\n203.0.113.0/24\n\n 2001:db8::/32 # all of it\r\n10.1.2.3");
    const auto path = dir.file("rules.toml", kFork + "[detect]\naddress_files = [\"bad.txt\"]\n");
    const auto loaded = load_rules(path);
    ASSERT_TRUE(loaded) << loaded.error().message;
    const auto has = [&](const char* address) {
        return loaded->detect.addresses.contains(*net::parse_ip(address));
    };
    EXPECT_TRUE(has("203.0.113.99"));
    EXPECT_TRUE(has("2001:db8:1::1"));
    EXPECT_TRUE(has("10.1.2.3"));
    EXPECT_FALSE(has("10.1.2.4"));
    EXPECT_FALSE(has("203.0.114.1"));
    dir.file("bad.txt", "1.2.3.4\nnobody\n");
    const auto wrong = load_rules(path);
    ASSERT_FALSE(wrong);
    EXPECT_THAT(wrong.error().message, HasSubstr("bad.txt:2: 'nobody'"));
}

TEST(WatchDecider, TheFirstRuleWhoseCountIsReachedDecides) {
    Decider decider(
        rules("[[rule]]\nname = \"many\"\naction = \"fork\"\ncount = 3\nwithin_s = 10\n"
              "[[rule]]\nname = \"all\"\naction = \"log\"\n"));
    EXPECT_EQ(decide(decider, alert(), 0), "log");
    EXPECT_EQ(decide(decider, alert(), 5000), "log");
    // The window slides: those at 5, 10 and 14 seconds are three in ten.
    EXPECT_EQ(decide(decider, alert(), 10'000), "log");
    EXPECT_EQ(decide(decider, numbered(1), 14'000), "log");
    EXPECT_EQ(decide(decider, alert(), 14'000), "fork");
    const auto again = decider.decide(alert(), 14'000);
    EXPECT_EQ(again.withheld, Withheld::kUnderWay);
    EXPECT_THAT(again.reason, HasSubstr("rule 'many': eve 2018358 'ET EXPLOIT Some Overflow', "
                                        "severity 1, 3 in 10 s"));
}

TEST(WatchDecider, NothingFits) {
    Decider decider(rules(kFork + "severity = 1\n"));
    Alert bland = alert();
    bland.severity = 3;
    EXPECT_EQ(decide(decider, bland, 0), "none");
}

TEST(WatchDecider, WhoIsNotToBeActedOn) {
    Decider decider(rules("home = [\"192.0.2.10\"]\nallow = [\"198.51.100.0/28\"]\n" + kFork));
    EXPECT_EQ(decide(decider, alert("198.51.100.7"), 0), "allow-list");
    EXPECT_EQ(decide(decider, alert("192.0.2.10"), 0), "own-address");
    Alert elsewhere = alert("198.51.100.99");
    elsewhere.victim.address = *net::parse_ip("192.0.2.99");
    EXPECT_EQ(decide(decider, elsewhere, 0), "elsewhere");
    elsewhere.victim = {};  // a program need not know
    EXPECT_EQ(decide(decider, elsewhere, 0), "fork");
}

TEST(WatchDecider, OneActionAtATimeAndThenACoolDown) {
    Decider decider(rules(kFork + "cooldown_s = 60\n"));
    EXPECT_EQ(decide(decider, alert(), 0), "fork");
    EXPECT_EQ(decider.under_way(), 1U);
    EXPECT_EQ(decide(decider, alert(), 100'000), "under-way");
    decider.finished(alert().attacker.address, true, 100'000);
    EXPECT_EQ(decider.under_way(), 0U);
    EXPECT_EQ(decide(decider, alert(), 100'000), "fork");
    decider.finished(alert().attacker.address, true, 100'001);
    EXPECT_EQ(decide(decider, alert(), 159'999), "cool-down");
    EXPECT_EQ(decide(decider, numbered(1), 159'999), "fork");
    EXPECT_EQ(decide(decider, alert(), 160'000), "fork");
    // After a failure it is tried again soon, but not at once.
    decider.finished(alert().attacker.address, false, 161'000);
    EXPECT_EQ(decide(decider, alert(), 170'999), "cool-down");
    EXPECT_EQ(decide(decider, alert(), 171'000), "fork");
    decider.finished(*net::parse_ip("10.9.9.9"), true, 171'000);  // never heard of
    EXPECT_EQ(decider.under_way(), 2U);
}

TEST(WatchDecider, CapsCountTheActionsOfAnHour) {
    Decider decider(rules("forks_per_hour = 2\ndiverts_per_hour = 1\n" + kFork +
                          "severity = 1\n[[rule]]\nname = \"divert\"\naction = \"divert\"\n"
                          "clone = \"trap\"\n"));
    EXPECT_EQ(decide(decider, numbered(1), 0), "fork");
    EXPECT_EQ(decide(decider, numbered(2), 1000), "fork");
    EXPECT_EQ(decide(decider, numbered(3), 2000), "rate-cap");
    Alert bland = numbered(4);
    bland.severity = 3;
    EXPECT_EQ(decide(decider, bland, 3000), "divert");
    EXPECT_EQ(decide(decider, numbered(3), kHour - 1), "rate-cap");
    EXPECT_EQ(decide(decider, numbered(3), kHour), "fork");
    EXPECT_EQ(decide(decider, numbered(5), kHour), "rate-cap");
}

TEST(WatchDecider, ScopeFlowNeedsAPort) {
    Decider decider(rules(kFork + "scope = \"flow\"\n"));
    EXPECT_EQ(decide(decider, alert("198.51.100.7", 0), 0), "no-port");
    EXPECT_EQ(decide(decider, alert(), 0), "fork");
}

TEST(WatchDecider, AFloodForksAFewTimes) {
    Decider decider(rules("forks_per_hour = 5\n" + kFork +
                          "[[rule]]\nname = \"many\"\naction = \"log\"\ncount = 1000\n"));
    size_t forks = 0;
    // 10,000 alerts a second for a minute, of as many attackers.
    for (uint32_t i = 0; i < 600'000; ++i) {
        const auto decision = decider.decide(numbered(i), i / 10);
        if (decision.acts()) {
            ++forks;
            decider.finished(numbered(i).attacker.address, i % 2 == 0, i / 10);
        }
    }
    EXPECT_EQ(forks, 5U);
    EXPECT_LE(decider.remembered(), Decider::kMostCounts + forks);
}

TEST(WatchDecider, ActionsUnderWayAreBounded) {
    Decider decider(rules("forks_per_hour = 1000\n" + kFork));
    size_t forks = 0;
    for (uint32_t i = 0; i < 100; ++i) {
        forks += decide(decider, numbered(i), i) == "fork" ? 1 : 0;
    }
    EXPECT_EQ(forks, Decider::kMostUnderWay);
    EXPECT_EQ(decide(decider, numbered(1000), 1000), "busy");
}

TEST(WatchDecider, ReasonsArePrintable) {
    Decider decider(rules(kFork));
    Alert hostile = alert();
    hostile.signature = "\x1b[2J\nivmm: all is well\x7f";
    const auto decision = decider.decide(hostile, 0);
    EXPECT_THAT(decision.reason, HasSubstr("'?[2J?ivmm: all is well?'"));
}

}  // namespace
}  // namespace ivmm::watch
