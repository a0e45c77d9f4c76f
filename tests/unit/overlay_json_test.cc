#include "vmm/overlay/overlay_json.h"

#include <gmock/gmock.h>

namespace ivmm::overlay {
namespace {

using rpc::Json;
using ::testing::HasSubstr;

template <class T>
void expect_refused(const Result<T>& outcome, const std::string& reason) {
    ASSERT_FALSE(outcome) << reason;
    EXPECT_EQ(outcome.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(outcome.error().message, HasSubstr(reason));
}

TEST(OverlayJsonTest, MountOptions) {
    const auto read = [](const char* text) { return mount_options_from(Json::parse(text)); };
    const auto plain = *read(R"({"mountpoint":"/m"})");
    EXPECT_EQ(plain.mountpoint, "/m");
    EXPECT_EQ(plain.threads, storage::MountOptions{}.threads);
    EXPECT_FALSE(plain.read_only);
    const auto full = *read(R"({"mountpoint":"/m","threads":3,"read_only":true})");
    EXPECT_EQ(full.threads, 3u);
    EXPECT_TRUE(full.read_only);
    expect_refused(read("{}"), "mountpoint");
    expect_refused(read(R"({"mountpoint":5})"), "mountpoint");
    expect_refused(read(R"({"mountpoint":"m"})"), "absolute");
    for (const char* const threads : {"0", "65", "-1", "1.5", "\"2\"", "1099511627776", "null"}) {
        Json params = Json::parse(R"({"mountpoint":"/m"})");
        params["threads"] = Json::parse(threads);
        expect_refused(mount_options_from(params), "threads");
    }
    expect_refused(read(R"({"mountpoint":"/m","read_only":1})"), "read_only");
}

TEST(OverlayJsonTest, ForkTargets) {
    const Json params =
        Json::parse(R"({"targets":[{"view":"a","mountpoint":"/a","threads":2},{"view":"b"}]})");
    const auto targets = *fork_targets_from(params);
    ASSERT_EQ(targets.size(), 2u);
    EXPECT_EQ(targets[0].view, "a");
    EXPECT_EQ(targets[0].mount->mountpoint, "/a");
    EXPECT_EQ(targets[0].mount->threads, 2u);
    EXPECT_FALSE(targets[1].mount);

    const auto refuse = [](const char* text, const std::string& reason) {
        expect_refused(fork_targets_from(Json::parse(text)), reason);
    };
    refuse("{}", "targets");
    refuse(R"({"targets":{}})", "targets");
    refuse(R"({"targets":[]})", "targets");
    refuse(R"({"targets":["a"]})", "object");
    refuse(R"({"targets":[{"view":""}]})", "view");
    refuse(R"({"targets":[{"view":"a","frob":1}]})", "frob");
    refuse(R"({"targets":[{"view":"a","threads":1}]})", "no mountpoint");
}

TEST(OverlayJsonTest, ForkReport) {
    storage::ForkReport report;
    report.parent_view = "main";
    report.frozen_layer = 256;
    report.new_layer = 257;
    report.target_layers = {258, 259};
    report.pause_us = 12.5;
    storage::ForkTarget mounted{"a", storage::MountOptions{"/a"}};
    const Json json = to_json(report, {mounted, {"b", {}}});
    EXPECT_EQ(json, Json::parse(R"({"view":"main","frozen_layer":256,"layer":257,
        "targets":[{"view":"a","layer":258,"mountpoint":"/a"},{"view":"b","layer":259}],
        "drain_us":0.0,"pause_us":12.5})"));
}

}  // namespace
}  // namespace ivmm::overlay
