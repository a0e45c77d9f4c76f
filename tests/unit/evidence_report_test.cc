// From captures to sessions, the timeline and the report.

#include "vmm/evidence/report.h"

#include <gmock/gmock.h>

#include "net/capture.h"
#include "tests/support/frames.h"
#include "tests/support/temp_dir.h"
#include "vmm/evidence/capture_reader.h"
#include "vmm/evidence/sessions.h"
#include "vmm/evidence/timeline.h"

namespace ivmm::evidence {
namespace {

using namespace net::test;
using net::Direction;
using net::Place;
using rpc::Json;
using testing::HasSubstr;
using testing::Not;

/// Writes frames as the switch does, and reads them.
class CapturedTest : public testing::Test {
 protected:
    void SetUp() override {
        auto made = net::Capture::create({.path = dir_.path() + "/trap"});
        ASSERT_TRUE(made) << made.error().message;
        capture_ = *std::move(made);
    }
    void record(Place place, Direction direction, Bytes bytes,
                std::string_view comment = "forward") {
        const ByteSpan all(bytes);
        const size_t head = std::min(bytes.size(), net::kHeadLength);
        capture_->record(place, direction, {{}, all.first(head), all.subspan(head)}, comment);
    }
    void from_him(Bytes bytes) { record(Place::kUplink, Direction::kIn, std::move(bytes)); }
    void from_clone(Bytes bytes) { record(Place::kClone, Direction::kOut, std::move(bytes)); }
    std::string path() const { return dir_.path() + "/trap.0001.pcapng"; }
    std::vector<Json> sessions() {
        capture_.reset();
        Sessions sessions;
        const auto read = read_capture(path(), [&](const auto& frame) { sessions.take(frame); });
        EXPECT_TRUE(read) << read.error().message;
        return sessions.describe();
    }

    const test::TempDir dir_;
    const Peers peers_;
    std::unique_ptr<net::Capture> capture_;
};

TEST_F(CapturedTest, WhatWasSaid) {
    from_him(tcp(peers_, 4711, 23, net::kTcpSyn, "", 99));
    from_clone(tcp(peers_.back(), 23, 4711, net::kTcpSyn | net::kTcpAck, "", 999));
    from_clone(tcp(peers_.back(), 23, 4711, net::kTcpAck, "\xff\xfd\x01login: ", 1000));
    from_him(tcp(peers_, 4711, 23, net::kTcpAck, "root\r\n", 100));
    from_him(tcp(peers_, 4711, 23, net::kTcpAck, "root\r\n", 100));  // once more
    from_him(tcp(peers_, 4711, 23, net::kTcpAck, "\nwget x\r\n", 105));
    record(Place::kGuest, Direction::kOut,
           tcp(peers_.back(), 23, 4711, net::kTcpAck, "of the primary"));
    const auto all = sessions();
    ASSERT_EQ(all.size(), 1U);
    const auto& one = all[0];
    EXPECT_EQ(one["protocol"], "tcp");
    EXPECT_EQ(one["remote"], peers_.from);
    EXPECT_EQ(one["local_port"], 23);
    EXPECT_EQ(one["opened_by"], "remote");
    EXPECT_EQ(one["bytes_in"], 14);
    EXPECT_EQ(one["bytes_out"], 10);
    std::string said;
    for (const auto& words : one["words"]) {
        said += words.value("from", "") + ":" + words.value("text", "");
    }
    EXPECT_EQ(said, "clone:login: remote:root\nwget x\n");
}

TEST_F(CapturedTest, WhatTheCloneTried) {
    const Peers out = Peers{.from = "192.0.2.10", .to = "203.0.113.5"};
    record(Place::kDropped, Direction::kOut, tcp(out, 5000, 22, net::kTcpSyn),
           "strict: not allowed");
    record(Place::kDropped, Direction::kOut, tcp(out, 5000, 22, net::kTcpSyn),
           "strict: not allowed");
    from_clone(udp(out, 5001, 53, {"\0\1\1\0\0\1\0\0\0\0\0\0\4evil\7example\0\0\1\0\1", 30}));
    const auto all = sessions();
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0]["opened_by"], "clone");
    EXPECT_EQ(all[0]["frames_dropped"], 2);
    EXPECT_EQ(all[0]["verdict"], "strict: not allowed");
    EXPECT_EQ(all[1]["words"][0]["text"], "A evil.example\n");
}

TEST_F(CapturedTest, WhatIsEncryptedHasOnlyItsFirstLine) {
    from_clone(
        tcp(peers_.back(), 22, 4711, net::kTcpAck, std::string("SSH-2.0-x\r\n\0\1\2\3\4\5\6", 18)));
    from_clone(tcp(peers_.back(), 22, 4711, net::kTcpAck, "\x80\x81\x82\x83\x84\x85\x86", 19));
    const auto all = sessions();
    EXPECT_EQ(all[0]["words"].size(), 1U);
    EXPECT_EQ(all[0]["words"][0]["text"], "SSH-2.0-x\n");
}

TEST_F(CapturedTest, FilesThatAreCutOrNoCaptures) {
    from_him(tcp(peers_, 1, 80, net::kTcpSyn));
    from_him(tcp(peers_, 2, 80, net::kTcpSyn));
    EXPECT_EQ(sessions().size(), 2U);
    const auto count = [](const std::string& file) {
        size_t frames = 0;
        const auto read = read_capture(file, [&](const auto&) { ++frames; });
        return read ? static_cast<int>(frames) : -1;
    };
    const auto size = std::filesystem::file_size(path());
    std::filesystem::resize_file(path(), size - 1);
    EXPECT_EQ(count(path()), 1);
    std::filesystem::resize_file(path(), 0);
    EXPECT_EQ(count(path()), 0);
    EXPECT_EQ(count(dir_.file("text", "this is no capture at all")), -1);
    EXPECT_EQ(count(dir_.path() + "/none"), -1);
}

Findings findings() {
    Findings all;
    all.about = {{"clone", "trap"},
                 {"primary", "web"},
                 {"forked", "2026-01-31T12:00:00Z"},
                 {"exported", "2026-01-31T12:10:00Z"},
                 {"running", true},
                 {"ivmm", "1"}};
    all.cause = {
        {"rule", "exploit"}, {"attacker", "198.51.100.7"}, {"reason", "<script>alert(1)</script>"}};
    return all;
}

Json session(const std::string& opened_by, int port, const std::string& text = {}) {
    Json words = Json::array();
    if (!text.empty()) {
        words.push_back(
            {{"time", "2026-01-31T12:01:00.500000Z"}, {"from", "remote"}, {"text", text}});
    }
    return {{"protocol", "tcp"},
            {"remote", "198.51.100.7"},
            {"remote_port", 4711},
            {"local", "192.0.2.10"},
            {"local_port", port},
            {"opened_by", opened_by},
            {"first", "2026-01-31T12:01:00.000000Z"},
            {"last", "2026-01-31T12:02:00.000000Z"},
            {"seconds", 60.0},
            {"bytes_in", 10},
            {"bytes_out", 20},
            {"frames_in", opened_by == "clone" ? 0 : 2},
            {"frames_out", 2},
            {"frames_dropped", 0},
            {"verdict", "drop"},
            {"words", words}};
}

TEST(Timeline, EverythingInItsOrder) {
    auto all = findings();
    all.sessions.push_back(session("remote", 23, "id\nwget x\n"));
    all.sessions.push_back(session("clone", 80));
    all.events.push_back(Json::parse(R"({"datetime": "2026-01-31T12:01:00.200000Z",
                                         "eventid": "ivmm.switch.contained"})"));
    all.disks.push_back({"disk0", Json::parse(R"([
        {"kind": "added", "path": "/tmp/x", "changed": "2026-01-31T12:01:30Z"},
        {"kind": "removed", "path": "/tmp/y"}])")});
    std::string ids;
    for (const auto& event : make_timeline(all)) {
        ids += event.value("eventid", "").substr(5) + " ";
        EXPECT_EQ(event.value("datetime", "").size(), 27U);
    }
    EXPECT_EQ(ids,
              "clone.forked session.connect session.blocked switch.contained session.input "
              "session.input file.added session.closed evidence.exported ");
}

TEST(Report, WhatAnAttackerWritesIsText) {
    auto all = findings();
    all.sessions.push_back(session("remote", 23, "<img src=x onerror=alert(1)>\n\x1b[2J\xff\n"));
    all.disks.push_back({"disk0", Json::parse(R"([
        {"kind": "added", "path": "/tmp/<b>\"'&", "sha256": "00"}])")});
    all.console = "</pre><script>alert(2)</script>";
    all.memory = Json::parse(R"({
        "programs": [{"file": "/bin/<i>", "arguments": ["<u>"], "environment": []}],
        "bytes": 1048576, "changed_bytes": 4096, "part_bytes": 4096,
        "changed_pages_of_parts": [0, 1]})");
    const std::string html = make_report(all, make_timeline(all), {"<s>missing"});
    for (const char* const tag :
         {"<script", "<img", "<b>\"", "<i>", "<u>", "<s>", "\x1b", "\xff"}) {
        EXPECT_THAT(html, Not(HasSubstr(tag)));
    }
    for (const char* const text : {"/tmp/&lt;b&gt;", "&lt;script&gt;alert(2)", "exploit"}) {
        EXPECT_THAT(html, HasSubstr(text));
    }
}

TEST(Report, IsAsLargeAsSomebodyCanRead) {
    auto all = findings();
    for (int i = 0; i < 20'000; ++i) {
        all.sessions.push_back(session(i % 2 == 0 ? "clone" : "remote", i, "GET /\n"));
        all.sessions.back()["remote"] = fmt::format("10.0.{}.{}", i / 256 % 256, i % 256);
    }
    Json files = Json::array();
    for (int i = 0; i < 20'000; ++i) {
        files.push_back({{"kind", "added"},
                         {"path", fmt::format("/tmp/{}", i)},
                         {"changed", "2026-01-31T12:01:30Z"}});
    }
    all.disks.push_back({"disk0", files});
    const std::string html = make_report(all, make_timeline(all), {});
    EXPECT_LT(html.size(), size_t{1} << 20);
    EXPECT_THAT(html, HasSubstr("9992 others"));
    EXPECT_THAT(html, HasSubstr("more are in disk0-files.jsonl"));
}

TEST(Report, OfNothing) {
    Findings empty;
    empty.about = Json::object();
    EXPECT_THAT(make_report(empty, make_timeline(empty), {}), HasSubstr("</html>"));
}

}  // namespace
}  // namespace ivmm::evidence
