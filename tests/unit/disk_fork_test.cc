// Disks that are plain files, and what cannot be forked. Overlays: tests/storage.
#include "vmm/fork/disk_fork.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/temp_dir.h"
#include "vmm/fork/clone_removal.h"

namespace ivmm {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;

class PlainDiskForkTest : public testing::Test {
 protected:
    PlainDiskForkTest() {
        ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1);
        disk_ = dir_.file("disk", std::string(10'000, 'o'));
    }
    static DiskConfig disk(const std::string& path, bool read_only = false) {
        return {.path = path, .read_only = read_only, .serial = ""};
    }
    static std::string refusal(const std::vector<DiskConfig>& disks) {
        const auto prepared = DiskFork::prepare(disks, "web", "copy");
        EXPECT_FALSE(prepared);
        return prepared ? std::string() : prepared.error().message;
    }
    static std::unique_ptr<DiskFork> prepare(const std::vector<DiskConfig>& disks) {
        auto prepared = DiskFork::prepare(disks, "web", "copy");
        EXPECT_TRUE(prepared) << prepared.error().message;
        return prepared ? *std::move(prepared) : nullptr;
    }
    static std::string read(const std::string& path) {
        std::ostringstream text;
        text << std::ifstream(path).rdbuf();
        return text.str();
    }
    static void change(const std::string& path, std::streamoff at, char letter) {
        std::fstream(path).seekp(at).put(letter);
    }
    /// A path of the first block device there is.
    static std::string block_device() {
        std::error_code error;
        for (const auto& entry : std::filesystem::directory_iterator("/dev", error)) {
            if (entry.is_block_file(error)) {
                return entry.path();
            }
        }
        return {};
    }
    void expect_nothing_left() const {
        EXPECT_THAT(clone_names(), IsEmpty());
        EXPECT_FALSE(std::filesystem::exists(disk_ + ".copy"));
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path() + "/ivmm"), {}), 0);
    }

    const test::TempDir dir_;
    std::string disk_;
};

TEST_F(PlainDiskForkTest, EachSideGoesOnForItself) {
    const std::string base = dir_.file("base", "read-only");
    auto fork = prepare({disk(base, true), disk(disk_)});
    ASSERT_TRUE(fork);
    change(disk_, 0, 'b');
    ASSERT_TRUE(fork->commit());
    EXPECT_GT(fork->times().commit_us, 0);
    change(disk_, 1, 'p');
    const auto forked = fork->finish();
    ASSERT_TRUE(forked) << forked.error().message;
    ASSERT_EQ(forked->size(), 2u);
    EXPECT_EQ((*forked)[0].method, "shared");
    EXPECT_EQ((*forked)[0].path, base);
    EXPECT_THAT((*forked)[1].method, AnyOf("copy", "reflink"));
    EXPECT_EQ((*forked)[1].path, disk_ + ".copy");
    EXPECT_EQ(read(disk_ + ".copy"), "b" + std::string(9'999, 'o'));
    change(disk_ + ".copy", 2, 'c');
    EXPECT_EQ(read(disk_), "bp" + std::string(9'998, 'o'));

    const auto record = read_clone_record("copy");
    ASSERT_TRUE(record) << record.error().message;
    EXPECT_TRUE(record->complete);
    EXPECT_EQ(record->primary, "web");
    EXPECT_EQ(record->disks.size(), 2u);
    fork.reset();
    EXPECT_TRUE(std::filesystem::exists(disk_ + ".copy"));
    ASSERT_TRUE(remove_clone_disks(*record));
    EXPECT_EQ(read(base), "read-only");
    expect_nothing_left();
}

TEST_F(PlainDiskForkTest, WithoutDisks) {
    const auto fork = prepare({});
    ASSERT_TRUE(fork);
    ASSERT_TRUE(fork->commit());
    const auto forked = fork->finish();
    ASSERT_TRUE(forked);
    EXPECT_THAT(*forked, IsEmpty());
    fork->roll_back();
    expect_nothing_left();
}

TEST_F(PlainDiskForkTest, RolledBackAtEachStep) {
    ASSERT_TRUE(prepare({disk(disk_)}));
    expect_nothing_left();
    {
        const auto fork = prepare({disk(disk_)});
        ASSERT_TRUE(fork && fork->commit());
        EXPECT_TRUE(std::filesystem::exists(disk_ + ".copy"));
    }
    expect_nothing_left();
    const auto fork = prepare({disk(disk_)});
    ASSERT_TRUE(fork && fork->commit() && fork->finish());
    fork->roll_back();
    expect_nothing_left();
    EXPECT_EQ(read(disk_), std::string(10'000, 'o'));
}

TEST_F(PlainDiskForkTest, WhatCannotBeForkedIsRefusedBeforehand) {
    EXPECT_THAT(refusal({disk(disk_), disk(dir_.path() + "/none")}), HasSubstr("/none"));
    expect_nothing_left();
    EXPECT_THAT(refusal({disk(disk_), disk(dir_.path())}), HasSubstr("not a file"));
    expect_nothing_left();
    if (const auto device = block_device(); !device.empty()) {
        EXPECT_THAT(refusal({disk(disk_), disk(device)}),
                    testing::AllOf(HasSubstr(device), HasSubstr("ivmm overlay mount")));
        expect_nothing_left();
        EXPECT_TRUE(prepare({disk(device, true)}));
        expect_nothing_left();
    }
    const std::string odd = dir_.file("odd\xff", "x");
    EXPECT_THAT(refusal({disk(odd)}), HasSubstr("UTF-8"));
    EXPECT_FALSE(std::filesystem::exists(odd + ".copy"));
    expect_nothing_left();
    EXPECT_FALSE(DiskFork::prepare({}, "web", "not a name"));
}

TEST_F(PlainDiskForkTest, AFileInTheWayIsNotTouched) {
    const std::string other = dir_.file("other", "other");
    const std::string taken = dir_.file("other.copy", "mine");
    EXPECT_THAT(refusal({disk(disk_), disk(other)}), HasSubstr(taken));
    EXPECT_EQ(read(taken), "mine");
    expect_nothing_left();
}

TEST_F(PlainDiskForkTest, ACloneThatIsThereStaysAsItIs) {
    auto fork = prepare({disk(disk_)});
    ASSERT_TRUE(fork && fork->commit() && fork->finish());
    EXPECT_THAT(refusal({disk(disk_)}), HasSubstr("being made"));
    fork.reset();
    const auto before = read_clone_record("copy");
    EXPECT_THAT(refusal({disk(disk_)}), HasSubstr("ivmm rm copy"));
    const auto after = read_clone_record("copy");
    ASSERT_TRUE(before && after);
    EXPECT_EQ(*before, *after);
    EXPECT_TRUE(std::filesystem::exists(disk_ + ".copy"));
}

TEST_F(PlainDiskForkTest, AFolderThatWasLeftEmptyIsTakenOver) {
    ASSERT_TRUE(CloneClaim::take("copy"));
    const auto left = read_clone_record("copy");
    ASSERT_TRUE(left) << left.error().message;
    EXPECT_FALSE(left->complete);
    ASSERT_TRUE(prepare({disk(disk_)}));
    expect_nothing_left();
    ASSERT_TRUE(CloneClaim::take("copy"));
    EXPECT_TRUE(remove_clone_disks(*left));
    expect_nothing_left();
}

}  // namespace
}  // namespace ivmm
