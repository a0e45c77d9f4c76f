#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "base/unique_fd.h"
#include "tests/storage/mounts.h"
#include "tests/storage/random.h"
#include "tests/storage/server_process.h"
#include "tests/storage/stamp.h"
#include "tests/support/temp_dir.h"

/// A full disk is an error of the write that it hits, and of nothing else.
namespace ivmm::test {
namespace {

constexpr size_t kUnit = 4096;
constexpr uint64_t kUnits = 16'384;  // of the lower file: more than the disk has
constexpr uint64_t kImageSize = 40U << 20U;

class DiskFullTest : public ::testing::Test {
 protected:
    void SetUp() override {
        if (const std::string why = why_no_mounts(); !why.empty()) {
            GTEST_SKIP() << why;
        }
        for (const auto& folder : {lower_, mountpoint_, clone_, disk_}) {
            std::filesystem::create_directory(folder);
        }
        const UniqueFd big(::open((lower_ + "/big").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        ASSERT_EQ(::ftruncate(big.get(), kUnits * kUnit), 0);
        auto image = DiskImage::make(dir_.path() + "/image", kImageSize, "ext4", disk_);
        ASSERT_TRUE(image) << image.error().message;
        image_ = std::move(*image);
        start({lower_});
    }

    void start(const std::vector<std::string>& lower) {
        auto server = ServerProcess::start(
            {.store = disk_ + "/store", .lower = lower, .mountpoint = mountpoint_});
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
    }

    /// Writes random units of a file until there is an error; the error.
    int fill(int fd, std::map<uint64_t, uint64_t>& written) {
        while (true) {
            const uint64_t index = random_.below(kUnits);
            std::string data;
            append_stamp(data, {1, index, ++version_}, kUnit);
            if (::pwrite(fd, data.data(), kUnit, static_cast<off_t>(index * kUnit)) != kUnit) {
                return errno;
            }
            written[index] = version_;
        }
    }

    void check(const std::string& root, const std::map<uint64_t, uint64_t>& written) {
        std::string problem;
        const auto stamps = read_stamps(root + "/big", kUnit, problem);
        ASSERT_EQ(problem, "");
        ASSERT_EQ(stamps.size(), kUnits);
        for (uint64_t i = 0; i < kUnits; ++i) {
            const auto place = written.find(i);
            ASSERT_EQ(stamps[i].version, place == written.end() ? 0 : place->second)
                << "unit " << i;
        }
    }

    TempDir dir_;
    const std::string lower_ = dir_.path() + "/lower";
    const std::string mountpoint_ = dir_.path() + "/mnt";
    const std::string clone_ = dir_.path() + "/clone";
    const std::string disk_ = dir_.path() + "/disk";
    DiskImage image_;
    ServerProcess server_;
    Random random_{random_seed()};
    uint64_t version_ = 0;
};

TEST_F(DiskFullTest, LosesNothingAndGoesOn) {
    const std::string ballast = mountpoint_ + "/ballast";
    {
        const UniqueFd fd(::open(ballast.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        ASSERT_EQ(::posix_fallocate(fd.get(), 0, 6 << 20), 0);
    }
    UniqueFd big(::open((mountpoint_ + "/big").c_str(), O_RDWR | O_CLOEXEC));
    std::map<uint64_t, uint64_t> written;
    ASSERT_EQ(fill(big.get(), written), ENOSPC);
    ASSERT_GT(written.size(), 100U);
    check(mountpoint_, written);
    // A full disk may refuse a fork, too; then nothing has happened.
    const auto forked = server_.fork("main", {{"full", clone_}});
    const bool cloned = forked.has_value();
    if (cloned) {
        check(clone_, written);
    }

    ASSERT_EQ(::unlink(ballast.c_str()), 0) << "a full disk must let itself be emptied";
    if (cloned) {  // the space is the frozen layer's: only the clone can go
        ASSERT_TRUE(server_.unmount("full"));
        ASSERT_TRUE(server_.remove_view("full"));
    } else {
        std::string data;
        append_stamp(data, {1, 7, ++version_}, kUnit);
        // The space comes back when the kernel has told the server that nobody uses the file any
        // more, which may be a moment after unlink() has returned.
        const auto write = [&] { return ::pwrite(big.get(), data.data(), kUnit, 7 * kUnit); };
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        ssize_t done = write();
        while (done < 0 && errno == ENOSPC && std::chrono::steady_clock::now() < end) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            done = write();
        }
        ASSERT_EQ(done, ssize_t{kUnit}) << error_text(errno);
        written[7] = version_;
    }
    EXPECT_EQ(::fsync(big.get()), 0) << error_text(errno);
    check(mountpoint_, written);
    big.reset();
    const auto stopped = server_.stop();
    ASSERT_TRUE(stopped) << stopped.error().message;
    ASSERT_NO_FATAL_FAILURE(start({}));
    check(mountpoint_, written);
}

}  // namespace
}  // namespace ivmm::test
