#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <fstream>

#include "tests/support/eve_samples.h"
#include "tests/support/temp_dir.h"
#include "vmm/watch/eve.h"
#include "vmm/watch/eve_file.h"
#include "vmm/watch/eve_ledger.h"
#include "vmm/watch/eve_socket.h"

namespace ivmm::watch {
namespace {

using test::kEve6;
using test::kEve6Target;
using test::kEve7;
using test::kEve7V6;
using test::kEveFlow;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<net::Prefix> kHome{*net::parse_prefix("192.0.2.10")};

Alert read(const std::string& line, std::span<const net::Prefix> home = {}) {
    const auto parsed = parse_eve(line, home);
    EXPECT_TRUE(parsed && *parsed) << line;
    return parsed && *parsed ? **parsed : Alert{};
}

std::string with(std::string line, const std::string& from, const std::string& to) {
    const size_t at = line.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return line.replace(at, from.size(), to);
}

std::string attacker(const Alert& alert) {
    return fmt::format("{} {}", to_string(alert.attacker.address), alert.attacker.port);
}

TEST(WatchEve, AlertOfVersion6) {
    const Alert alert = read(kEve6);
    EXPECT_EQ(alert.source, "eve");
    EXPECT_EQ(attacker(alert), "198.51.100.7 49757");
    EXPECT_EQ(to_string(alert.victim.address), "192.0.2.10");
    EXPECT_EQ(alert.victim.port, 80);
    EXPECT_EQ(alert.flow_id, 1038930578016525U);
    EXPECT_EQ(alert.signature_id, 2018358U);
    EXPECT_EQ(alert.signature, "ET EXPLOIT Some Overflow");
    EXPECT_EQ(alert.category, "Attempted Administrator Privilege Gain");
    EXPECT_EQ(alert.severity, 1U);
    EXPECT_EQ(alert.timestamp, "2026-02-08T17:00:12.648463+0100");
}

TEST(WatchEve, TheAttackerIsNotThePacketsSource) {
    EXPECT_EQ(attacker(read(kEve6Target)), "198.51.100.7 49758");
    EXPECT_EQ(attacker(read(kEve7)), "198.51.100.7 49759");
    EXPECT_EQ(attacker(read(kEve7V6)), "2001:db8::7 40000");
    EXPECT_EQ(to_string(read(kEve7V6).victim.address), "2001:db8::10");
    // Version 7 without the flow (switched off there), and version 6, where only we know the guest.
    const auto at = kEve7.find(R"(,"flow":)");
    EXPECT_EQ(attacker(read(kEve7.substr(0, at) + "}")), "198.51.100.7 49759");
    const auto swapped = with(kEve6Target, R"("source":{"ip":"198.51.100.7","port":49758},)", "");
    EXPECT_EQ(attacker(read(swapped)), "192.0.2.10 80");
    EXPECT_EQ(attacker(read(swapped, kHome)), "198.51.100.7 49758");
    EXPECT_EQ(to_string(read(swapped, kHome).victim.address), "192.0.2.10");
}

TEST(WatchEve, AGuestThatCallsBackIsNotTheAttacker) {
    const auto called =
        with(with(kEve7, R"("src_ip":"198.51.100.7","dest_ip":"192.0.2.10")",
                  R"("src_ip":"192.0.2.10","dest_ip":"198.51.100.7")"),
             R"("src_port":49759,"dest_port":80)", R"("src_port":33000,"dest_port":4444)");
    EXPECT_EQ(attacker(read(called, kHome)), "198.51.100.7 4444");
}

TEST(WatchEve, OtherEventsAreNotAlerts) {
    const auto parsed = parse_eve(kEveFlow, {});
    ASSERT_TRUE(parsed);
    EXPECT_FALSE(*parsed);
}

TEST(WatchEve, MalformedLinesAreRefused) {
    for (const auto& line : {
             std::string(),
             std::string("hello"),
             std::string("[]"),
             std::string("{}"),
             std::string("{\"event_type\":1}"),
             std::string("{\"event_type\":\"alert\"}"),
             kEve6.substr(0, kEve6.size() / 2),
             kEve6 + "x",
             with(kEve6, "198.51.100.7", "198.51.100.700"),
             with(kEve6, "198.51.100.7", ""),
             with(kEve6, "\"198.51.100.7\"", "7"),
             with(kEve6, "49757", "65536"),
             with(kEve6, "49757", "-1"),
             with(kEve6, "49757", "1.5"),
             with(kEve6, "2018358", "\"2018358\""),
             with(kEve6, "2018358", "99999999999999999999"),
             with(kEve6, R"("severity":1)", R"("severity":"bad")"),
             with(kEve6, R"("signature":"ET EXPLOIT Some Overflow")", R"("signature":["x"])"),
             with(kEve6, "ET EXPLOIT", "ET \xff EXPLOIT"),
             with(kEve7, R"("dest_ip":"192.0.2.10")", R"("dest_ip":"nobody")"),
             with(kEve6Target, R"({"ip":"198.51.100.7","port":49758})", "7"),
             with(kEve6, R"("AAAA")", std::string(40, '[') + std::string(40, ']')),
             with(kEve6, R"("AAAA")", '"' + std::string(kMaxEveLine, 'A') + '"'),
         }) {
        EXPECT_FALSE(parse_eve(line, {})) << line.substr(0, 2000);
    }
}

TEST(WatchEve, TextsAreBounded) {
    const auto alert = read(with(kEve6, "Overflow", std::string(5000, 'x')));
    EXPECT_EQ(alert.signature.size(), Alert::kMaxText);
}

TEST(WatchEveLedger, WhatComesBothWaysIsTakenOnce) {
    using Way = EveLedger::Way;
    EveLedger ledger;
    const Alert one = read(kEve6);
    const Alert two = read(kEve7);
    EXPECT_FALSE(ledger.has_come(one, Way::kSocket));
    EXPECT_FALSE(ledger.has_come(one, Way::kSocket));  // twice, as the one that follows
    EXPECT_TRUE(ledger.has_come(one, Way::kFile));
    EXPECT_TRUE(ledger.has_come(one, Way::kFile));
    EXPECT_FALSE(ledger.has_come(one, Way::kFile));
    EXPECT_TRUE(ledger.has_come(one, Way::kSocket));
    EXPECT_FALSE(ledger.has_come(two, Way::kFile));
    // The oldest are forgotten.
    Alert other = two;
    for (other.flow_id = 1; other.flow_id <= EveLedger::kMostAlerts; ++other.flow_id) {
        EXPECT_FALSE(ledger.has_come(other, Way::kFile));
    }
    EXPECT_FALSE(ledger.has_come(two, Way::kSocket));
}

class WatchEveFile : public testing::Test {
 protected:
    WatchEveFile() : path_(dir_.path() + "/eve.json") {}
    void append(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
    std::vector<std::string> lines(EveFile& file) {
        for (int i = 0; i < 1000 && file.read(); ++i) {
        }
        return std::exchange(lines_, {});
    }
    EveFile::Take take() {
        return [this](std::string_view line) { lines_.emplace_back(line); };
    }

    ivmm::test::TempDir dir_;
    const std::string path_;
    std::vector<std::string> lines_;
};

TEST_F(WatchEveFile, IsFollowedFromItsEnd) {
    append("old\n");
    EveFile file(path_, take());
    EXPECT_THAT(lines(file), IsEmpty());
    append("one\ntw");
    EXPECT_THAT(lines(file), ElementsAre("one"));
    append("o\n\nthree\n");
    EXPECT_THAT(lines(file), ElementsAre("two", "three"));
}

TEST_F(WatchEveFile, IsFollowedOverRotationAndTruncation) {
    EveFile file(path_, take());
    EXPECT_THAT(lines(file), IsEmpty());  // it is not there
    append("one\n");
    EXPECT_THAT(lines(file), ElementsAre("one"));
    append("two\n");
    std::filesystem::rename(path_, path_ + ".1");
    EXPECT_THAT(lines(file), ElementsAre("two"));
    append("three\nfo");
    EXPECT_THAT(lines(file), ElementsAre("three"));
    std::filesystem::resize_file(path_, 0);
    EXPECT_THAT(lines(file), IsEmpty());
    append("five\n");
    EXPECT_THAT(lines(file), ElementsAre("five"));
}

TEST_F(WatchEveFile, ALineWithoutEndIsBounded) {
    append("");
    EveFile file(path_, take());
    append(std::string(10 * kMaxEveLine, 'x') + "\nshort\n");
    const auto found = lines(file);
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].size(), kMaxEveLine + 1);
    EXPECT_EQ(found[1], "short");
}

class WatchEveSocket : public testing::Test {
 protected:
    WatchEveSocket() : path_(dir_.path() + "/eve.sock") {}
    Result<std::unique_ptr<EveSocket>> open() {
        return EveSocket::open(*loop_, path_,
                               [this](std::string_view line) { lines_.emplace_back(line); });
    }
    UniqueFd sender() const {
        UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::copy(path_.begin(), path_.end(), address.sun_path);
        EXPECT_EQ(
            ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0);
        return socket;
    }

    ivmm::test::TempDir dir_;
    const std::string path_;
    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    std::vector<std::string> lines_;
};

TEST_F(WatchEveSocket, TakesDatagrams) {
    auto socket = *open();
    const UniqueFd client = sender();
    const std::string longest(2 * kMaxEveLine, 'x');
    for (const auto& line : {kEve6, longest}) {
        EXPECT_EQ(::send(client.get(), line.data(), line.size(), 0), std::ssize(line));
    }
    loop_->post([&] { loop_->post([&] { loop_->post([&] { loop_->stop(); }); }); });
    loop_->run();
    ASSERT_EQ(lines_.size(), 2U);
    EXPECT_EQ(lines_[0], kEve6);
    EXPECT_EQ(lines_[1].size(), kMaxEveLine + 1);
    socket.reset();
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(WatchEveSocket, ReplacesOnlyWhatNobodyUses) {
    {
        const auto living = *open();
        const auto second = open();
        ASSERT_FALSE(second);
        EXPECT_THAT(second.error().message, HasSubstr("somebody uses"));
        std::filesystem::rename(path_, path_ + ".kept");
        std::ofstream(path_) << "somebody's";
        const auto in_the_way = open();
        ASSERT_FALSE(in_the_way);
        EXPECT_THAT(in_the_way.error().message, HasSubstr("is not a socket"));
        std::filesystem::rename(path_ + ".kept", path_);
        std::filesystem::create_hard_link(path_, path_ + ".kept");
    }
    std::filesystem::rename(path_ + ".kept", path_);  // what a killed process leaves
    EXPECT_TRUE(open());
}

}  // namespace
}  // namespace ivmm::watch
