#include "storage/block/block_file.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "base/checked.h"
#include "tests/support/block_parts.h"

namespace ivmm::storage {
namespace {

using test::BlockParts;
using test::Bytes;
using test::pattern;
using test::read_all;

Bytes bytes_of_file(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Bytes bytes(std::filesystem::file_size(path));
    EXPECT_TRUE(read_at(fd.get(), 0, bytes));
    return bytes;
}

Bytes slice(const Bytes& bytes, size_t offset, size_t length) {
    const auto begin = bytes.begin() + static_cast<ptrdiff_t>(offset);
    return {begin, begin + static_cast<ptrdiff_t>(length)};
}

/// An errno, or 0.
template <class R>
int code(const R& result) {
    return result ? 0 : result.error().code;
}

/// A chain whose files are what a plain array of bytes is.
class Model {
 public:
    Model(unsigned seed, size_t size) : random_(seed), now_(pattern(size, seed)) {
        lower_ = parts_.bottom(now_);
        add_part();
    }

    void step() {
        switch (random_() % 12) {
            case 0:
            case 1:
            case 2:
            case 3:
            case 4: {
                const auto [offset, length] = range(now_.size() + 3 * kBlockSize);
                const Bytes data = pattern(length, static_cast<unsigned>(random_()));
                ASSERT_TRUE(file_->write(offset, data));
                now_.resize(std::max(now_.size(), length == 0 ? 0 : offset + length));
                std::ranges::copy(data, now_.begin() + static_cast<ptrdiff_t>(offset));
                break;
            }
            case 5:
            case 6: {
                const bool keep_size = random_() % 2 == 0;
                const auto [offset, length] = range(now_.size() + 3 * kBlockSize);
                ASSERT_TRUE(file_->zero(offset, length, keep_size));
                if (!keep_size && length != 0) {
                    now_.resize(std::max(now_.size(), offset + length));
                }
                for (size_t i = offset; i < std::min(now_.size(), offset + length); ++i) {
                    now_[i] = std::byte{0};
                }
                break;
            }
            case 7: {
                const size_t size = random_() % 3 == 0 ? random_() % (now_.size() + 3 * kBlockSize)
                                                       : range(now_.size() + kBlockSize).first;
                ASSERT_TRUE(file_->truncate(size));
                now_.resize(size);
                break;
            }
            case 8: {
                const auto [offset, length] = range(now_.size() + kBlockSize);
                ASSERT_TRUE(file_->allocate(offset, length + 1, false));
                now_.resize(std::max(now_.size(), offset + length + 1));
                break;
            }
            case 9:
                ASSERT_TRUE(file_->flush());
                EXPECT_FALSE(file_->dirty());
                if (random_() % 2 == 0) {
                    file_ = parts_.open(lower_, name_);
                }
                break;
            case 10:
                if (random_() % 3 == 0) {
                    file_->freeze();
                    frozen_.emplace_back(file_, now_);
                    lower_ = file_;
                    add_part();
                }
                break;
            default: {
                const auto [offset, length] = range(now_.size() + kBlockSize);
                Bytes out(length);
                const auto n = file_->read(offset, out);
                ASSERT_TRUE(n);
                const size_t expected =
                    offset >= now_.size() ? 0 : std::min(length, now_.size() - offset);
                ASSERT_EQ(*n, expected);
                out.resize(expected);
                ASSERT_EQ(out, slice(now_, std::min(offset, now_.size()), expected));
                break;
            }
        }
    }

    void check() {
        ASSERT_EQ(file_->size(), now_.size());
        struct stat status {};
        ASSERT_EQ(::fstat(file_->data_fd(), &status), 0);
        EXPECT_EQ(static_cast<size_t>(status.st_size), now_.size());
        ASSERT_TRUE(read_all(*file_) == now_);
        check_extents();
        check_seek();
    }

    /// What was frozen has not changed, in memory and on the disk.
    void check_frozen() {
        auto lower = parts_.bottom({});
        for (const auto& [file, content] : frozen_) {
            ASSERT_TRUE(file->flush());
            EXPECT_EQ(code(file->write(0, pattern(1, 1))), EROFS);
            ASSERT_TRUE(read_all(*file) == content);
        }
        for (size_t i = 0; i < frozen_.size(); ++i) {
            lower = parts_.open(lower, "part" + std::to_string(i), false);
            ASSERT_TRUE(read_all(*lower) == frozen_[i].second);
        }
    }

 private:
    void add_part() {
        name_ = "part" + std::to_string(frozen_.size());
        file_ = parts_.add(lower_, name_);
    }
    /// Anything, with a liking for what is near the edges of blocks.
    std::pair<size_t, size_t> range(size_t end) {
        const auto position = [&] {
            const size_t at = random_() % (end + 1);
            return random_() % 2 == 0
                       ? at
                       : align_down<size_t>(at, kBlockSize) + random_() % 3 * (random_() % 2);
        };
        const size_t a = std::min(position(), end);
        const size_t b = random_() % 2 == 0 ? position() : a + random_() % 3000;
        return {std::min(a, b), std::max(a, b) - std::min(a, b)};
    }
    void check_extents() {
        uint64_t end = 0;
        const BlockExtent* last = nullptr;
        std::vector<BlockExtent> extents;
        file_->for_each_extent([&](const BlockExtent& e) { extents.push_back(e); });
        for (const BlockExtent& extent : extents) {
            ASSERT_EQ(extent.offset, end);
            ASSERT_NE(extent.length, 0U);
            ASSERT_LT(extent.depth, file_->depth());
            if (last != nullptr) {
                ASSERT_FALSE(last->kind == extent.kind && last->depth == extent.depth);
            }
            end = extent.offset + extent.length;
            if (extent.kind == BlockExtent::Kind::kZero) {
                ASSERT_EQ(slice(now_, extent.offset, extent.length), Bytes(extent.length));
            }
            last = &extent;
        }
        ASSERT_EQ(end, now_.size());
    }
    void check_seek() {
        EXPECT_EQ(code(file_->seek_data(now_.size())), ENXIO);
        EXPECT_EQ(code(file_->seek_hole(now_.size())), ENXIO);
        uint64_t at = 0;
        while (at < now_.size()) {
            const auto data = file_->seek_data(at);
            const uint64_t start = data ? *data : now_.size();
            ASSERT_EQ(code(data), data ? 0 : ENXIO);
            ASSERT_GE(start, at);
            ASSERT_EQ(slice(now_, at, start - at), Bytes(start - at));
            if (!data) {
                break;
            }
            const auto hole = file_->seek_hole(start);
            ASSERT_TRUE(hole);
            ASSERT_GT(*hole, start);
            ASSERT_LE(*hole, now_.size());
            at = *hole;
        }
    }

    std::mt19937 random_;
    BlockParts parts_;
    Bytes now_;
    BlockParts::File lower_;
    BlockParts::File file_;
    std::string name_;
    std::vector<std::pair<BlockParts::File, Bytes>> frozen_;
};

class BlockFileModel : public testing::TestWithParam<size_t> {};

TEST_P(BlockFileModel, IsWhatAnArrayIs) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", size " << GetParam());
    Model model(seed, GetParam());
    for (int i = 0; i < 250 && !testing::Test::HasFatalFailure(); ++i) {
        model.step();
        if (i % 10 == 0) {
            model.check();
        }
    }
    model.check();
    model.check_frozen();
}

INSTANTIATE_TEST_SUITE_P(Sizes, BlockFileModel,
                         testing::Values(0, 1, kBlockSize, 5 * kBlockSize + 777,
                                         40 * kBlockSize - 1));

/// What the map says of blocks behind the end is older than what it will say of them when the file
/// has grown again, even if it was opened while it was short.
TEST(BlockFile, GrowsAgainAfterItWasOpenedShort) {
    const BlockParts parts;
    const auto lower = parts.bottom({});
    auto file = parts.add(lower, "part");
    Bytes content;
    for (unsigned round = 0; round < 5; ++round) {
        // Several times, so that the generations are far from those of a new map.
        for (unsigned seed = 0; seed < 3; ++seed) {
            content = pattern((seed + 1) * kBlockSize, 10 * round + seed);
            ASSERT_TRUE(file->write(0, content));
            ASSERT_TRUE(file->flush());
        }
        file = parts.open(lower, "part");
        EXPECT_EQ(read_all(*file), content) << round;
        ASSERT_TRUE(file->truncate(0));
        ASSERT_TRUE(file->flush());
        file = parts.open(lower, "part");
        EXPECT_EQ(file->size(), 0U);
    }
    // A single flush, of a block that the map has never told of.
    constexpr size_t kAt = 5 * kBlockSize;
    content = Bytes(kAt);
    std::ranges::copy(pattern(kBlockSize, 99), std::back_inserter(content));
    ASSERT_TRUE(file->write(kAt, slice(content, kAt, kBlockSize)));
    ASSERT_TRUE(file->flush());
    EXPECT_EQ(read_all(*parts.open(lower, "part")), content);
}

TEST(BlockFile, WritesAtEveryEdgeOfABlock) {
    const Bytes base = pattern(3 * kBlockSize + 100, 1);
    for (const size_t start : {0, 1, 511, 4095, 4096, 4097, 8191}) {
        for (const size_t length : {1, 2, 4094, 4095, 4096, 4097, 8192, 8300}) {
            const BlockParts parts;
            const auto file = parts.add(parts.bottom(base), "part");
            Bytes expected = base;
            const Bytes data = pattern(length, 2);
            expected.resize(std::max(expected.size(), start + length));
            std::ranges::copy(data, expected.begin() + static_cast<ptrdiff_t>(start));
            ASSERT_TRUE(file->write(start, data));
            ASSERT_TRUE(read_all(*file) == expected) << start << " " << length;
        }
    }
}

TEST(BlockFile, BottomIsAnOrdinaryFile) {
    const BlockParts parts;
    const Bytes content = pattern(10'000, 3);
    const auto file = parts.bottom(content);
    EXPECT_EQ(read_all(*file), content);
    EXPECT_EQ(file->depth(), 1U);
    EXPECT_EQ(code(file->write(0, content)), EROFS);
    EXPECT_EQ(code(file->truncate(0)), EROFS);
    EXPECT_EQ(code(file->zero(0, 1, true)), EROFS);
    EXPECT_EQ(code(file->allocate(0, 1, true)), EROFS);
    EXPECT_FALSE(file->dirty());
    EXPECT_TRUE(file->flush());
}

TEST(BlockFile, KeepsTheHolesOfTheBottom) {
    const BlockParts parts;
    const auto bottom = parts.bottom({});
    ASSERT_EQ(::truncate(parts.data_path("bottom").c_str(), 1 << 20), 0);
    ASSERT_TRUE(write_at(bottom->data_fd(), 512 << 10, pattern(4096, 1)));
    const auto file = parts.add(parts.bottom({}), "part");
    ASSERT_TRUE(file->write(900 << 10, pattern(4096, 1)));
    EXPECT_EQ(*file->seek_data(0), uint64_t{512} << 10);
    EXPECT_EQ(*file->seek_hole(512 << 10), (uint64_t{512} << 10) + 4096);
    EXPECT_EQ(*file->seek_data((512 << 10) + 4096), uint64_t{900} << 10);
    EXPECT_EQ(*file->seek_hole(900 << 10), (uint64_t{900} << 10) + 4096);
}

TEST(BlockFile, RefusesToLieOverAFileThatIsWritten) {
    const BlockParts parts;
    const auto file = parts.add(parts.bottom(pattern(100, 1)), "part");
    ASSERT_TRUE(BlockFile::create_part(parts.files("second", O_RDWR | O_CREAT), 100));
    EXPECT_FALSE(parts.try_open(file, "second"));
    file->freeze();
    EXPECT_TRUE(parts.try_open(file, "second"));
}

TEST(BlockFile, OffsetsBeyondWhatAFileCanHaveAreRefused) {
    const BlockParts parts;
    const auto file = parts.add(parts.bottom(pattern(100, 1)), "part");
    for (const uint64_t offset : {uint64_t{INT64_MAX}, UINT64_MAX}) {
        EXPECT_EQ(code(file->write(offset, pattern(2, 1))), EFBIG);
        EXPECT_EQ(code(file->zero(offset, 2, false)), EFBIG);
        EXPECT_EQ(code(file->allocate(offset, 2, true)), EFBIG);
        Bytes out(2);
        EXPECT_EQ(*file->read(offset, out), 0U);
    }
    EXPECT_EQ(code(file->truncate(UINT64_MAX)), EFBIG);
    EXPECT_EQ(file->size(), 100U);
}

TEST(BlockFile, SparseTerabyte) {
    const BlockParts parts;
    parts.bottom({});
    constexpr uint64_t kTerabyte = uint64_t{1} << 40;
    ASSERT_EQ(::truncate(parts.data_path("bottom").c_str(), kTerabyte), 0);
    const auto bottom = parts.bottom({});
    auto file = parts.add(bottom, "part");
    const Bytes data = pattern(6000, 1);
    ASSERT_TRUE(file->write(kTerabyte - 5000, data));
    ASSERT_TRUE(file->zero(kTerabyte / 2, 1 << 20, true));
    ASSERT_TRUE(file->flush());
    file = parts.open(bottom, "part");
    EXPECT_EQ(file->size(), kTerabyte + 1000);
    Bytes out(6000);
    EXPECT_EQ(*file->read(kTerabyte - 5000, out), 6000U);
    EXPECT_EQ(out, data);
    const auto report = examine_map(parts.files("part", O_RDONLY).map.get());
    ASSERT_TRUE(report);
    EXPECT_EQ(report->pages, 2U);
    EXPECT_EQ(report->blocks_here, 3U);
    EXPECT_GE(report->blocks_zero, 256U);
}

TEST(BlockFile, AForkLeavesAReaderOfTheOldAndAWriterOfTheNew) {
    const BlockParts parts;
    const Bytes base = pattern(20 * kBlockSize, 1);
    const auto first = parts.add(parts.bottom(base), "first");
    Bytes at_fork = base;
    const Bytes data = pattern(3 * kBlockSize, 2);
    std::ranges::copy(data, at_fork.begin() + 5000);
    ASSERT_TRUE(first->write(5000, data));
    first->freeze();
    const auto left = parts.add(first, "left");
    const auto right = parts.add(first, "right");
    ASSERT_TRUE(left->write(0, data));
    ASSERT_TRUE(right->truncate(10));
    EXPECT_TRUE(first->dirty());
    ASSERT_TRUE(first->flush());
    EXPECT_FALSE(first->dirty());
    Bytes left_expected = at_fork;
    std::ranges::copy(data, left_expected.begin());
    EXPECT_TRUE(read_all(*first) == at_fork);
    EXPECT_TRUE(read_all(*left) == left_expected);
    EXPECT_TRUE(read_all(*right) == slice(at_fork, 0, 10));
}

TEST(BlockFile, AnyDepth) {
    const BlockParts parts;
    constexpr size_t kParts = 150;
    Bytes expected = pattern(kParts * kBlockSize, 1);
    const auto bottom = parts.bottom(expected);
    std::shared_ptr<BlockFile> file = bottom;
    for (size_t i = 0; i < kParts; ++i) {
        file = parts.add(file, "part" + std::to_string(i));
        const Bytes data = pattern(3000, static_cast<unsigned>(i));
        const size_t at = (i * 37 % kParts) * kBlockSize + i;
        std::ranges::copy(data, expected.begin() + static_cast<ptrdiff_t>(at));
        ASSERT_TRUE(file->write(at, data));
        ASSERT_TRUE(file->flush());
        file->freeze();
    }
    EXPECT_EQ(file->depth(), kParts + 1);
    EXPECT_TRUE(read_all(*file) == expected);
    file = bottom;
    for (size_t i = 0; i < kParts; ++i) {
        file = parts.open(file, "part" + std::to_string(i), false);
    }
    EXPECT_TRUE(read_all(*file) == expected);
}

TEST(BlockFile, WritersOfOneBlockDoNotLoseEachOthersBytes) {
    const BlockParts parts;
    constexpr size_t kBlocks = 64;
    constexpr size_t kThreads = 4;
    constexpr size_t kPiece = kBlockSize / kThreads / 4;
    const auto file = parts.add(parts.bottom(pattern(kBlocks * kBlockSize, 1)), "part");
    const Bytes wanted = pattern(kBlocks * kBlockSize, 2);
    std::atomic<bool> done = false;
    std::thread flusher([&] {
        while (!done) {
            EXPECT_TRUE(file->flush());
        }
    });
    std::thread reader([&] {
        Bytes out(kBlocks * kBlockSize);
        while (!done) {
            EXPECT_TRUE(file->read(0, out));
        }
    });
    std::vector<std::thread> writers;
    for (size_t t = 0; t < kThreads; ++t) {
        writers.emplace_back([&, t] {
            for (size_t at = t * kPiece; at < wanted.size(); at += kThreads * kPiece) {
                EXPECT_TRUE(file->write(at, ConstByteSpan(wanted).subspan(at, kPiece)));
            }
        });
    }
    for (std::thread& writer : writers) {
        writer.join();
    }
    done = true;
    flusher.join();
    reader.join();
    EXPECT_TRUE(read_all(*file) == wanted);
    ASSERT_TRUE(file->flush());
    EXPECT_TRUE(read_all(*parts.open(parts.bottom({}), "part", false)) == wanted);
}

TEST(BlockFile, AllKindsOfChangesAtOnce) {
    const BlockParts parts;
    constexpr size_t kArea = 16 * kBlockSize;
    const auto file = parts.add(parts.bottom(pattern(4 * kArea, 1)), "part");
    const Bytes wanted = pattern(2 * kArea, 2);
    std::vector<std::thread> threads;
    threads.emplace_back([&] {  // stays in its own area
        for (size_t at = 0; at < kArea; at += 1000) {
            EXPECT_TRUE(file->write(
                at, ConstByteSpan(wanted).subspan(at, std::min<size_t>(1000, kArea - at))));
        }
    });
    threads.emplace_back([&] {
        for (size_t i = 0; i < 50; ++i) {
            EXPECT_TRUE(file->zero(kArea + 100, kArea - 200, true));
            EXPECT_TRUE(file->write(kArea, ConstByteSpan(wanted).subspan(kArea, kArea)));
        }
    });
    threads.emplace_back([&] {
        for (size_t i = 0; i < 50; ++i) {
            EXPECT_TRUE(file->truncate((3 + i % 3) * kArea + i));
            EXPECT_TRUE(file->write(file->size(), pattern(50, 3)));
        }
    });
    threads.emplace_back([&] {
        for (size_t i = 0; i < 20; ++i) {
            EXPECT_TRUE(file->flush());
            EXPECT_TRUE(file->seek_hole(0));
        }
    });
    for (std::thread& thread : threads) {
        thread.join();
    }
    Bytes out(2 * kArea);
    ASSERT_TRUE(file->read(0, out));
    EXPECT_TRUE(out == wanted);
}

TEST(BlockFile, TheMapIsWrittenByFlushOnly) {
    const BlockParts parts;
    const auto bottom = parts.bottom(pattern(100 * kBlockSize, 1));
    const auto file = parts.add(bottom, "part");
    ASSERT_TRUE(file->write(0, pattern(kBlockSize, 2)));
    ASSERT_TRUE(file->flush());
    const Bytes flushed = bytes_of_file(parts.map_path("part"));
    ASSERT_TRUE(file->write(50 * kBlockSize, pattern(3000, 3)));
    ASSERT_TRUE(file->zero(10 * kBlockSize, 5 * kBlockSize, true));
    EXPECT_TRUE(bytes_of_file(parts.map_path("part")) == flushed);
    ASSERT_TRUE(file->flush());
    EXPECT_FALSE(bytes_of_file(parts.map_path("part")) == flushed);
}

TEST(BlockFile, AFlushWithNothingNewWritesNoPage) {
    const BlockParts parts;
    const auto file = parts.add(parts.bottom(pattern(100 * kBlockSize, 1)), "part");
    ASSERT_TRUE(file->write(0, pattern(kBlockSize, 2)));
    EXPECT_TRUE(file->dirty());
    ASSERT_TRUE(file->flush());
    const Bytes flushed = bytes_of_file(parts.map_path("part"));
    EXPECT_FALSE(file->dirty());
    ASSERT_TRUE(file->write(0, pattern(kBlockSize, 3)));  // in place
    EXPECT_TRUE(file->dirty());
    ASSERT_TRUE(file->flush());
    EXPECT_TRUE(bytes_of_file(parts.map_path("part")) == flushed);
}

TEST(BlockFileCrash, GivesWhatWasFlushed) {
    const BlockParts parts;
    Bytes expected = pattern(100 * kBlockSize, 1);
    const auto bottom = parts.bottom(expected);
    const auto file = parts.add(bottom, "part");
    const Bytes data = pattern(10 * kBlockSize, 2);
    ASSERT_TRUE(file->write(700, data));
    std::ranges::copy(data, expected.begin() + 700);
    ASSERT_TRUE(file->zero(30 * kBlockSize, 7 * kBlockSize, true));
    std::fill_n(expected.begin() + 30 * kBlockSize, 7 * kBlockSize, std::byte{0});
    ASSERT_TRUE(file->flush());
    parts.copy("part", "crash");
    ASSERT_TRUE(file->write(33 * kBlockSize, data));
    ASSERT_TRUE(file->truncate(1));
    EXPECT_TRUE(read_all(*parts.open(bottom, "crash")) == expected);
}

TEST(BlockFileCrash, EachBlockIsAsItWasOnce) {
    // All data is on the medium, the map is that of the last flush.
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const BlockParts parts;
    constexpr size_t kBlocks = 200;
    const auto bottom = parts.bottom(pattern(kBlocks * kBlockSize, 1));
    const auto file = parts.add(bottom, "part");
    for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(file->write(random() % kBlocks * kBlockSize,
                                pattern(kBlockSize, static_cast<unsigned>(random()))));
    }
    ASSERT_TRUE(file->flush());
    const Bytes before = read_all(*file);
    for (size_t i = 0; i < kBlocks; i += 2) {
        ASSERT_TRUE(i % 3 == 0 ? file->zero(i * kBlockSize, kBlockSize, true)
                               : file->write(i * kBlockSize,
                                             pattern(kBlockSize, static_cast<unsigned>(random()))));
    }
    const Bytes after = read_all(*file);
    parts.copy("part", "crash");
    const Bytes found = read_all(*parts.open(bottom, "crash"));
    ASSERT_EQ(found.size(), before.size());
    for (size_t i = 0; i < kBlocks; ++i) {
        const Bytes block = slice(found, i * kBlockSize, kBlockSize);
        EXPECT_TRUE(block == slice(before, i * kBlockSize, kBlockSize) ||
                    block == slice(after, i * kBlockSize, kBlockSize))
            << i;
    }
}

TEST(BlockFileCrash, WhatWasCutOffNeverComesBack) {
    const BlockParts parts;
    const Bytes base = pattern(10 * kBlockSize, 1);
    const auto bottom = parts.bottom(base);
    const auto file = parts.add(bottom, "part");
    ASSERT_TRUE(file->truncate(2 * kBlockSize + 100));
    parts.copy("part", "crash");  // never flushed
    Bytes expected = slice(base, 0, 2 * kBlockSize + 100);
    auto crashed = parts.open(bottom, "crash");
    EXPECT_TRUE(read_all(*crashed) == expected);
    ASSERT_TRUE(crashed->truncate(base.size()));
    expected.resize(base.size());
    EXPECT_TRUE(read_all(*crashed) == expected);
    ASSERT_TRUE(crashed->flush());
    EXPECT_TRUE(read_all(*parts.open(bottom, "crash")) == expected);
}

TEST(BlockFileCrash, ATruncationIsFinishedIfOnlyTheMapKnowsOfIt) {
    const BlockParts parts;
    const Bytes base = pattern(10 * kBlockSize, 1);
    const auto bottom = parts.bottom(base);
    const auto file = parts.add(bottom, "part");
    ASSERT_TRUE(file->write(8 * kBlockSize, pattern(kBlockSize, 2)));
    ASSERT_TRUE(file->flush());
    ASSERT_TRUE(file->truncate(5000));
    parts.copy("part", "crash");
    ASSERT_EQ(::truncate(parts.data_path("crash").c_str(), 10 * kBlockSize), 0);
    const Bytes expected = slice(base, 0, 5000);
    EXPECT_TRUE(read_all(*parts.open(bottom, "crash", false)) == expected);
    const auto crashed = parts.open(bottom, "crash");
    EXPECT_TRUE(read_all(*crashed) == expected);
    EXPECT_EQ(std::filesystem::file_size(parts.data_path("crash")), 5000U);
    // Once flushed, the file may grow again.
    ASSERT_TRUE(crashed->flush());
    ASSERT_TRUE(crashed->truncate(8000));
    EXPECT_EQ(parts.open(bottom, "crash")->size(), 8000U);
}

TEST(BlockFileCrash, AnEmptyMapIsOneThatWasNeverFlushed) {
    const BlockParts parts;
    Bytes expected = pattern(10 * kBlockSize + 1, 1);
    const auto bottom = parts.bottom(expected);
    std::ignore = parts.add(bottom, "part");
    ASSERT_EQ(::truncate(parts.map_path("part").c_str(), 0), 0);
    EXPECT_TRUE(read_all(*parts.open(bottom, "part", false)) == expected);
    const auto file = parts.open(bottom, "part");
    EXPECT_TRUE(file->dirty());
    expected[5] = std::byte{1};
    ASSERT_TRUE(file->write(5, pattern(1, 1)));
    expected[5] = pattern(1, 1)[0];
    ASSERT_TRUE(file->flush());
    EXPECT_TRUE(read_all(*parts.open(bottom, "part")) == expected);
}

/// A small file system of its own, where the user may mount one.
class SmallDisk {
 public:
    explicit SmallDisk(const char* options) {
        mounted_ = ::mount("none", path().c_str(), "tmpfs", 0, options) == 0;
    }
    SmallDisk(const SmallDisk&) = delete;
    SmallDisk& operator=(const SmallDisk&) = delete;
    ~SmallDisk() {
        if (mounted_) {
            EXPECT_EQ(::umount(path().c_str()), 0);
        }
    }
    bool mounted() const { return mounted_; }
    const std::string& path() const { return folder_.path(); }

 private:
    test::TempDir folder_;
    bool mounted_ = false;
};

TEST(BlockFileErrors, AFullDiskLeavesTheOldContent) {
    const SmallDisk disk("size=256k");
    if (!disk.mounted()) {
        GTEST_SKIP() << "cannot mount a tmpfs";
    }
    const BlockParts below;
    const BlockParts parts(disk.path());
    Bytes expected = pattern(200 * kBlockSize, 1);
    const auto bottom = below.bottom(expected);
    {
        const auto file = parts.add(bottom, "part");
        size_t block = 0;
        for (;; block += 2) {
            ASSERT_LT(block, 200U);
            const Bytes data = pattern(kBlockSize - 10, static_cast<unsigned>(block));
            const auto written = file->write(block * kBlockSize, data);
            if (!written) {
                EXPECT_EQ(code(written), ENOSPC);
                break;
            }
            std::ranges::copy(data, expected.begin() + static_cast<ptrdiff_t>(block * kBlockSize));
        }
        EXPECT_GT(block, 20U);
        EXPECT_EQ(code(file->write(150 * kBlockSize + 1, pattern(100, 1))), ENOSPC);
        EXPECT_EQ(code(file->write(expected.size() + 5, pattern(100, 1))), ENOSPC);
        EXPECT_EQ(code(file->allocate(100 * kBlockSize, 20 * kBlockSize, true)), ENOSPC);
        EXPECT_TRUE(read_all(*file) == expected);
        // The map has its room, and overwriting needs none.
        ASSERT_TRUE(file->flush());
        ASSERT_TRUE(file->write(0, pattern(100, 7)));
        std::ranges::copy(pattern(100, 7), expected.begin());
        ASSERT_TRUE(file->flush());
        EXPECT_TRUE(read_all(*parts.open(bottom, "part")) == expected);
        // Space that is given back can be used again.
        ASSERT_TRUE(file->zero(0, kBlockSize, true));
        std::fill_n(expected.begin(), kBlockSize, std::byte{0});
        ASSERT_TRUE(file->write(150 * kBlockSize, pattern(kBlockSize, 9)));
        std::ranges::copy(pattern(kBlockSize, 9), expected.begin() + 150 * kBlockSize);
        EXPECT_TRUE(read_all(*file) == expected);
    }
}

TEST(BlockFileErrors, AFailedFlushIsFinal) {
    const BlockParts parts;
    const auto bottom = parts.bottom(pattern(10 * kBlockSize, 1));
    std::ignore = parts.add(bottom, "part");
    // A map that cannot be written, as a disk that has gone.
    auto part = parts.files("part", O_RDWR);
    part.map = UniqueFd(::open(parts.map_path("part").c_str(), O_RDONLY | O_CLOEXEC));
    auto file = BlockFile::open(bottom, std::move(part), true);
    ASSERT_TRUE(file);
    // The first write of a block wants room in the map.
    EXPECT_EQ(code((*file)->write(0, pattern(10, 1))), EBADF);
    EXPECT_TRUE(read_all(**file) == pattern(10 * kBlockSize, 1));
    EXPECT_EQ(code((*file)->truncate(100)), EBADF);
    EXPECT_EQ((*file)->size(), 10 * kBlockSize);
    EXPECT_EQ(code((*file)->flush()), EIO);
    EXPECT_EQ(code((*file)->flush()), EIO);
    EXPECT_TRUE((*file)->dirty());
}

}  // namespace
}  // namespace ivmm::storage
