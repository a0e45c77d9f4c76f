#include "vmm/overlay/mount_table.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temp_dir.h"

namespace ivmm::overlay {
namespace {

TEST(MountTableTest, FindsTheOverlays) {
    const auto entries = parse_mount_table(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "43 22 0:39 / /mnt/web rw,nosuid shared:7 master:2 - fuse.ivmm /srv/web rw,user_id=0\n"
        "44 22 0:40 / /mnt/other rw - fuse.sshfs host: rw\n"
        "45 43 0:1041 / /mnt/a\\040b\\134c rw - fuse.ivmm /srv/d\\054e rw");
    ASSERT_EQ(entries.size(), 2u);
    EXPECT_EQ(entries[0].mountpoint, "/mnt/web");
    EXPECT_EQ(entries[0].source, "/srv/web");
    EXPECT_EQ(entries[0].minor, 39u);
    EXPECT_EQ(entries[1].mountpoint, "/mnt/a b\\c");
    EXPECT_EQ(entries[1].source, "/srv/d,e");
    EXPECT_EQ(entries[1].minor, 1041u);
}

TEST(MountTableTest, OddLinesAreNoOverlays) {
    for (const char* const text :
         {"", "\n", "fuse.ivmm", "1 2 0:3 / /m rw -", "1 2 0:3 / /m rw - fuse.ivmm",
          "1 2 0:3 / /m rw fuse.ivmm /s", "1 2 03 / /m rw - fuse.ivmm /s rw",
          "1 2 0:x / /m rw - fuse.ivmm /s rw", "- fuse.ivmm /s", "1 2 - fuse.ivmm /s rw"}) {
        EXPECT_TRUE(parse_mount_table(text).empty()) << text;
    }
    // An escape that is cut off is text.
    EXPECT_EQ(parse_mount_table("1 2 0:3 / /m\\04 rw - fuse.ivmm /s\\ rw").at(0).mountpoint,
              "/m\\04");
}

TEST(MountTableTest, ThePlaceOfAFileInItsView) {
    const auto entries = parse_mount_table(
        "43 22 0:39 / /mnt/web rw - fuse.ivmm /srv/web rw\n"
        "44 22 0:39 /sub /mnt/web/deep rw - fuse.ivmm /srv/web rw\n"
        "45 22 0:40 / /mnt/website rw - fuse.ivmm /srv/web rw\n"
        "46 22 0:39 /sub/disk /file rw - fuse.ivmm /srv/web rw\n");
    const auto path = [&](const char* file, unsigned minor) {
        const auto place = place_in_view(entries, file, minor);
        return place ? place->mount->mountpoint + " " + place->path : "none";
    };
    EXPECT_EQ(path("/mnt/web/a/b", 39), "/mnt/web /a/b");
    EXPECT_EQ(path("/mnt/web/deep/b", 39), "/mnt/web/deep /sub/b");
    EXPECT_EQ(path("/file", 39), "/file /sub/disk");
    EXPECT_EQ(path("/mnt/website/b", 40), "/mnt/website /b");
    EXPECT_EQ(path("/mnt/website/b", 39), "none");
    EXPECT_EQ(path("/mnt/web/a", 40), "none");
    EXPECT_EQ(path("/srv/a", 39), "none");
}

TEST(MountTableTest, TheTableOfThisHostCanBeRead) {
    EXPECT_TRUE(read_mount_table());
}

TEST(ResolveTest, AbsoluteWithoutLinks) {
    const test::TempDir dir;
    std::filesystem::create_directory(dir.path() + "/real");
    std::filesystem::create_symlink("real", dir.path() + "/link");
    EXPECT_EQ(*resolve(dir.path() + "/./link/../link/"), dir.path() + "/real");
    EXPECT_EQ(*resolve("/"), "/");
    EXPECT_EQ(*resolve_directory("upper", dir.path() + "/link"), dir.path() + "/real");
}

TEST(ResolveTest, WhatIsNotThere) {
    const test::TempDir dir;
    const auto missing = resolve_directory("upper", dir.path() + "/none");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().kind, ErrorKind::kUsage);
    EXPECT_EQ(missing.error().message,
              "upper: '" + dir.path() + "/none': No such file or directory");
    const auto file = resolve_directory("lower", dir.file("file"));
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().message, "lower: '" + dir.path() + "/file' is not a directory");
    EXPECT_FALSE(resolve(""));
}

}  // namespace
}  // namespace ivmm::overlay
