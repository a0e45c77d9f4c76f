#include "storage/tools/check.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "storage/layer/store_records.h"
#include "tests/support/served_store.h"

namespace ivmm::storage {
namespace {

namespace fs = std::filesystem;
using Severity = CheckFinding::Severity;

constexpr size_t kBig = 300'000;  // larger than what is copied up whole

std::string text_of(const CheckReport& report) {
    std::string text;
    for (const auto& finding : report.findings) {
        text += fmt::format("{} {}: {}{}\n", static_cast<int>(finding.severity), finding.path,
                            finding.what, finding.mended ? " (mended)" : "");
    }
    return text;
}

/// A store that is not served: "main" over layer `frozen_`, which "other" is over as well. /disk is
/// a block file with a part in `frozen_` and one in `top_`.
class CheckTest : public testing::Test {
 protected:
    void SetUp() override {
        store_.lower_file("disk", std::string(kBig, 'x'));
        store_.lower_file("small", "small");
        store_.lower_file("d/linked", "linked");
        fs::create_hard_link(store_.lower() + "/d/linked", store_.lower() + "/again");
        store_.serve();
        store_.write("/disk", 0, "first");
        frozen_ = store_.fork({"other"});
        store_.write("/disk", 100'000, "second");
        store_.write("/d/linked", 0, "LINKED");
        store_.write("/small", 0, "SMALL");
        store_.make_directory("/new");
        store_.rename("/d", "/new/d");
        top_ = store_.top();
        store_.stop();
        ASSERT_TRUE(Store::open(store_.path()));  // deletes what a fork leaves
    }

    CheckReport check(bool repair = false) const {
        CheckOptions options;
        options.repair = repair;
        auto report = check_store(store_.path(), options);
        EXPECT_TRUE(report) << report.error().message;
        return report ? *std::move(report) : CheckReport();
    }
    /// That there is exactly one finding, this one, and whether a repair has mended it.
    void expect_one(Severity severity, const std::string& path, const std::string& what,
                    bool mended) const {
        const auto before = check();
        ASSERT_EQ(before.findings.size(), 1U) << text_of(before);
        EXPECT_EQ(before.findings[0].severity, severity);
        EXPECT_EQ(before.findings[0].path, path);
        EXPECT_NE(before.findings[0].what.find(what), std::string::npos) << text_of(before);
        EXPECT_FALSE(before.findings[0].mended);
        EXPECT_EQ(before.clean(), severity == Severity::kNote);
        const auto repaired = check(true);
        ASSERT_EQ(repaired.findings.size(), 1U) << text_of(repaired);
        EXPECT_EQ(repaired.findings[0].mended, mended) << text_of(repaired);
        const auto after = check();
        EXPECT_EQ(after.findings.size(), mended ? 0U : 1U) << text_of(after);
    }
    /// That the store is served as before.
    void expect_intact() {
        store_.serve();
        std::string disk(kBig, 'x');
        disk.replace(0, 5, "first").replace(100'000, 6, "second");
        EXPECT_TRUE(store_.read("/disk") == disk);
        EXPECT_EQ(store_.read("/new/d/linked"), "LINKED");
        EXPECT_EQ(store_.read("/again"), "LINKED");
        EXPECT_EQ(store_.read("/small"), "SMALL");
        store_.stop();
    }
    /// That a store with a damaged /disk is served, and all else is there.
    void expect_contained() {
        store_.serve();
        EXPECT_EQ(store_.read("/disk"), std::nullopt);
        EXPECT_EQ(store_.read("/again"), "LINKED");
        EXPECT_EQ(store_.read("/small"), "SMALL");
        store_.stop();
    }

    std::string top() const { return fmt::format("layers/{}", top_); }
    std::string frozen() const { return fmt::format("layers/{}", frozen_); }
    std::string file(const std::string& path) const { return store_.path() + "/" + path; }
    static void overwrite(const std::string& path, uint64_t offset, std::string_view bytes) {
        std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
            .seekp(static_cast<std::streamoff>(offset))
            .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    std::string mark_name(const std::string& mark) const {
        std::string prefix;
        const auto store = Store::open(store_.path());
        EXPECT_TRUE(store);
        return ((*store)->mark_style() == MarkStyle::kTrusted ? "trusted.overlay."
                                                              : "user.overlay.") +
               mark;
    }
    void set_mark(const std::string& path, const std::string& mark,
                  const std::string& value) const {
        ASSERT_EQ(
            ::lsetxattr(file(path).c_str(), mark_name(mark).c_str(), value.data(), value.size(), 0),
            0)
            << path;
    }
    /// The block map of /disk in a layer.
    std::string map_of(const std::string& layer) const {
        const auto maps = fs::directory_iterator(file(layer) + "/maps");
        EXPECT_EQ(std::distance(fs::begin(maps), fs::end(maps)), 1);
        return fs::directory_iterator(file(layer) + "/maps")->path();
    }

    test::ServedStore store_;
    uint32_t frozen_ = 0;
    uint32_t top_ = 0;
};

TEST_F(CheckTest, GoodStoreIsClean) {
    const auto report = check(true);
    EXPECT_EQ(report.findings.size(), 0U) << text_of(report);
    EXPECT_TRUE(report.clean());
    EXPECT_EQ(report.layers, 3U);
    EXPECT_EQ(report.block_files, 2U);
    expect_intact();
}

TEST_F(CheckTest, ServedStoreIsOnlyRead) {
    store_.serve();
    store_.write("/disk", 200'000, "third");
    std::ofstream(file(top()) + "/work/mine");
    std::ofstream(file(top()) + "/maps/mine");
    std::ignore = store_.fork({"third"});
    const auto report = check(true);
    EXPECT_EQ(report.findings.size(), 1U) << text_of(report);
    EXPECT_TRUE(report.clean());
    EXPECT_TRUE(fs::exists(file(top()) + "/work/mine"));
    EXPECT_TRUE(fs::exists(file(top()) + "/maps/mine"));
    // Of views that are not served, leftovers are deleted meanwhile.
    const auto other = decode_view_record([&] {
        std::ifstream view(file("views/other"));
        return std::string(std::istreambuf_iterator<char>(view), {});
    }());
    ASSERT_TRUE(other);
    std::ofstream(store_.layer_path(other->top) + "/maps/left");
    EXPECT_TRUE(check(true).clean());
    EXPECT_FALSE(fs::exists(store_.layer_path(other->top) + "/maps/left"));
    store_.write("/disk", 210'000, "fourth");
    EXPECT_EQ(store_.read("/disk")->substr(200'000, 5), "third");
}

TEST_F(CheckTest, LeftoversAreDeleted) {
    std::ofstream(file(top()) + "/maps/left");
    expect_one(Severity::kLeftover, top() + "/maps/left", "no file refers to", true);
    fs::create_directories(file(frozen()) + "/work/left/over");
    expect_one(Severity::kLeftover, frozen() + "/work/left", "unfinished", true);
    std::ofstream(file(top()) + "/links/1-999");
    set_mark(top() + "/links/1-999", "ivmm.links", "0");
    expect_one(Severity::kLeftover, top() + "/links/1-999", "last name", true);
    fs::create_directories(file("layers/.999.new/tree"));
    expect_one(Severity::kNote, "layers/.999.new", "unfinished", true);
    std::ofstream(file("views/.999.next"));
    expect_one(Severity::kNote, "views/.999.next", "unfinished", true);
    expect_intact();
}

TEST_F(CheckTest, LayerThatNoViewNeedsIsDeleted) {
    const std::string view = file("views/other");
    fs::remove(view);
    const auto report = check();
    ASSERT_EQ(report.findings.size(), 1U) << text_of(report);
    const std::string path = report.findings[0].path;
    expect_one(Severity::kNote, path, "no view needs", true);
    EXPECT_FALSE(fs::exists(file(path)));
    expect_intact();
}

TEST_F(CheckTest, DamagedNextIsMadeAnew) {
    overwrite(file("layers/NEXT"), 3, "#");
    expect_one(Severity::kDamage, "layers/NEXT", "no new layer", true);
    expect_intact();
    store_.serve();
    EXPECT_GT(store_.fork({"third"}), frozen_);
}

TEST_F(CheckTest, MissingDirectoriesThatWereEmptyAreMadeAnew) {
    fs::remove(file(frozen()) + "/work");
    expect_one(Severity::kDamage, frozen() + "/work", "cannot be opened", true);
    fs::remove_all(file("locks"));
    expect_one(Severity::kDamage, "locks", "cannot be opened", true);
    expect_intact();
}

TEST_F(CheckTest, MissingMapIsContained) {
    fs::remove(map_of(top()));
    expect_one(Severity::kDamage, top() + "/tree/disk", "cannot be opened", false);
    expect_contained();
}

TEST_F(CheckTest, CorruptMapPageIsContained) {
    const std::string map = map_of(top());
    for (const uint64_t slot : {8192U, 12288U}) {
        overwrite(map, slot + 100, "#");
    }
    expect_one(Severity::kDamage, top() + "/tree/disk", "bytes 0 to 299999", false);
    expect_contained();
}

TEST_F(CheckTest, CorruptMapHeaderIsContained) {
    const std::string map = map_of(top());
    for (const uint64_t slot : {0U, 4096U}) {
        overwrite(map, slot + 100, "#");
    }
    expect_one(Severity::kDamage, top() + "/tree/disk", "header", false);
    expect_contained();
}

TEST_F(CheckTest, UnfinishedFlushIsOnlySaid) {
    // The newer slot is the second; a crash in the next flush tears the first.
    store_.serve();
    store_.write("/disk", 0, "first");
    store_.stop();
    overwrite(map_of(top()), 8192 + 100, "#");
    expect_one(Severity::kNote, top() + "/tree/disk", "cut a flush short", false);
    expect_intact();
}

TEST_F(CheckTest, MissingLowerFileIsContained) {
    fs::rename(store_.lower() + "/disk", store_.lower() + "/elsewhere");
    expect_one(Severity::kDamage, frozen() + "/tree/disk", "/disk in the layers below", false);
    expect_contained();
}

TEST_F(CheckTest, DamagedMarkIsContained) {
    set_mark(top() + "/tree/disk", "ivmm.block", "nonsense");
    expect_one(Severity::kDamage, top() + "/tree/disk", "mark", false);
    EXPECT_TRUE(fs::exists(map_of(top()))) << "somebody may need it";
    expect_contained();
}

TEST_F(CheckTest, TwoFilesWithOneMapAreSaid) {
    const std::string copy = file(top()) + "/tree/copy";
    ASSERT_EQ(
        std::system(fmt::format("cp --preserve=all {}/tree/disk {}", file(top()), copy).c_str()),
        0);
    expect_one(Severity::kDamage, check().findings.at(0).path, "the same block map", false);
}

TEST_F(CheckTest, MalformedMarksOfDirectoriesAreSaid) {
    set_mark(top() + "/tree/new", "opaque", "?");
    expect_one(Severity::kDamage, top() + "/tree/new", "opaque", false);
    set_mark(top() + "/tree/new", "opaque", "y");
    set_mark(top() + "/tree/new/d", "redirect", "../..");
    expect_one(Severity::kDamage, top() + "/tree/new/d", "lower part", false);
    set_mark(top() + "/tree/new/d", "redirect", "/nowhere");
    expect_one(Severity::kDamage, top() + "/tree/new/d", "/nowhere, is missing", false);
    set_mark(top() + "/tree/new/d", "redirect", "/d");
    EXPECT_TRUE(check().clean());
}

TEST_F(CheckTest, ForeignKindsOfMarksAreSaid) {
    set_mark(top() + "/tree/small", "whiteout", "y");
    expect_one(Severity::kDamage, top() + "/tree/small", "whiteout", false);
    ASSERT_EQ(::lremovexattr(file(top() + "/tree/small").c_str(), mark_name("whiteout").c_str()),
              0);
    set_mark(top() + "/tree/small", "metacopy", "");
    expect_one(Severity::kDamage, top() + "/tree/small", "metacopy", false);
}

TEST_F(CheckTest, DamagedViewFileIsContained) {
    overwrite(file("views/other"), 3, "#");
    expect_one(Severity::kDamage, "views/other", "Which layer the view has is lost", false);
    expect_intact();
    const auto store = Store::open(store_.path());
    ASSERT_TRUE(store);
    EXPECT_TRUE((*store)->remove_view("other"));
    EXPECT_TRUE(check(true).clean());
}

TEST_F(CheckTest, DamagedManifestIsContained) {
    overwrite(file(top() + "/MANIFEST"), 3, "#");
    expect_one(Severity::kDamage, top() + "/MANIFEST", "cannot be served: main;", false);
    store_.serve("other");
    EXPECT_EQ(store_.read("/disk")->substr(0, 5), "first");
}

TEST_F(CheckTest, MissingLayerIsSaid) {
    fs::remove_all(file(frozen()));
    const auto report = check();
    ASSERT_FALSE(report.findings.empty());
    EXPECT_FALSE(report.clean());
    EXPECT_EQ(report.findings[0].path, frozen()) << text_of(report);
    EXPECT_NE(report.findings[0].what.find("main, other"), std::string::npos) << text_of(report);
}

TEST_F(CheckTest, MissingLowerBranchIsSaid) {
    fs::rename(store_.lower(), store_.lower() + ".away");
    expect_one(Severity::kDamage, store_.lower(), "no view can be served", false);
    fs::rename(store_.lower() + ".away", store_.lower());
    expect_intact();
}

TEST_F(CheckTest, DamagedStoreFileIsSaid) {
    overwrite(file("STORE"), 3, "#");
    expect_one(Severity::kDamage, "STORE", "lower branches, is lost", false);
}

TEST_F(CheckTest, WhatIsNoStoreIsAnError) {
    EXPECT_FALSE(check_store(store_.lower(), {}));
    EXPECT_FALSE(check_store(store_.folder() + "/nothing", {}));
}

TEST_F(CheckTest, KilledServerLeavesNothingThatStays) {
    store_.serve();
    store_.write("/disk", 0, "lost?");
    store_.stop(false);
    const auto report = check(true);
    EXPECT_TRUE(report.clean()) << text_of(report);
    EXPECT_EQ(check().findings.size(), 0U);
}

}  // namespace
}  // namespace ivmm::storage
