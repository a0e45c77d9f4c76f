#include "storage/union/view.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/served_store.h"

namespace ivmm {
namespace {

using test::ServedStore;

/// A view over a lower branch in which "a" and "f/c" are one file.
class HardLinkTest : public testing::Test {
 protected:
    HardLinkTest() {
        store_.lower_file("a", "x");
        std::filesystem::create_directories(store_.lower() + "/f");
        std::filesystem::create_hard_link(store_.lower() + "/a", store_.lower() + "/f/c");
        store_.serve();
        store_.at("/f/c");
        store_.at("/a");
    }
    nlink_t links(const std::string& path) {
        const auto attributes = store_.view().attributes(store_.at(path));
        EXPECT_TRUE(attributes) << path;
        return attributes ? attributes->st_nlink : 0;
    }
    ServedStore store_;
};

TEST_F(HardLinkTest, CopyUpKeepsAllNamesOneFile) {
    store_.write("/f/c", 0, "A");
    EXPECT_EQ(store_.read("/a"), "A");
    EXPECT_EQ(&store_.at("/a"), &store_.at("/f/c"));
    EXPECT_EQ(links("/a"), 2U);
}

TEST_F(HardLinkTest, ARenamedNameIsFoundAgain) {
    store_.write("/f/c", 0, "A");
    store_.rename("/f/c", "/b");
    EXPECT_EQ(links("/b"), 2U);
    EXPECT_EQ(store_.read("/b"), "A");
    EXPECT_EQ(store_.read("/a"), "A");
}

TEST_F(HardLinkTest, NamesAreCounted) {
    ASSERT_TRUE(store_.view().unlink(store_.at("/f"), "c"));
    EXPECT_EQ(links("/a"), 1U);
    ASSERT_TRUE(store_.view().make_link(store_.at("/a"), store_.at("/f"), "d"));
    EXPECT_EQ(links("/f/d"), 2U);
    store_.write("/f/d", 0, "D");
    EXPECT_EQ(store_.read("/a"), "D");
    ASSERT_TRUE(store_.view().unlink(store_.view().root(), "a"));
    EXPECT_EQ(links("/f/d"), 1U);
    EXPECT_EQ(store_.read("/f/d"), "D");
}

/// When the name by which it was copied up goes, the copy has none of them left.
TEST_F(HardLinkTest, NamesThatAreOnlyBelowStayOneFile) {
    ASSERT_TRUE(store_.view().make_link(store_.at("/a"), store_.at("/f"), "d"));
    store_.fork({});
    store_.write("/f/c", 0, "A");
    store_.unlink("/f/c");
    EXPECT_EQ(links("/a"), 2U);
    EXPECT_EQ(&store_.at("/a"), &store_.at("/f/d"));
    store_.fork({});
    store_.write("/a", 0, "B");
    EXPECT_EQ(store_.read("/f/d"), "B");
}

}  // namespace
}  // namespace ivmm
