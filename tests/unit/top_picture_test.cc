#include "vmm/live/top_picture.h"

#include <gmock/gmock.h>

namespace ivmm::live {
namespace {

using rpc::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Style = PictureLine::Style;

Json guest(const std::string& name, const std::string& primary = "") {
    return {{"name", name},
            {"up", true},
            {"state", "running"},
            {"uptime_s", 62.0},
            {"primary", primary},
            {"ends_in_s", nullptr},
            {"memory_limit_bytes", 0},
            {"memory_private_bytes", 4 << 20},
            {"memory_shared_bytes", 0},
            {"flows", 3},
            {"diverted", Json::array()},
            {"standby", {{"phase", "none"}, {"behind_bytes", 0}}},
            {"forks", {{"done", 0}, {"recent", Json::array()}}}};
}

Json host(Json guests) {
    return {{"guests", std::move(guests)},
            {"ended_clones", Json::array()},
            {"switches", Json::array()},
            {"overlays", Json::array()},
            {"watches", Json::array()}};
}

std::string text_of(const TopView& view) {
    std::string text;
    for (const auto& line : draw_top(view)) {
        text += line.text + "\n";
    }
    return text;
}

std::string text_of(const Json& state, const std::string& selected = "") {
    TopView view;
    view.state = &state;
    view.selected = selected;
    return text_of(view);
}

TEST(TopPictureTest, ClonesStandBelowTheirPrimary) {
    Json state = host({guest("alone"), guest("trap", "web"), guest("web"), guest("x", "gone")});
    state["ended_clones"] = {{{"name", "old"}, {"primary", "web"}, {"created", ""}}};
    EXPECT_THAT(top_names(state), ElementsAre("alone", "web", "trap", "old", "x"));
    EXPECT_THAT(text_of(state), HasSubstr("\n  trap "));
    EXPECT_THAT(text_of(state), HasSubstr("\n  old                ended"));
}

TEST(TopPictureTest, HowLongACloneHasAndHowMuch) {
    Json trap = guest("trap", "web");
    trap["ends_in_s"] = 90.0;
    trap["memory_limit_bytes"] = 64 << 20;
    EXPECT_THAT(text_of(host({guest("web"), trap})), HasSubstr("4M/64M"));
}

TEST(TopPictureTest, NothingRuns) {
    EXPECT_THAT(text_of(host(Json::array())), HasSubstr("no guest runs"));
    EXPECT_THAT(top_names(host(Json::array())), ElementsAre());
}

TEST(TopPictureTest, WhatAttackersWriteIsNoCommandForTheTerminal) {
    Json evil = guest("web");
    evil["diverted"] = {{{"remote", "\x1b[2Jhello\r\n\x7f\xc3\xa9"}, {"scope", "ip"}}};
    evil["standby"]["phase"] = "\x07";
    Json state = host({evil});
    state["switches"] = {{{"name", "\x1b]0;x\x07"},
                          {"up", true},
                          {"flows", 1},
                          {"forwarded", 1},
                          {"dropped", 1},
                          {"diversions", Json::array()},
                          {"drops", {{"\x1b", 4}}},
                          {"clones", Json::array()}}};
    const std::string text = text_of(state, "web");
    for (const char c : text) {
        EXPECT_TRUE(c == '\n' || (c >= ' ' && c < 0x7f)) << static_cast<int>(c);
    }
    EXPECT_THAT(text, HasSubstr("?[2Jhello????"));  // an e with an accent is one character
}

TEST(TopPictureTest, FramesInASecond) {
    Json state = host(Json::array());
    state["switches"] = {{{"name", "lan"},
                          {"up", true},
                          {"flows", 7},
                          {"forwarded", 300},
                          {"dropped", 40},
                          {"diversions", Json::array()},
                          {"drops", {{"contained", 40}, {"stale", 0}}},
                          {"clones", Json::array()}}};
    Json before = state;
    before["switches"][0]["forwarded"] = 100;
    before["switches"][0]["dropped"] = 50;  // it was started again since
    TopView view;
    view.state = &state;
    EXPECT_THAT(text_of(view), HasSubstr(" 300         40  contained 40\n"));
    view.before = &before;
    view.seconds = 2;
    EXPECT_THAT(text_of(view), HasSubstr(" 100/s         40  contained 40\n"));
}

TEST(TopPictureTest, FitsAnyTerminal) {
    Json guests = Json::array();
    for (int i = 0; i < 50; ++i) {
        guests.push_back(guest("guest-" + std::to_string(i)));
    }
    const Json state = host(std::move(guests));
    TopView view;
    view.state = &state;
    view.selected = "guest-40";
    for (const size_t width : {0u, 1u, 5u, 80u, 500u}) {
        for (const size_t height : {0u, 1u, 2u, 24u, 200u}) {
            const auto lines = fit(draw_top(view), width, height);
            EXPECT_LE(lines.size(), height);
            bool selected = false;
            for (const auto& line : lines) {
                EXPECT_LE(line.text.size(), width);
                selected = selected || line.style == Style::kSelected;
            }
            EXPECT_EQ(selected, height > 0);
        }
    }
}

}  // namespace
}  // namespace ivmm::live
