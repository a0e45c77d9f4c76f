#include "vmm/fork/clone_record.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/temp_dir.h"
#include "vmm/fork/clone_claim.h"
#include "vmm/fork/clone_removal.h"

namespace ivmm {
namespace {

using rpc::Json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CloneRecordTest : public testing::Test {
 protected:
    CloneRecordTest() {
        ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1);
        std::filesystem::create_directory(dir_.path() + "/ivmm");
        std::filesystem::permissions(dir_.path() + "/ivmm", std::filesystem::perms::owner_all);
    }
    static CloneRecord record() {
        return {.clone = "copy",
                .primary = "web",
                .created = "2026-01-31T12:00:00Z",
                .complete = true,
                .disks = {{"overlay", "/mnt/web/a", "/run/ivmm/copy.disks/0/a"},
                          {"shared", "/srv/b", "/srv/b"}},
                .views = {{"/srv/web", "copy", "/run/ivmm/copy.disks/0", 4711, 256}},
                .cause = {{"reason", "a test"}}};
    }
    std::string file(const std::string& name, const std::string& text = "") const {
        return dir_.file("ivmm/" + name, text);
    }
    static std::string refusal(const std::string& clone) {
        const auto read = read_clone_record(clone);
        EXPECT_FALSE(read);
        return read ? std::string() : read.error().message;
    }

    const test::TempDir dir_;
};

TEST_F(CloneRecordTest, WrittenAndRead) {
    ASSERT_TRUE(write_clone_record(record()));
    auto changed = record();
    changed.complete = false;
    ASSERT_TRUE(write_clone_record(changed));
    const auto read = read_clone_record("copy");
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, changed);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path() + "/ivmm"), {}), 1);
}

TEST_F(CloneRecordTest, APathThatIsNotUtf8IsRefused) {
    auto odd = record();
    odd.disks[1].path = "/srv/\xff";
    const auto written = write_clone_record(odd);
    ASSERT_FALSE(written);
    EXPECT_THAT(written.error().message, HasSubstr("UTF-8"));
    EXPECT_THAT(clone_names(), IsEmpty());
}

TEST_F(CloneRecordTest, WhatIsNoRecordIsRefused) {
    const Json good = to_json(record());
    EXPECT_TRUE(clone_record_from(good));
    for (const auto& [name, value] : good.items()) {
        auto bad = good;
        bad.erase(name);
        EXPECT_FALSE(clone_record_from(bad)) << name;
        bad[name] = nullptr;
        EXPECT_FALSE(clone_record_from(bad)) << name;
    }
    for (const char* const list : {"disks", "views"}) {
        for (const auto& [name, value] : good[list][0].items()) {
            auto bad = good;
            bad[list][0].erase(name);
            EXPECT_FALSE(clone_record_from(bad)) << list << " " << name;
        }
        auto bad = good;
        bad[list][0] = 1;
        EXPECT_FALSE(clone_record_from(bad)) << list;
    }
    for (const auto& odd : {Json(), Json(1), Json::array()}) {
        EXPECT_FALSE(clone_record_from(odd));
    }
    auto newer = good;
    newer["version"] = 3;
    EXPECT_THAT(clone_record_from(newer).error().message, HasSubstr("version 3"));
}

TEST_F(CloneRecordTest, MissingAndDamaged) {
    EXPECT_THAT(refusal("copy"), HasSubstr("no clone 'copy'"));
    EXPECT_THAT(refusal("../copy"), HasSubstr("not a name"));
    file("other.clone", "{\"version\":");
    EXPECT_THAT(refusal("copy"), HasSubstr("there are: other"));
    EXPECT_THAT(refusal("other"), HasSubstr("other.clone' cannot be used"));
    file("third.clone", to_json(record()).dump());
    EXPECT_THAT(refusal("third"), HasSubstr("of clone 'copy'"));
}

TEST_F(CloneRecordTest, NamesOfClones) {
    file("a.clone");
    file("b.clone");
    file(".c.clone");
    file("d.clone.new");
    file("e.lock");
    std::filesystem::create_directory(dir_.path() + "/ivmm/b.disks");
    std::filesystem::create_directory(dir_.path() + "/ivmm/f.disks");
    EXPECT_THAT(clone_names(), ElementsAre("a", "b", "f"));
    std::filesystem::remove_all(dir_.path() + "/ivmm");
    EXPECT_THAT(clone_names(), IsEmpty());
}

TEST_F(CloneRecordTest, OneHasTheClaimAtATime) {
    {
        const auto claim = CloneClaim::take("copy");
        ASSERT_TRUE(claim) << claim.error().message;
        EXPECT_EQ(claim->folder(), dir_.path() + "/ivmm/copy.disks");
        EXPECT_TRUE(CloneClaim::take("other"));
        const auto second = CloneClaim::take("copy");
        ASSERT_FALSE(second);
        EXPECT_THAT(second.error().message, HasSubstr("being made or removed"));
        EXPECT_FALSE(remove_clone_disks(record()));
    }
    EXPECT_TRUE(CloneClaim::take("copy"));
    EXPECT_FALSE(CloneClaim::take("a/b"));
}

TEST_F(CloneRecordTest, RemovalPassesOverWhatIsGone) {
    auto half = record();
    const std::string copy = dir_.file("disk.copy");
    const std::string foreign = dir_.file("disk");
    half.disks = {{"copy", foreign, copy},
                  {"copy", foreign, dir_.path() + "/never"},
                  {"shared", foreign, foreign}};
    half.views[0].store = dir_.path() + "/no-store";
    half.views[0].mountpoint = dir_.path() + "/ivmm/copy.disks/0";
    ASSERT_TRUE(write_clone_record(half));
    std::filesystem::create_directories(dir_.path() + "/ivmm/copy.disks/0");
    std::filesystem::create_directories(dir_.path() + "/ivmm/copy.disks/1");
    for (int times = 0; times < 2; ++times) {
        const auto removed = remove_clone_disks(half);
        ASSERT_TRUE(removed) << removed.error().message;
        EXPECT_THAT(clone_names(), IsEmpty());
        EXPECT_FALSE(std::filesystem::exists(copy));
        EXPECT_TRUE(std::filesystem::exists(foreign));
    }
}

TEST_F(CloneRecordTest, AfterAnErrorTheRecordIsStillThere) {
    auto half = record();
    half.views.clear();
    const std::string copy = dir_.file("disk.copy");
    half.disks = {{"copy", "/srv/disk", dir_.path()}, {"reflink", "/srv/other", copy}};
    ASSERT_TRUE(write_clone_record(half));
    const auto removed = remove_clone_disks(half);  // a folder is no copy
    ASSERT_FALSE(removed);
    EXPECT_THAT(removed.error().message, HasSubstr(dir_.path()));
    EXPECT_FALSE(std::filesystem::exists(copy));
    EXPECT_THAT(clone_names(), ElementsAre("copy"));
    // What somebody has put into the clone's folder is not deleted either.
    half.disks.clear();
    std::filesystem::create_directories(dir_.path() + "/ivmm/copy.disks/0");
    file("copy.disks/0/precious");
    EXPECT_FALSE(remove_clone_disks(half));
    EXPECT_TRUE(std::filesystem::exists(dir_.path() + "/ivmm/copy.disks/0/precious"));
    EXPECT_THAT(clone_names(), ElementsAre("copy"));
}

}  // namespace
}  // namespace ivmm
