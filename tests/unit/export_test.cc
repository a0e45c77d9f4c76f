#include "storage/tools/export.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "tests/support/served_store.h"

namespace ivmm::storage {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMiB = size_t{1} << 20;

std::string noise(size_t size) {
    std::mt19937 random(static_cast<unsigned>(size));
    std::string bytes(size, '\0');
    for (char& byte : bytes) {
        byte = static_cast<char>(random());
    }
    return bytes;
}

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

uint64_t space(const std::string& path) {
    struct stat attributes {};
    EXPECT_EQ(::stat(path.c_str(), &attributes), 0);
    return static_cast<uint64_t>(attributes.st_blocks) * 512;
}

class ExportTest : public testing::Test {
 protected:
    /// A disk with data in the lower branch and in two layers, and mostly holes.
    void SetUp() override {
        fs::create_directory(out_folder());
        store_.lower_file("disk", "");
        const std::string disk = store_.lower() + "/disk";
        fs::resize_file(disk, 16 * kMiB);
        std::fstream(disk, std::ios::in | std::ios::out | std::ios::binary)
            .seekp(2 * kMiB)
            .write(lower_data_.data(), static_cast<std::streamsize>(lower_data_.size()));
        store_.serve();
        store_.write("/disk", 5 * kMiB + 7, noise(9000));
        frozen_ = std::to_string(store_.fork({}));
        frozen_content_ = *store_.read("/disk");
        store_.write("/disk", 5 * kMiB, "over it");
        store_.write("/disk", 9 * kMiB, noise(70000));
        content_ = *store_.read("/disk");
        store_.stop();
        auto store = Store::open(store_.path());
        ASSERT_TRUE(store);
        opened_ = *std::move(store);
    }

    std::string out_folder() const { return store_.folder() + "/out"; }
    std::string out(const std::string& name = "image") const { return out_folder() + "/" + name; }
    Result<void> run(const std::string& tree, const ExportOptions& options,
                     const std::string& path = "/disk") {
        IVMM_ASSIGN(const auto opened, open_tree(*opened_, tree));
        return export_file(opened, path, out(), options);
    }
    size_t files_left() const {
        return static_cast<size_t>(std::distance(fs::directory_iterator(out_folder()), {}));
    }
    static bool have_qemu_img() { return std::system("qemu-img --version >/dev/null 2>&1") == 0; }
    static bool qemu_img(const std::string& arguments) {
        return std::system(("qemu-img " + arguments + " >/dev/null").c_str()) == 0;
    }

    test::ServedStore store_;
    const std::string lower_data_ = noise(kMiB);
    std::shared_ptr<Store> opened_;
    std::string frozen_;
    std::string frozen_content_, content_;
};

TEST_F(ExportTest, RawImageHasTheContentAndTheHoles) {
    ASSERT_TRUE(run("main", {}));
    EXPECT_TRUE(contents(out()) == content_);
    EXPECT_LT(space(out()), 2 * kMiB);
    EXPECT_EQ(files_left(), 1U);
}

TEST_F(ExportTest, LayerIsExportedAsItWasWhenItWasFrozen) {
    ASSERT_TRUE(run(frozen_, {}));
    EXPECT_TRUE(contents(out()) == frozen_content_);
}

TEST_F(ExportTest, NothingIsOverwritten) {
    std::ofstream(out()) << "precious";
    const auto exported = run("main", {});
    ASSERT_FALSE(exported);
    EXPECT_NE(exported.error().message.find("already"), std::string::npos);
    EXPECT_EQ(contents(out()), "precious");
    EXPECT_EQ(files_left(), 1U);
}

TEST_F(ExportTest, NothingIsLeftWhenItIsStopped) {
    int calls = 0;
    ExportOptions options;
    options.progress = [&](double) { return ++calls < 2; };
    const auto exported = run("main", options);
    ASSERT_FALSE(exported);
    EXPECT_EQ(exported.error().message, "interrupted");
    EXPECT_EQ(files_left(), 0U);
}

TEST_F(ExportTest, WhatIsNoFileIsRefused) {
    EXPECT_FALSE(run("main", {}, "/"));
    EXPECT_FALSE(run("main", {}, "/nothing"));
    EXPECT_EQ(files_left(), 0U);
}

TEST_F(ExportTest, FullDiskIsSaidAndNothingIsLeft) {
    // A limit on the size of files stands for a full disk: the write fails just so.
    struct rlimit before {};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto ignored = ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit low = before;
    low.rlim_cur = kMiB;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
    const auto exported = run("main", {});
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    ::signal(SIGXFSZ, ignored);
    ASSERT_FALSE(exported);
    EXPECT_EQ(exported.error().code, EFBIG);
    EXPECT_EQ(files_left(), 0U);
}

TEST_F(ExportTest, Qcow2ImageHasTheContent) {
    if (!have_qemu_img()) {
        GTEST_SKIP() << "qemu-img is not installed";
    }
    ExportOptions options;
    options.format = ImageFormat::kQcow2;
    const auto exported = run("main", options);
    ASSERT_TRUE(exported) << exported.error().message;
    EXPECT_EQ(files_left(), 1U);
    ASSERT_TRUE(qemu_img("check " + out()));
    ASSERT_TRUE(qemu_img("convert -O raw " + out() + " " + out("raw")));
    EXPECT_TRUE(contents(out("raw")) == content_);
}

TEST_F(ExportTest, Qcow2DeltaHasWhatTheBaseHasNot) {
    if (!have_qemu_img()) {
        GTEST_SKIP() << "qemu-img is not installed";
    }
    ExportOptions options;
    options.format = ImageFormat::kQcow2;
    options.base = store_.lower() + "/disk";
    const auto exported = run("main", options);
    ASSERT_TRUE(exported) << exported.error().message;
    EXPECT_EQ(files_left(), 1U);
    EXPECT_LT(space(out()), 900'000U) << "it has the base's data, too";
    ASSERT_TRUE(qemu_img("check " + out()));
    ASSERT_TRUE(qemu_img("convert -O raw " + out() + " " + out("raw")));
    EXPECT_TRUE(contents(out("raw")) == content_);
}

TEST_F(ExportTest, QemuImgsComplaintIsPassedOn) {
    if (!have_qemu_img()) {
        GTEST_SKIP() << "qemu-img is not installed";
    }
    ExportOptions options;
    options.format = ImageFormat::kQcow2;
    options.base = out_folder();  // a directory
    const auto exported = run("main", options);
    ASSERT_FALSE(exported);
    EXPECT_NE(exported.error().message.find("qemu-img has failed: "), std::string::npos);
    EXPECT_EQ(files_left(), 0U);
}

TEST_F(ExportTest, MissingQemuImgIsSaid) {
    const std::string path = ::getenv("PATH");
    ::setenv("PATH", out_folder().c_str(), 1);
    ExportOptions options;
    options.format = ImageFormat::kQcow2;
    const auto exported = run("main", options);
    ::setenv("PATH", path.c_str(), 1);
    ASSERT_FALSE(exported);
    EXPECT_EQ(exported.error().kind, ErrorKind::kHost);
    EXPECT_NE(exported.error().message.find("not installed"), std::string::npos);
    EXPECT_EQ(files_left(), 0U);
}

TEST_F(ExportTest, RawImageHasNoBase) {
    ExportOptions options;
    options.base = store_.lower() + "/disk";
    const auto exported = run("main", options);
    ASSERT_FALSE(exported);
    EXPECT_EQ(exported.error().kind, ErrorKind::kUsage);
}

}  // namespace
}  // namespace ivmm::storage
