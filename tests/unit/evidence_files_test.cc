// The files that have changed between two images: real ext4 file systems, and images that somebody
// has damaged on purpose.

#include "vmm/evidence/file_changes.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <random>

#include "base/unique_fd.h"
#include "tests/support/temp_dir.h"
#include "vmm/evidence/confined.h"
#include "vmm/evidence/journal_replay.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Key;

class FileChangesTest : public testing::Test {
 protected:
    static void run(const std::string& command) {
        ASSERT_EQ(
            std::system(("PATH=$PATH:/sbin:/usr/sbin; (" + command + ") >/dev/null 2>&1").c_str()),
            0)
            << command;
    }
    /// Two equal images of a file system with some files.
    void make_images(const std::string& options = "-t ext4") {
        run("mkdir -p " + root() + "/etc " + root() + "/big");
        dir_.file("root/etc/passwd", "root:x:0:0\n");
        dir_.file("root/etc/secret", "secret\n");
        dir_.file("root/big/data", std::string(200'000, 'a'));
        run("ln -s passwd " + root() + "/etc/link");
        run("mke2fs -q " + options + " -d " + root() + " " + before() + " 8M");
        run("cp " + before() + " " + after());
    }
    /// Changes the second one, by commands of debugfs.
    void change(const std::string& commands) {
        const std::string script = dir_.file("script", commands);
        run("debugfs -w -f " + script + " " + after());
    }
    Result<std::map<std::string, Json>> changes() const {
        const UniqueFd old(::open(before().c_str(), O_RDONLY));
        const UniqueFd now(::open(after().c_str(), O_RDONLY));
        std::map<std::string, Json> found;
        IVMM_TRY(list_file_changes(old.get(), now.get(), [&](Json change) -> Result<void> {
            const std::string path = change.value("path", "");
            EXPECT_FALSE(found.contains(path)) << path;
            found[path] = std::move(change);
            return {};
        }));
        return found;
    }
    std::string root() const { return dir_.path() + "/root"; }
    std::string before() const { return dir_.path() + "/before"; }
    std::string after() const { return dir_.path() + "/after"; }

    const test::TempDir dir_;
};

TEST_F(FileChangesTest, NothingHasChanged) {
    make_images();
    const auto found = changes();
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_TRUE(found->empty());
}

TEST_F(FileChangesTest, AddedChangedAndRemoved) {
    for (const char* const options :
         {"-t ext2", "-t ext4", "-t ext4 -I 128", "-t ext4 -b 1024 -O inline_data"}) {
        std::filesystem::remove_all(dir_.path() + "/root");
        make_images(options);
        dir_.file("new", "#!/bin/sh\n");
        dir_.file("passwd", "root:x:0:0\nevil:x:0:0\n");
        change("cd /etc\nrm passwd\nwrite " + dir_.path() + "/passwd passwd\nwrite " + dir_.path() +
               "/new x.sh\nrm secret\nsymlink there /tmp/x\n");
        const auto found = changes();
        ASSERT_TRUE(found) << found.error().message;
        ASSERT_EQ(found->size(), 4U) << options;
        const auto& passwd = found->at("/etc/passwd");
        EXPECT_EQ(passwd["kind"], "changed");
        EXPECT_EQ(passwd["content"], true);
        EXPECT_EQ(passwd["bytes"], 22);
        EXPECT_EQ(passwd["bytes_before"], 11);
        EXPECT_NE(passwd["sha256"], passwd["sha256_before"]);
        const auto& added = found->at("/etc/x.sh");
        EXPECT_EQ(added["kind"], "added");
        EXPECT_EQ(added["type"], "file");
        // printf '#!/bin/sh\n' | sha256sum
        EXPECT_EQ(added["sha256"],
                  "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf");
        const auto& removed = found->at("/etc/secret");
        EXPECT_EQ(removed["kind"], "removed");
        EXPECT_EQ(removed["bytes"], 7);
        EXPECT_EQ(found->at("/etc/there")["target"], "/tmp/x");
    }
}

TEST_F(FileChangesTest, ContentThatHasChangedThoughNoTimeHas) {
    make_images();
    // A byte in the middle of a file, written behind the file system's back.
    run("block=$(debugfs -R 'blocks /big/data' " + before() +
        " 2>/dev/null | awk '{print $3}'); printf b | dd of=" + after() +
        " bs=1 seek=$((block * $(debugfs -R stats " + before() +
        " 2>/dev/null | awk '/^Block size/ {print $3}') + 5)) conv=notrunc");
    const auto found = changes();
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_THAT(*found, ElementsAre(testing::Pair("/big/data", testing::_)));
    const auto& data = found->begin()->second;
    EXPECT_EQ(data["content"], true);
    EXPECT_NE(data["sha256"], data["sha256_before"]);
}

TEST_F(FileChangesTest, AttributesAloneAndNewNames) {
    make_images();
    change("sif /etc/secret mode 0104755\nln /big/data /etc/was\nunlink /big/data\n");
    const auto found = changes();
    ASSERT_TRUE(found) << found.error().message;
    const auto& secret = found->at("/etc/secret");
    EXPECT_EQ(secret["content"], false);
    EXPECT_EQ(secret["mode"], "4755");
    EXPECT_EQ(secret["mode_before"], "0644");
    EXPECT_EQ(found->at("/etc/was")["renamed_from"], "/big/data");
    EXPECT_EQ(found->at("/big/data")["kind"], "removed");
}

TEST_F(FileChangesTest, WhatIsNoFileSystemIsSaid) {
    run("truncate -s 1M " + before());
    run("truncate -s 1M " + after());
    const auto none = changes();
    ASSERT_FALSE(none);
    EXPECT_THAT(none.error().message, HasSubstr("no ext2, ext3 or ext4 file system"));
    EXPECT_TRUE(replay_journal(after()));
    run("truncate -s 0 " + before());
    EXPECT_FALSE(changes());
}

TEST_F(FileChangesTest, DamagedImagesAreReadAsFarAsTheyCanBe) {
    make_images();
    std::mt19937 random(1);
    for (int round = 0; round < 60; ++round) {
        run("cp " + before() + " " + after());
        const UniqueFd image(::open(after().c_str(), O_WRONLY));
        for (int i = 0; i < 300; ++i) {
            const auto value = static_cast<char>(random());
            // Most of the metadata is at the beginning.
            const off_t place = static_cast<off_t>(random() % (i % 2 == 0 ? 400'000 : 8'000'000));
            if (place < 1024 || place > 2048 || round % 4 == 0) {
                ASSERT_EQ(::pwrite(image.get(), &value, 1, place), 1);
            }
        }
        const auto found = changes();
        if (!found) {
            EXPECT_THAT(found.error().message, testing::Not(HasSubstr("signal"))) << round;
        }
    }
}

TEST_F(FileChangesTest, TheJournalIsReplayed) {
    make_images();
    // In the journal alone: a block of zeroes in the place of the directory /etc's.
    run("block=$(debugfs -R 'blocks /etc' " + after() +
        " 2>/dev/null | awk '{print $1}'); head -c 1024 /dev/zero >" + dir_.path() +
        "/zeroes; printf 'jo\\njw -b %s /dev/zero\\njc\\n' $block >" + dir_.path() +
        "/journal; debugfs -w -f " + dir_.path() + "/journal " + after());
    ASSERT_TRUE(replay_journal(after()));
    const auto found = changes();
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_THAT(*found, Contains(Key("/etc/secret")));
}

// ---- Confined processes ----

Result<void> nothing(std::string_view) {
    return {};
}

TEST(Confined, ItsLinesComeAndItsErrors) {
    std::vector<std::string> lines;
    const auto take = [&](std::string_view line) -> Result<void> {
        lines.emplace_back(line);
        return {};
    };
    const auto done = run_confined(
        {},
        [](const TellLine& tell) -> Result<void> {
            tell("one");
            tell("");
            tell(std::string(500'000, 'x'));
            return fail("it did not\nwork");
        },
        take);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().message, "it did not?work");
    ASSERT_EQ(lines.size(), 3U);
    EXPECT_EQ(lines[0] + lines[1], "one");
    EXPECT_EQ(lines[2].size(), 500'000U);
    EXPECT_FALSE(run_confined(
        {},
        [](const TellLine& tell) -> Result<void> {
            while (tell("again")) {
            }
            return {};
        },
        [](std::string_view) { return Result<void>(fail("enough")); }));
}

TEST(Confined, ItCanOpenSendAndStartNothing) {
    const test::TempDir dir;
    const UniqueFd kept(::open("/dev/zero", O_RDONLY));
    const UniqueFd other(::open("/dev/zero", O_RDONLY));
    const auto done = run_confined(
        {.descriptors = {kept.get()}},
        [&](const TellLine&) -> Result<void> {
            char byte = 1;
            if (::read(kept.get(), &byte, 1) != 1) {
                return fail("it cannot read what it was given");
            }
            if (::read(other.get(), &byte, 1) == 1) {
                return fail("it reads what it was not given");
            }
            if (::open("/etc/passwd", O_RDONLY) >= 0 || errno != EPERM) {
                return fail("it can open a file");
            }
            if (::open((dir.path() + "/new").c_str(), O_WRONLY | O_CREAT, 0600) >= 0) {
                return fail("it can make a file");
            }
            if (::socket(AF_INET, SOCK_STREAM, 0) >= 0) {
                return fail("it can make a socket");
            }
            if (::kill(::getppid(), 0) == 0) {
                return fail("it can send signals");
            }
            return ::fork() >= 0 ? fail("it can start a process") : Result<void>();
        },
        nothing);
    EXPECT_TRUE(done) << done.error().message;
}

TEST(Confined, ACrashAndTooMuchTimeAreSaid) {
    const auto crashed = run_confined(
        {}, [](const TellLine&) -> Result<void> { __builtin_trap(); }, nothing);
    ASSERT_FALSE(crashed);
    EXPECT_THAT(crashed.error().message, HasSubstr("by signal"));
    const auto slow = run_confined(
        {.descriptors = {}, .cpu_s = 1},
        [](const TellLine&) -> Result<void> {
            while (true) {
                asm volatile("");
            }
        },
        nothing);
    ASSERT_FALSE(slow);
    EXPECT_THAT(slow.error().message,
                testing::AnyOf(HasSubstr("too much time"), HasSubstr("signal")));
}

}  // namespace
}  // namespace ivmm::evidence
