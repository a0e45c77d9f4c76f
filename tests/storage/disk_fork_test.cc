// The disks of a guest that is forked, on mounted overlays and on file systems of several kinds.
#include "vmm/fork/disk_fork.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <vector>

#include "storage/layer/store.h"
#include "tests/storage/mounts.h"
#include "tests/storage/overlay_server.h"
#include "tests/support/temp_dir.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/fork/clone_removal.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kBlock = 4096;
constexpr size_t kBlocks = 64;

/// A disk as a guest's process has it open.
class OpenDisk {
 public:
    explicit OpenDisk(const std::string& path)
        : file_(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)),
          buffer_(static_cast<char*>(std::aligned_alloc(kBlock, kBlock)), &std::free) {
        if (!file_) {  // a file system without direct I/O
            file_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        }
        EXPECT_TRUE(file_) << path << ": " << error_text(errno);
    }
    void write(size_t block, char letter) {
        std::fill_n(buffer_.get(), kBlock, letter);
        EXPECT_EQ(::pwrite(file_.get(), buffer_.get(), kBlock, offset(block)), ssize_t{kBlock});
    }
    /// The letter that the block is full of; '?' if it is anything else.
    char read(size_t block) {
        if (::pread(file_.get(), buffer_.get(), kBlock, offset(block)) != ssize_t{kBlock}) {
            return '?';
        }
        const char first = buffer_.get()[0];
        return std::all_of(buffer_.get(), buffer_.get() + kBlock,
                           [&](char c) { return c == first; })
                   ? first
                   : '?';
    }

 private:
    static off_t offset(size_t block) { return static_cast<off_t>(block * kBlock); }
    UniqueFd file_;
    std::unique_ptr<char, void (*)(void*)> buffer_;
};

void make_disk(const std::string& path) {
    std::ofstream(path) << std::string(kBlock * kBlocks, 'o');
}

DiskConfig disk(const std::string& path, bool read_only = false) {
    return {.path = path, .read_only = read_only, .serial = ""};
}

class DiskForkTest : public testing::Test {
 protected:
    /// A store with its mount.
    struct Overlay {
        std::string lower, store, mountpoint;
        OverlayServerProcess server;
    };

    void SetUp() override {
        if (const std::string why = why_no_mounts(); !why.empty()) {
            GTEST_SKIP() << why;
        }
        ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1);
    }
    static std::vector<overlay::MountEntry> mounts() {
        const auto mounts = overlay::read_mount_table();
        return mounts ? *mounts : std::vector<overlay::MountEntry>();
    }
    static void remove_dead_mount(const std::string& mountpoint) {
        for (const auto& entry : mounts()) {
            if (entry.mountpoint == mountpoint) {
                EXPECT_TRUE(overlay::remove_dead_mount(entry));
            }
        }
    }
    void TearDown() override {
        overlays_.clear();
        for (const auto& mount : mounts()) {
            if (mount.mountpoint.starts_with(dir_.path())) {
                ADD_FAILURE() << "left behind: " << mount.mountpoint;
                ::umount2(mount.mountpoint.c_str(), MNT_DETACH);
            }
        }
    }

    std::string folder(const std::string& name) const {
        const std::string path = dir_.path() + "/" + name;
        std::filesystem::create_directory(path);
        return path;
    }
    /// Mounts a new store over disks of these names.
    Overlay& mount(const std::string& name, const std::vector<std::string>& disks) {
        auto& added = overlays_.emplace_back(std::make_unique<Overlay>());
        added->lower = folder(name + "-lower");
        added->store = dir_.path() + "/" + name + "-store";
        added->mountpoint = folder(name);
        for (const auto& one : disks) {
            make_disk(added->lower + "/" + one);
        }
        auto server = OverlayServerProcess::start(
            {.store = added->store, .lower = {added->lower}, .mountpoint = added->mountpoint});
        EXPECT_TRUE(server) << server.error().message;
        if (server) {
            added->server = *std::move(server);
        }
        return *added;
    }

    static std::unique_ptr<DiskFork> prepare(const std::vector<DiskConfig>& disks,
                                             const std::string& clone = "copy") {
        auto prepared = DiskFork::prepare(disks, "web", clone);
        EXPECT_TRUE(prepared) << prepared.error().message;
        return prepared ? *std::move(prepared) : nullptr;
    }
    static std::string refusal(const std::vector<DiskConfig>& disks) {
        const auto prepared = DiskFork::prepare(disks, "web", "copy");
        EXPECT_FALSE(prepared);
        return prepared ? std::string() : prepared.error().message;
    }
    /// The clone's from then on.
    static std::vector<ForkedDisk> commit_and_finish(std::unique_ptr<DiskFork> fork) {
        const auto committed = fork->commit();
        EXPECT_TRUE(committed) << committed.error().message;
        auto forked = fork->finish();
        EXPECT_TRUE(forked) << forked.error().message;
        std::printf("commit %.0f us, of which the overlays stood still for %.0f us\n",
                    fork->times().commit_us, fork->times().overlay_pause_us);
        return forked ? *std::move(forked) : std::vector<ForkedDisk>();
    }
    static void remove(const std::string& clone = "copy") {
        const auto record = read_clone_record(clone);
        ASSERT_TRUE(record) << record.error().message;
        const auto removed = remove_clone_disks(*record);
        EXPECT_TRUE(removed) << removed.error().message;
    }
    static std::vector<std::string> views(const std::string& directory) {
        std::vector<std::string> names;
        const auto store = storage::Store::open(directory);
        const auto list = store ? (*store)->views() : Unexpected{store.error()};
        EXPECT_TRUE(list) << list.error().message;
        for (const auto& view : list ? *list : std::vector<storage::Store::ViewInfo>()) {
            names.push_back(view.name);
        }
        return names;
    }
    void expect_no_clone() const {
        EXPECT_THAT(clone_names(), IsEmpty());
        EXPECT_FALSE(std::filesystem::exists(clone_folder("copy")));
    }

    TempDir dir_;
    std::vector<std::unique_ptr<Overlay>> overlays_;
};

TEST_F(DiskForkTest, TwoDisksOfOneMountAreForkedByOneFork) {
    const Overlay& web = mount("web", {"a.img", "b.img"});
    OpenDisk a(web.mountpoint + "/a.img");
    OpenDisk b(web.mountpoint + "/b.img");
    a.write(0, 'a');
    b.write(0, 'b');
    auto fork = prepare({disk(web.mountpoint + "/a.img"), disk(web.mountpoint + "/b.img")});
    ASSERT_TRUE(fork);
    a.write(1, 'a');
    b.write(1, 'b');
    const auto forked = commit_and_finish(std::move(fork));
    ASSERT_EQ(forked.size(), 2u);
    a.write(2, 'p');
    b.write(0, 'p');

    EXPECT_EQ(forked[0].method, "overlay");
    EXPECT_EQ(forked[0].path, clone_folder("copy") + "/0/a.img");
    EXPECT_EQ(forked[1].path, clone_folder("copy") + "/0/b.img");
    EXPECT_THAT(views(web.store), ElementsAre("copy", "main"));
    {
        OpenDisk clone_a(forked[0].path);
        OpenDisk clone_b(forked[1].path);
        EXPECT_EQ(clone_a.read(0), 'a');
        EXPECT_EQ(clone_a.read(1), 'a');
        EXPECT_EQ(clone_a.read(2), 'o');
        EXPECT_EQ(clone_b.read(0), 'b');
        EXPECT_EQ(clone_b.read(1), 'b');
        clone_a.write(3, 'c');
        clone_b.write(1, 'c');
        EXPECT_EQ(a.read(3), 'o');
        EXPECT_EQ(b.read(1), 'b');
        EXPECT_EQ(clone_a.read(3), 'c');
    }
    remove();
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("main"));
    EXPECT_EQ(a.read(2), 'p');
    a.write(4, 'p');
    EXPECT_EQ(a.read(4), 'p');
}

TEST_F(DiskForkTest, MountsOfTwoServersTogetherWithAReadOnlyDisk) {
    const Overlay& web = mount("web", {"a.img", "c.img"});
    const Overlay& data = mount("data", {"b.img"});
    OpenDisk a(web.mountpoint + "/a.img");
    OpenDisk b(data.mountpoint + "/b.img");
    auto fork = prepare({disk(web.mountpoint + "/a.img"), disk(web.mountpoint + "/c.img", true),
                         disk(data.mountpoint + "/b.img")});
    ASSERT_TRUE(fork);
    a.write(0, 'a');
    b.write(0, 'b');
    const auto forked = commit_and_finish(std::move(fork));
    ASSERT_EQ(forked.size(), 3u);
    a.write(0, 'p');
    b.write(0, 'p');
    EXPECT_EQ(OpenDisk(forked[0].path).read(0), 'a');
    EXPECT_EQ(forked[1].method, "shared");
    EXPECT_EQ(forked[1].path, web.mountpoint + "/c.img");
    EXPECT_EQ(OpenDisk(forked[2].path).read(0), 'b');

    const auto record = read_clone_record("copy");
    ASSERT_TRUE(record) << record.error().message;
    EXPECT_TRUE(record->complete);
    EXPECT_EQ(record->primary, "web");
    ASSERT_EQ(record->views.size(), 2u);
    EXPECT_EQ(record->views[1].store, data.store);
    EXPECT_EQ(record->views[1].server_pid, data.server.pid());
    remove();
    expect_no_clone();
    EXPECT_TRUE(std::filesystem::exists(web.mountpoint + "/c.img"));
}

TEST_F(DiskForkTest, TwoViewsOfOneStore) {
    const Overlay& web = mount("web", {"a.img"});
    const std::string other = folder("other");
    auto served = overlay::find_mount(web.mountpoint);
    ASSERT_TRUE(served) << served.error().message;
    ASSERT_TRUE(served->server.client.call(
        "fork", {{"view", "main"}, {"targets", {{{"view", "other"}, {"mountpoint", other}}}}}));
    OpenDisk a(web.mountpoint + "/a.img");
    OpenDisk b(other + "/a.img");
    auto fork = prepare({disk(web.mountpoint + "/a.img"), disk(other + "/a.img")});
    ASSERT_TRUE(fork);
    a.write(0, 'a');
    b.write(0, 'b');
    const auto forked = commit_and_finish(std::move(fork));
    ASSERT_EQ(forked.size(), 2u);
    EXPECT_THAT(views(web.store), ElementsAre("copy", "copy.1", "main", "other"));
    EXPECT_EQ(OpenDisk(forked[0].path).read(0), 'a');
    EXPECT_EQ(OpenDisk(forked[1].path).read(0), 'b');
    remove();
    EXPECT_THAT(views(web.store), ElementsAre("main", "other"));
}

TEST_F(DiskForkTest, ADiskThatIsReachedThroughABindMount) {
    const Overlay& web = mount("web", {"a.img"});
    std::filesystem::create_directory(web.mountpoint + "/sub");
    std::filesystem::copy(web.mountpoint + "/a.img", web.mountpoint + "/sub/b.img");
    const std::string place = folder("place");
    auto bind = Mount::make(web.mountpoint + "/sub", place, "", MS_BIND, "");
    ASSERT_TRUE(bind) << bind.error().message;
    OpenDisk(place + "/b.img").write(0, 'b');
    auto fork = prepare({disk(place + "/b.img")});
    ASSERT_TRUE(fork);
    const auto forked = commit_and_finish(std::move(fork));
    ASSERT_EQ(forked.size(), 1u);
    EXPECT_EQ(forked[0].path, clone_folder("copy") + "/0/sub/b.img");
    EXPECT_EQ(OpenDisk(forked[0].path).read(0), 'b');
    remove();
}

TEST_F(DiskForkTest, TheForkTakesWhatWasPreparedForIt) {
    const Overlay& web = mount("web", {"a.img"});
    auto served = overlay::find_mount(web.mountpoint);
    ASSERT_TRUE(served) << served.error().message;
    auto& client = served->server.client;
    const rpc::Json three = {{"view", "main"},
                             {"targets", {{{"view", "x"}}, {{"view", "y"}}, {{"view", "z"}}}}};
    ASSERT_TRUE(client.call("prepare_fork", three));
    std::vector<uint32_t> spare;
    const auto store = storage::Store::open(web.store);
    ASSERT_TRUE(store) << store.error().message;
    const auto layers = (*store)->manifests();
    ASSERT_TRUE(layers) << layers.error().message;
    for (const auto& layer : *layers) {
        if (layer.parent == 256) {
            spare.push_back(layer.number);
        }
    }
    EXPECT_EQ(spare.size(), 4u);
    const auto report = client.call("fork", three);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_THAT(spare, testing::Contains(report->value("layer", 0u)));
    for (const auto& target : report->value("targets", rpc::Json::array())) {
        EXPECT_THAT(spare, testing::Contains(target.value("layer", 0u)));
    }
    const auto taken = client.call("prepare_fork", three);
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().message, HasSubstr("\"x\" already"));
}

TEST_F(DiskForkTest, AViewOfThatNameIsRefusedBeforehand) {
    const Overlay& web = mount("web", {"a.img"});
    auto served = overlay::find_mount(web.mountpoint);
    ASSERT_TRUE(served) << served.error().message;
    ASSERT_TRUE(
        served->server.client.call("fork", {{"view", "main"}, {"targets", {{{"view", "copy"}}}}}));
    EXPECT_THAT(refusal({disk(web.mountpoint + "/a.img")}), HasSubstr("\"copy\" already"));
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("copy", "main"));
}

TEST_F(DiskForkTest, RollBackBeforeAndAfterTheInstant) {
    const Overlay& web = mount("web", {"a.img"});
    OpenDisk a(web.mountpoint + "/a.img");
    const std::vector disks{disk(web.mountpoint + "/a.img")};
    ASSERT_TRUE(prepare(disks));  // and the destructor
    expect_no_clone();
    for (const bool finished : {false, true}) {
        a.write(0, 'a');
        auto fork = prepare(disks);
        ASSERT_TRUE(fork);
        ASSERT_TRUE(fork->commit());
        EXPECT_THAT(views(web.store), ElementsAre("copy", "main"));
        a.write(1, 'b');
        if (finished) {
            ASSERT_TRUE(fork->finish());
        }
        fork->roll_back();
        expect_no_clone();
        EXPECT_THAT(views(web.store), ElementsAre("main"));
        EXPECT_EQ(a.read(0), 'a');
        EXPECT_EQ(a.read(1), 'b');
    }
}

TEST_F(DiskForkTest, AllOrNoneWhenOneServerDies) {
    const Overlay& web = mount("web", {"a.img"});
    Overlay& data = mount("data", {"b.img"});
    OpenDisk a(web.mountpoint + "/a.img");
    auto fork = prepare({disk(web.mountpoint + "/a.img"), disk(data.mountpoint + "/b.img")});
    ASSERT_TRUE(fork);
    data.server.kill();
    const auto committed = fork->commit();
    ASSERT_FALSE(committed);
    EXPECT_THAT(committed.error().message, HasSubstr(data.mountpoint));
    fork.reset();
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("main"));
    EXPECT_THAT(views(data.store), ElementsAre("main"));
    a.write(0, 'a');
    EXPECT_EQ(a.read(0), 'a');
    EXPECT_THAT(refusal({disk(data.mountpoint + "/b.img")}), HasSubstr("has died"));
    remove_dead_mount(data.mountpoint);
}

TEST_F(DiskForkTest, RemovalWhenTheServerHasDied) {
    Overlay& web = mount("web", {"a.img"});
    auto fork = prepare({disk(web.mountpoint + "/a.img")});
    ASSERT_TRUE(fork);
    ASSERT_EQ(commit_and_finish(std::move(fork)).size(), 1u);
    web.server.kill();
    remove();
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("main"));
    remove_dead_mount(web.mountpoint);
}

TEST_F(DiskForkTest, RemovalOfTheLastMountEndsTheServer) {
    Overlay& web = mount("web", {"a.img"});
    {
        auto fork = prepare({disk(web.mountpoint + "/a.img")});
        ASSERT_TRUE(fork);
        ASSERT_EQ(commit_and_finish(std::move(fork)).size(), 1u);
    }
    auto served = overlay::find_mount(web.mountpoint);
    ASSERT_TRUE(served) << served.error().message;
    ASSERT_TRUE(served->server.client.call("umount", {{"view", "main"}}));
    const auto record = read_clone_record("copy");
    ASSERT_TRUE(record);
    remove();
    EXPECT_EQ(web.server.wait(), 0);
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("main"));
    EXPECT_TRUE(remove_clone_disks(*record)) << "once more";
    std::filesystem::remove_all(web.store);
    EXPECT_TRUE(remove_clone_disks(*record)) << "without the store";
    expect_no_clone();
}

TEST_F(DiskForkTest, WhatIsInUseIsRemovedByForceOnly) {
    const Overlay& web = mount("web", {"a.img"});
    std::vector<ForkedDisk> forked;
    {
        auto fork = prepare({disk(web.mountpoint + "/a.img")});
        ASSERT_TRUE(fork);
        forked = commit_and_finish(std::move(fork));
    }
    ASSERT_EQ(forked.size(), 1u);
    OpenDisk user(forked[0].path);
    const auto record = read_clone_record("copy");
    ASSERT_TRUE(record);
    const auto removed = remove_clone_disks(*record);
    ASSERT_FALSE(removed);
    EXPECT_THAT(removed.error().message, HasSubstr("in use"));
    EXPECT_EQ(user.read(0), 'o');
    EXPECT_THAT(clone_names(), ElementsAre("copy"));
    const auto forced = remove_clone_disks(*record, /*force=*/true);
    EXPECT_TRUE(forced) << forced.error().message;
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("main"));
}

TEST_F(DiskForkTest, AProcessThatDiesInTheMiddleLeavesWhatCanBeRemoved) {
    const Overlay& web = mount("web", {"a.img"});
    const std::string plain = folder("plain") + "/b.img";
    make_disk(plain);
    const pid_t child = ::fork();
    if (child == 0) {
        auto fork =
            DiskFork::prepare({disk(web.mountpoint + "/a.img"), disk(plain)}, "web", "copy");
        ::_exit(fork && (*fork)->commit() ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    EXPECT_THAT(views(web.store), ElementsAre("copy", "main"));
    EXPECT_TRUE(std::filesystem::exists(plain + ".copy"));
    const auto record = read_clone_record("copy");
    ASSERT_TRUE(record) << record.error().message;
    EXPECT_FALSE(record->complete);
    EXPECT_THAT(refusal({}), HasSubstr("ivmm rm copy"));
    remove();
    expect_no_clone();
    EXPECT_THAT(views(web.store), ElementsAre("main"));
    EXPECT_FALSE(std::filesystem::exists(plain + ".copy"));
    EXPECT_TRUE(std::filesystem::exists(plain));
}

TEST_F(DiskForkTest, AFileSystemThatSharesBlocks) {
    const std::string place = folder("xfs");
    auto image = DiskImage::make(dir_.path() + "/image", uint64_t{320} << 20, "xfs", place);
    if (!image && image.error().kind == ErrorKind::kHost) {
        GTEST_SKIP() << image.error().message;
    }
    ASSERT_TRUE(image) << image.error().message;
    const std::string path = place + "/a.img";
    make_disk(path);
    std::filesystem::resize_file(path, kBlock * kBlocks + 512);  // not a whole block
    {
        OpenDisk primary(path);
        auto fork = prepare({disk(path)});
        ASSERT_TRUE(fork);
        primary.write(0, 'a');
        const auto forked = commit_and_finish(std::move(fork));
        ASSERT_EQ(forked.size(), 1u);
        EXPECT_EQ(forked[0].method, "reflink");
        EXPECT_EQ(forked[0].path, path + ".copy");
        EXPECT_EQ(std::filesystem::file_size(forked[0].path), kBlock * kBlocks + 512);
        primary.write(1, 'p');
        OpenDisk clone(forked[0].path);
        EXPECT_EQ(clone.read(0), 'a');
        EXPECT_EQ(clone.read(1), 'o');
        clone.write(2, 'c');
        EXPECT_EQ(primary.read(2), 'o');
    }
    remove();
    EXPECT_FALSE(std::filesystem::exists(path + ".copy"));
}

TEST_F(DiskForkTest, AFileSystemThatHasNoSpaceForACopy) {
    const std::string place = folder("small");
    const auto tmpfs = Mount::make("none", place, "tmpfs", 0, "size=1100k");  // 275 blocks
    ASSERT_TRUE(tmpfs) << tmpfs.error().message;
    const std::string path = place + "/a.img";
    const std::string other = place + "/b.img";
    make_disk(path);
    make_disk(other);
    EXPECT_TRUE(prepare({disk(path), disk(other)}));
    std::ofstream(place + "/more") << std::string(kBlock * 30, 'm');
    EXPECT_THAT(refusal({disk(path), disk(other)}), HasSubstr("too little space"));
    EXPECT_FALSE(std::filesystem::exists(path + ".copy"));
    {
        // What fills the space later fails the fork, and nothing stays.
        auto fork = prepare({disk(path)});
        ASSERT_TRUE(fork);
        std::ofstream(place + "/most") << std::string(kBlock * 100, 'm');
        EXPECT_FALSE(fork->commit());
    }
    EXPECT_FALSE(std::filesystem::exists(path + ".copy"));
    expect_no_clone();
}

}  // namespace
}  // namespace ivmm::test
