#include "vmm/fork/sparse_copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "tests/support/temp_dir.h"
#include "vmm/fork/disk_copy.h"

namespace ivmm {
namespace {

class SparseCopyTest : public testing::Test {
 protected:
    UniqueFd open(const std::string& name, int flags = 0) const {
        UniqueFd file(
            ::open((dir_.path() + "/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600));
        EXPECT_TRUE(file);
        return file;
    }
    static void write(const UniqueFd& file, const std::string& text, off_t at) {
        EXPECT_EQ(::pwrite(file.get(), text.data(), text.size(), at), std::ssize(text));
    }
    static std::string content(const UniqueFd& file) {
        struct stat info {};
        EXPECT_EQ(::fstat(file.get(), &info), 0);
        std::string text(static_cast<size_t>(info.st_size), '?');
        EXPECT_EQ(::pread(file.get(), text.data(), text.size(), 0), std::ssize(text));
        return text;
    }
    static blkcnt_t blocks(const UniqueFd& file) {
        struct stat info {};
        EXPECT_EQ(::fsync(file.get()), 0);
        EXPECT_EQ(::fstat(file.get(), &info), 0);
        return info.st_blocks;
    }

    const test::TempDir dir_;
};

TEST_F(SparseCopyTest, DataAndHoles) {
    constexpr off_t kMiB = off_t{1} << 20;
    const auto source = open("source");
    write(source, std::string(5000, 'a'), 3 * kMiB - 100);
    write(source, std::string(100'000, 'b'), 9 * kMiB + 1);
    ASSERT_EQ(::ftruncate(source.get(), 20 * kMiB + 77), 0);
    const auto target = open("target");
    const auto bytes = copy_sparse(source.get(), target.get());
    ASSERT_TRUE(bytes) << bytes.error().message;
    EXPECT_GE(*bytes, 105'000u);
    EXPECT_EQ(*bytes, *data_bytes(source.get()));
    EXPECT_EQ(content(target), content(source));
    EXPECT_LE(blocks(target), blocks(source) + 64);
}

TEST_F(SparseCopyTest, WithoutThePageCache) {
    const auto source = open("source");
    std::string text;
    for (int i = 0; text.size() < 3'000'000; ++i) {
        text += std::to_string(i);
    }
    write(source, text, 0);
    ASSERT_EQ(::ftruncate(source.get(), 4'000'001), 0);
    ASSERT_EQ(::fsync(source.get()), 0);
    const UniqueFd direct(::open((dir_.path() + "/source").c_str(), O_RDONLY | O_DIRECT));
    if (!direct) {
        GTEST_SKIP() << "no direct I/O here";
    }
    const auto target = open("target");
    const auto bytes = copy_sparse(direct.get(), target.get());
    ASSERT_TRUE(bytes) << bytes.error().message;
    EXPECT_EQ(content(target), content(source));
}

TEST_F(SparseCopyTest, AnEmptyFileAndOneThatIsAHole) {
    const auto source = open("source");
    const auto target = open("target");
    EXPECT_EQ(*copy_sparse(source.get(), target.get()), 0u);
    ASSERT_EQ(::ftruncate(source.get(), 1 << 20), 0);
    EXPECT_EQ(*copy_sparse(source.get(), target.get()), 0u);
    EXPECT_EQ(content(target), std::string(1 << 20, '\0'));
}

TEST_F(SparseCopyTest, ErrorsAreTold) {
    const auto source = open("source");
    write(source, "text", 0);
    const UniqueFd target(::open((dir_.path() + "/source").c_str(), O_RDONLY));
    EXPECT_FALSE(copy_sparse(source.get(), target.get()));
    EXPECT_FALSE(reflink(source.get(), target.get()));
    EXPECT_FALSE(copy_sparse(-1, source.get()));
}

TEST_F(SparseCopyTest, ADiskIsCopiedAsItIsAtTheInstant) {
    const auto source = open("disk");
    write(source, std::string(8192, 'a'), 0);
    auto copy = DiskCopy::create(dir_.path() + "/disk", dir_.path() + "/disk.copy");
    ASSERT_TRUE(copy) << copy.error().message;
    EXPECT_EQ(content(open("disk.copy")), "");
    write(source, "later", 100);
    ASSERT_TRUE(copy->make());
    EXPECT_EQ(content(open("disk.copy")), content(source));
    struct stat info {};
    ASSERT_EQ(::stat((dir_.path() + "/disk.copy").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0600u);
    if (copy->method() == DiskCopy::Method::kCopy) {
        EXPECT_EQ(copy->bytes(), 8192u);
    }
}

TEST_F(SparseCopyTest, AFileThatIsThereIsNotTouched) {
    write(open("disk"), "disk", 0);
    write(open("disk.copy"), "mine", 0);
    const auto copy = DiskCopy::create(dir_.path() + "/disk", dir_.path() + "/disk.copy");
    ASSERT_FALSE(copy);
    EXPECT_NE(copy.error().message.find("disk.copy', which exists already"), std::string::npos);
    EXPECT_EQ(content(open("disk.copy")), "mine");
    const auto missing = DiskCopy::create(dir_.path() + "/none", dir_.path() + "/none.copy");
    ASSERT_FALSE(missing);
    EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/none.copy"));
}

}  // namespace
}  // namespace ivmm
