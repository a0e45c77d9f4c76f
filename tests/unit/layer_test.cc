#include "storage/layer/layer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <thread>
#include <vector>

#include "storage/layer/files.h"
#include "tests/support/temp_dir.h"

namespace ivmm::storage {
namespace {

namespace fs = std::filesystem;

class LayerTest : public testing::Test {
 protected:
    void SetUp() override {
        for (const char* name : {"tree", "maps", "links", "work"}) {
            fs::create_directory(dir_.path() + "/" + name);
        }
    }
    Result<std::shared_ptr<Layer>> open(Manifest::State state, bool writable) {
        UniqueFd fd(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        return Layer::open(std::move(fd), {"u", 300, 0, state, 0}, MarkStyle::kUser, writable);
    }
    std::shared_ptr<Layer> writable() {
        auto layer = open(Manifest::State::kOpen, true);
        EXPECT_TRUE(layer) << layer.error().message;
        return *layer;
    }
    UniqueFd file(const std::string& name) {
        return UniqueFd(
            ::open((dir_.path() + "/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    }
    /// A writable part over an empty file.
    std::shared_ptr<BlockFile> make_block_file(const std::string& name) {
        auto bottom = BlockFile::bottom(file("tree/" + name + ".below"));
        BlockFile::Part part{file("tree/" + name), file("maps/" + name)};
        EXPECT_TRUE(bottom && BlockFile::create_part(part, 0));
        auto made = BlockFile::open(*bottom, std::move(part), true);
        EXPECT_TRUE(made) << made.error().message;
        return *made;
    }

    test::TempDir dir_;
};

TEST_F(LayerTest, ABranchIsSealed) {
    const auto branch = Layer::open_branch(dir_.path(), 2);
    ASSERT_TRUE(branch);
    EXPECT_EQ((*branch)->number(), 2U);
    EXPECT_EQ((*branch)->name(), dir_.path());
    EXPECT_FALSE((*branch)->in_store());
    EXPECT_TRUE((*branch)->frozen() && (*branch)->sealed());
    EXPECT_TRUE((*branch)->wait_sealed());
    const auto missing = Layer::open_branch(dir_.path() + "/none", 1);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().message,
              "cannot open the lower branch " + dir_.path() + "/none: No such file or directory");
}

TEST_F(LayerTest, AWritableOneHasEmptyWork) {
    fs::create_directories(dir_.path() + "/work/a/b/c");
    dir_.file("work/a/b/f");
    dir_.file("work/g");
    fs::permissions(dir_.path() + "/work/a/b", fs::perms::none);
    ASSERT_TRUE(open(Manifest::State::kOpen, false));
    EXPECT_FALSE(fs::is_empty(dir_.path() + "/work"));
    const auto layer = writable();
    EXPECT_TRUE(fs::is_empty(dir_.path() + "/work"));
    EXPECT_EQ(layer->name(), "layer 300");
    EXPECT_FALSE(layer->has_links());
    layer->note_link();
    EXPECT_TRUE(layer->has_links());
}

TEST_F(LayerTest, LinksOfBeforeAreNoted) {
    dir_.file("links/1-2");
    EXPECT_TRUE(writable()->has_links());
}

TEST_F(LayerTest, IsClaimedUntilItIsSealed) {
    auto layer = writable();
    const auto second = open(Manifest::State::kOpen, true);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().message,
              "layer 300 is still being written by another process; try again when it is done");
    EXPECT_TRUE(open(Manifest::State::kOpen, false));
    layer->freeze();
    layer->set_sealed({});
    EXPECT_TRUE(open(Manifest::State::kOpen, true));
}

TEST_F(LayerTest, AMissingPartIsNamed) {
    fs::remove(dir_.path() + "/maps");
    const auto layer = open(Manifest::State::kOpen, true);
    ASSERT_FALSE(layer);
    EXPECT_EQ(layer.error().message, "cannot open maps/ of layer 300: No such file or directory");
}

TEST_F(LayerTest, NamesAreUniqueAmongThreads) {
    const auto layer = writable();
    std::vector<std::vector<std::string>> names(4);
    std::vector<std::jthread> threads;
    for (auto& own : names) {
        threads.emplace_back([&layer, &own] {
            for (int i = 0; i < 1000; ++i) {
                own.push_back(layer->unique_name());
            }
        });
    }
    threads.clear();
    std::set<std::string> all;
    for (const auto& own : names) {
        all.insert(own.begin(), own.end());
    }
    EXPECT_EQ(all.size(), 4000U);
}

TEST_F(LayerTest, WaitersGetTheOutcomeOfTheSeal) {
    const auto layer = writable();
    layer->freeze();
    std::vector<int> codes(3, -1);
    {
        std::vector<std::jthread> threads;
        for (auto& code : codes) {
            threads.emplace_back([&layer, &code] {
                const auto outcome = layer->wait_sealed();
                code = outcome ? 0 : outcome.error().code;
            });
        }
        layer->set_sealed(posix_error(ENOSPC));
    }
    EXPECT_EQ(codes, std::vector<int>(3, ENOSPC));
    layer->set_sealed({});
    EXPECT_FALSE(layer->sealed());
    EXPECT_EQ(layer->wait_sealed().error().code, ENOSPC);
}

TEST_F(LayerTest, ABlockFileIsOpenedOnceForAll) {
    const auto layer = writable();
    std::atomic<int> opened = 0;
    std::vector<std::shared_ptr<BlockFile>> files(4);
    {
        std::vector<std::jthread> threads;
        for (auto& file : files) {
            threads.emplace_back([&] {
                file = *layer->block_file(7, [&]() -> Result<std::shared_ptr<BlockFile>> {
                    ++opened;
                    return make_block_file("f");
                });
            });
        }
    }
    EXPECT_EQ(opened, 1);
    EXPECT_EQ(std::set<std::shared_ptr<BlockFile>>(files.begin(), files.end()).size(), 1U);
}

TEST_F(LayerTest, OpeningOneBlockFileMayOpenAnother) {
    const auto layer = writable();
    const auto outer = layer->block_file(1, [&]() -> Result<std::shared_ptr<BlockFile>> {
        IVMM_TRY(layer->block_file(
            2, [&]() -> Result<std::shared_ptr<BlockFile>> { return make_block_file("inner"); }));
        return make_block_file("outer");
    });
    EXPECT_TRUE(outer);
}

TEST_F(LayerTest, AFailedOpenIsTriedAgain) {
    const auto layer = writable();
    const auto failed =
        layer->block_file(7, []() -> Result<std::shared_ptr<BlockFile>> { return fail("no"); });
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().message, "no");
    EXPECT_TRUE(layer->block_file(
        7, [&]() -> Result<std::shared_ptr<BlockFile>> { return make_block_file("f"); }));
}

TEST_F(LayerTest, KeepsWhatIsNotFlushed) {
    const auto layer = writable();
    const auto open = [&](uint64_t inode) {
        return *layer->block_file(inode, [&]() -> Result<std::shared_ptr<BlockFile>> {
            return make_block_file(std::to_string(inode));
        });
    };
    std::vector<std::weak_ptr<BlockFile>> files;
    // Enough that unused ones are looked for.
    for (uint64_t inode = 0; inode < 200; ++inode) {
        auto file = open(inode);
        files.push_back(file);
        if (inode == 0) {
            ASSERT_TRUE(file->write(0, bytes_of(inode)));
            layer->keep_until_flushed(inode, std::move(file));
        }
    }
    ASSERT_FALSE(files[0].expired());
    EXPECT_TRUE(files[1].expired());
    EXPECT_EQ(open(0), files[0].lock());
    EXPECT_TRUE(files[0].lock()->dirty());
    const auto used = open(1000);
    ASSERT_TRUE(used->write(0, bytes_of(uint32_t{1})));
    ASSERT_TRUE(layer->flush_block_files());
    EXPECT_TRUE(files[0].expired());
    EXPECT_FALSE(used->dirty());
}

TEST_F(LayerTest, DeepAndWideTreesAreDeleted) {
    const UniqueFd root(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY));
    const UniqueFd work(::openat(root.get(), "work", O_RDONLY | O_DIRECTORY));
    // Deeper than a path may be long or a process may have files open.
    UniqueFd at(::openat(work.get(), ".", O_RDONLY | O_DIRECTORY));
    for (int depth = 0; depth < 1100; ++depth) {
        ASSERT_EQ(::mkdirat(at.get(), "deeper", 0700), 0);
        at.reset(::openat(at.get(), "deeper", O_RDONLY | O_DIRECTORY));
        ASSERT_TRUE(at);
    }
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(::mkdirat(work.get(), fmt::format(".trash-{}", i).c_str(), 0000), 0);
    }
    ASSERT_TRUE(write_small_file(work.get(), "f", "text"));
    ASSERT_TRUE(remove_tree(root.get(), "work"));
    EXPECT_FALSE(fs::exists(dir_.path() + "/work"));
    ASSERT_TRUE(remove_tree(root.get(), "work"));
    ASSERT_TRUE(remove_tree(root.get(), "none"));
}

}  // namespace
}  // namespace ivmm::storage
