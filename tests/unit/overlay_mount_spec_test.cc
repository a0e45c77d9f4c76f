#include "vmm/overlay/mount_spec.h"

#include <gmock/gmock.h>

namespace ivmm::overlay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void expect_refused(std::string_view text, const std::string& reason) {
    const auto spec = parse_mount_spec(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_EQ(spec.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(spec.error().message, HasSubstr(reason)) << text;
}

TEST(MountSpecTest, All) {
    const auto spec = *parse_mount_spec("lower=/a:b/c,upper=u,view=web-1,flatten=20,ro");
    EXPECT_EQ(spec.flatten_from, 20u);
    EXPECT_THAT(spec.lower, ElementsAre("/a", "b/c"));
    EXPECT_EQ(spec.upper, "u");
    EXPECT_EQ(spec.view, "web-1");
    EXPECT_TRUE(spec.read_only);
}

TEST(MountSpecTest, Defaults) {
    const auto spec = *parse_mount_spec("upper=/u");
    EXPECT_THAT(spec.lower, IsEmpty());
    EXPECT_EQ(spec.view, "main");
    EXPECT_FALSE(spec.read_only);
    EXPECT_EQ(spec.flatten_from, 0u);
    EXPECT_FALSE(parse_mount_spec("upper=/u,ro,rw")->read_only);  // the last one counts
    EXPECT_EQ(parse_mount_spec("lower=/a")->upper, "");
}

TEST(MountSpecTest, BackslashesTakeTheMeaningFromSeparators) {
    const auto spec = *parse_mount_spec(R"(lower=/a\:b\,c:/d\\:/e=f,upper=/u:v\x)");
    EXPECT_THAT(spec.lower, ElementsAre("/a:b,c", R"(/d\)", "/e=f"));
    EXPECT_EQ(spec.upper, "/u:vx");
}

TEST(MountSpecTest, Refused) {
    expect_refused("", "no option ''");
    expect_refused("ro", "lower=A:B");
    expect_refused("frob=1,upper=u", "'frob'");
    expect_refused("upper=u,,ro", "no option ''");
    expect_refused("upper=u,upper=v", "twice");
    expect_refused("lower", "empty");
    expect_refused("lower=", "empty");
    expect_refused("lower=/a::/b", "empty");
    expect_refused("lower=/a,upper=", "empty");
    expect_refused(R"(lower=/a\)", "backslash");
    expect_refused("lower=/a,view=v", "upper=U");
    expect_refused("lower=/a,flatten=9", "upper=U");
    for (const char* const number : {"", "1", "-2", "2x", "4294967296"}) {
        expect_refused(std::string("upper=u,flatten=") + number, "flatten=");
    }
}

}  // namespace
}  // namespace ivmm::overlay
