#include "storage/tools/aufs_import.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>

#include "base/unique_fd.h"
#include "storage/layer/marks.h"
#include "tests/support/temp_dir.h"

namespace ivmm::storage {
namespace {

namespace fs = std::filesystem;

class AufsImport : public testing::Test {
 protected:
    AufsImportReport import() {
        auto report = import_aufs(dir_.path());
        EXPECT_TRUE(report) << report.error().message;
        return report ? *report : AufsImportReport{};
    }
    std::string path(const std::string& name) const { return dir_.path() + "/" + name; }
    bool is_whiteout(const std::string& name) const {
        struct stat attributes {};
        return ::lstat(path(name).c_str(), &attributes) == 0 && S_ISCHR(attributes.st_mode) &&
               attributes.st_rdev == 0;
    }
    bool is_opaque(const std::string& name) const {
        const UniqueFd fd(::open(path(name).c_str(), O_RDONLY | O_DIRECTORY));
        return Marks(MarkStyle::kTrusted).is_opaque({fd.get(), ""});
    }
    bool exists(const std::string& name) const {
        return fs::exists(fs::symlink_status(path(name)));
    }

    test::TempDir dir_;
};

TEST_F(AufsImport, MarksBecomeThoseOfOverlayfs) {
    fs::create_directories(path("d/e"));
    fs::create_directories(path(".wh..wh.plnk"));
    fs::create_directories(path(".wh..wh.orph/deep/er"));
    dir_.file(".wh..wh.plnk/7.7", "linked");
    dir_.file(".wh..wh.orph/deep/er/f", "orphan");
    dir_.file(".wh..wh.aufs");
    dir_.file("plain", "kept");
    fs::create_hard_link(path(".wh..wh.aufs"), path(".wh.gone"));
    fs::create_hard_link(path(".wh..wh.aufs"), path("d/.wh.too"));
    dir_.file("d/e/.wh..wh.opq");
    dir_.file("d/e/own", "kept");
    struct stat before {};
    ASSERT_EQ(::stat(path("d/e").c_str(), &before), 0);

    const auto report = import();
    EXPECT_EQ(report.directories, 3U);
    EXPECT_EQ(report.whiteouts, 2U);
    EXPECT_EQ(report.opaque, 1U);
    EXPECT_EQ(report.bookkeeping, 3U);
    EXPECT_EQ(report.pseudo_links, 1U);
    EXPECT_EQ(report.refused, 0U);
    EXPECT_TRUE(is_whiteout("gone"));
    EXPECT_TRUE(is_whiteout("d/too"));
    EXPECT_TRUE(is_opaque("d/e"));
    EXPECT_FALSE(is_opaque("d"));
    EXPECT_TRUE(exists("plain"));
    EXPECT_TRUE(exists("d/e/own"));
    for (const auto& entry : fs::recursive_directory_iterator(dir_.path())) {
        EXPECT_FALSE(entry.path().filename().string().starts_with(".wh.")) << entry.path();
    }
    struct stat after {};
    ASSERT_EQ(::stat(path("d/e").c_str(), &after), 0);
    EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);

    const auto again = import();
    EXPECT_EQ(again.whiteouts + again.opaque + again.bookkeeping + again.refused, 0U);
}

TEST_F(AufsImport, AWhiteoutBesideADirectoryMakesItOpaque) {
    fs::create_directories(path("d"));
    dir_.file("f", "kept");
    dir_.file(".wh.d");
    dir_.file(".wh.f");
    import();
    EXPECT_TRUE(is_opaque("d"));
    EXPECT_TRUE(fs::is_regular_file(path("f")));
    EXPECT_FALSE(exists(".wh.d"));
    EXPECT_FALSE(exists(".wh.f"));
}

TEST_F(AufsImport, NamesThatNoAufsMakesAreLeftAlone) {
    fs::create_directories(path("d"));
    fs::create_directories(path(".wh.dir"));
    for (const char* name :
         {".wh.", ".wh..", ".wh...", ".wh..wh.other", ".wh..wh.plnk2", "d/.wh..wh.aufs"}) {
        dir_.file(name);
    }
    dir_.file(".wh.data", "somebody's");
    fs::create_symlink("/etc", path(".wh.link"));
    fs::create_symlink("/etc", path("link"));
    const auto report = import();
    EXPECT_EQ(report.refused, 9U);
    EXPECT_EQ(report.refused_paths.size(), 9U);
    EXPECT_EQ(report.whiteouts, 0U);
    for (const char* name : {".wh.", ".wh..", ".wh...", ".wh..wh.other", "d/.wh..wh.aufs",
                             ".wh.data", ".wh.link", ".wh.dir"}) {
        EXPECT_TRUE(exists(name)) << name;
    }
}

TEST_F(AufsImport, ErrorsNameTheDirectory) {
    const auto report = import_aufs(path("none"));
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().message,
              "cannot open " + path("none") + ": No such file or directory");
}

/// Killed at any point, started again: what was hidden is hidden, at every moment.
TEST_F(AufsImport, MayBeKilledAndStartedAgain) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    constexpr int kDirectories = 12;
    constexpr int kNames = 12;
    for (int d = 0; d < kDirectories; ++d) {
        const auto directory = fmt::format("d{}", d);
        fs::create_directories(path(directory));
        dir_.file(directory + "/.wh..wh.opq");
        for (int n = 0; n < kNames; ++n) {
            dir_.file(fmt::format("{}/.wh.n{}", directory, n));
        }
    }
    bool finished = false;
    for (int round = 0; round < 20 && !finished; ++round) {
        const pid_t child = ::fork();
        if (child == 0) {
            ::_exit(import_aufs(dir_.path()) ? 0 : 1);
        }
        ::usleep(std::uniform_int_distribution<useconds_t>(0, 3000)(random));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        for (int d = 0; d < kDirectories; ++d) {
            const auto directory = fmt::format("d{}", d);
            ASSERT_TRUE(exists(directory + "/.wh..wh.opq") || is_opaque(directory));
            for (int n = 0; n < kNames; ++n) {
                ASSERT_TRUE(exists(fmt::format("{}/.wh.n{}", directory, n)) ||
                            is_whiteout(fmt::format("{}/n{}", directory, n)));
            }
        }
    }
    EXPECT_EQ(import().refused, 0U);
    EXPECT_TRUE(is_whiteout("d3/n4"));
    EXPECT_FALSE(exists("d3/.wh.n4"));
}

}  // namespace
}  // namespace ivmm::storage
