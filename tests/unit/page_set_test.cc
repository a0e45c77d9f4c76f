#include "memory/page_set.h"

#include <gtest/gtest.h>

#include <utility>

namespace ivmm {
namespace {

using Range = std::pair<uint64_t, uint64_t>;

std::vector<Range> runs_of(const PageSet& set) {
    std::vector<Range> runs;
    set.for_each_run([&](uint64_t first, uint64_t count) { runs.emplace_back(first, count); });
    return runs;
}

TEST(PageSetTest, GivesItsPagesInRuns) {
    PageSet set(200);
    EXPECT_EQ(runs_of(set), std::vector<Range>{});
    for (const uint64_t page : {0, 1, 5, 63, 64, 65, 199}) {
        set.insert(page);
    }
    EXPECT_EQ(set.count(), 7U);
    EXPECT_EQ(runs_of(set), (std::vector<Range>{{0, 2}, {5, 1}, {63, 1}, {64, 2}, {199, 1}}));
    set.erase(5);
    EXPECT_FALSE(set.contains(5));
    EXPECT_TRUE(set.contains(199));
    EXPECT_EQ(runs_of(set), (std::vector<Range>{{0, 2}, {63, 1}, {64, 2}, {199, 1}}));
    set.clear();
    EXPECT_EQ(set.count(), 0U);
}

TEST(PageSetTest, AllOfThemAreAsManyAsThereAre) {
    for (const uint64_t pages : {1, 63, 64, 65, 128, 200}) {
        PageSet set(pages);
        set.insert_all();
        EXPECT_EQ(set.count(), pages);
        uint64_t next = 0;
        set.for_each_run([&](uint64_t first, uint64_t count) {
            EXPECT_EQ(first, next);
            next = first + count;
        });
        EXPECT_EQ(next, pages);
    }
}

}  // namespace
}  // namespace ivmm
