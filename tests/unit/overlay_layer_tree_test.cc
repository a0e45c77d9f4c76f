#include "vmm/overlay/layer_tree.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "storage/layer/files.h"
#include "tests/support/temp_dir.h"

namespace ivmm::overlay {
namespace {

using storage::disk_usage;
using storage::Manifest;
using ::testing::ElementsAre;

Manifest layer(uint32_t number, uint32_t parent, Manifest::State state) {
    Manifest manifest;
    manifest.number = number;
    manifest.parent = parent;
    manifest.state = state;
    return manifest;
}

TEST(LayerTreeTest, ParentsFirstAndStates) {
    constexpr auto kOpen = Manifest::State::kOpen;
    constexpr auto kSealed = Manifest::State::kSealed;
    const auto rows =
        arrange_layers({layer(256, 0, kSealed), layer(257, 256, kOpen), layer(258, 256, kOpen),
                        layer(259, 257, kOpen), layer(260, 257, kOpen), layer(300, 299, kOpen)},
                       {{"copy", 258, false}, {"main", 259, true}});
    std::vector<std::string> lines;
    for (const auto& row : rows) {
        lines.push_back(std::string(row.indent, ' ') + std::to_string(row.number) + " " +
                        row.state + (row.views.empty() ? "" : " " + row.views.front()));
    }
    EXPECT_THAT(lines, ElementsAre("256 sealed", " 257 frozen", "  259 open main", "  260 spare",
                                   " 258 open copy", "300 spare"));
}

TEST(LayerTreeTest, ALongChainIsOneColumn) {
    std::vector<Manifest> chain;
    for (uint32_t i = 0; i < 10'000; ++i) {
        chain.push_back(layer(256 + i, i == 0 ? 0 : 255 + i, Manifest::State::kSealed));
    }
    const auto rows = arrange_layers(chain, {});
    ASSERT_EQ(rows.size(), chain.size());
    EXPECT_EQ(rows.back().number, 256u + 9'999);
    EXPECT_EQ(rows.back().indent, 0u);
}

TEST(DiskUsageTest, CountsAFileOnceAndFollowsNothing) {
    const test::TempDir dir;
    const uint64_t empty = disk_usage(dir.path());
    dir.file("file", std::string(100'000, 'x'));
    const uint64_t one = disk_usage(dir.path());
    EXPECT_GE(one, empty + 100'000);
    std::filesystem::create_hard_link(dir.path() + "/file", dir.path() + "/again");
    EXPECT_EQ(disk_usage(dir.path()), one);
    std::filesystem::create_directory(dir.path() + "/sub");
    std::filesystem::create_symlink("/usr", dir.path() + "/sub/link");
    EXPECT_LT(disk_usage(dir.path()), one + 100'000);
    EXPECT_EQ(disk_usage(dir.path() + "/none"), 0u);
}

}  // namespace
}  // namespace ivmm::overlay
