#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <filesystem>
#include <map>

#include "tests/support/temp_dir.h"
#include "vmm/snapshot/file_pages.h"
#include "vmm/snapshot/memory_chain.h"
#include "vmm/snapshot/memory_file.h"
#include "vmm/snapshot/snapshot_folder.h"

namespace ivmm {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kBytes = uint64_t{17} << 20;
constexpr uint64_t kPages = kBytes / kPageSize;

/// Each page is filled with one number.
using Pages = std::map<uint64_t, unsigned char>;

class SnapshotMemoryTest : public testing::Test {
 protected:
    static bool proceed(double /*done*/) { return true; }

    UniqueFd image(const Pages& pages) const {
        UniqueFd file(::open(dir_.path().c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
        EXPECT_EQ(::ftruncate(file.get(), kBytes), 0);
        for (const auto& [page, value] : pages) {
            const std::vector<std::byte> content(kPageSize, std::byte{value});
            EXPECT_TRUE(write_pages(file.get(), page, content));
        }
        return file;
    }
    std::string path(const std::string& name) const { return dir_.path() + "/" + name; }

    /// Makes a snapshot with this memory, on the base, if there is one; its size in the file.
    uint64_t save(const std::string& name, const Pages& pages, const std::string& base = {}) {
        Snapshot snapshot;
        snapshot.guest.id = new_snapshot_id();
        snapshot.guest.config.memory_bytes = kBytes;
        snapshot.machine.vcpus.resize(1);
        std::optional<MemoryChain> chain;
        if (!base.empty()) {
            const auto below = read_snapshot(path(base));
            chain.emplace(*MemoryChain::open(path(base), *below));
            snapshot.memory.base = {"../" + base, below->guest.id};
        }
        auto folder = SnapshotFolder::create(path(name));
        const auto file = *folder->create_memory();
        auto written = write_memory(file.get(), image(pages).get(), kBytes,
                                    chain ? &*chain : nullptr, &proceed);
        EXPECT_TRUE(written);
        written->memory.base = snapshot.memory.base;
        snapshot.memory = written->memory;
        EXPECT_TRUE(folder->write_machine(encode_snapshot(snapshot)));
        EXPECT_TRUE(folder->publish());
        return written->written_bytes / kPageSize;
    }
    Result<MemoryChain> open(const std::string& name) const {
        IVMM_ASSIGN(const auto snapshot, read_snapshot(path(name)));
        return MemoryChain::open(path(name), snapshot);
    }
    std::string refusal(const std::string& name) const {
        const auto chain = open(name);
        return chain ? "accepted" : chain.error().message;
    }
    /// What is in the chain, read page by page and as a guest's memory.
    void expect(const std::string& name, const Pages& pages) const {
        const auto chain = open(name);
        ASSERT_TRUE(chain) << chain.error().message;
        EXPECT_TRUE(chain->check());
        const auto memory = chain->map();
        ASSERT_TRUE(memory);
        std::vector<std::byte> content(kPageSize);
        std::vector<std::byte> mapped(kPageSize);
        for (uint64_t page = 0; page < kPages; ++page) {
            const auto found = pages.find(page);
            const auto value = std::byte{found == pages.end() ? uint8_t{0} : found->second};
            ASSERT_TRUE(chain->read(page, 1, content));
            ASSERT_TRUE((*memory)->read(page * kPageSize, mapped));
            ASSERT_EQ(content, std::vector<std::byte>(kPageSize, value)) << page;
            ASSERT_EQ(mapped, content) << page;
        }
    }

    const test::TempDir dir_;
};

TEST_F(SnapshotMemoryTest, PagesOfZeroesAreHoles) {
    EXPECT_EQ(save("one", {{0, 1}, {1, 0}, {300, 2}, {kPages - 1, 3}}), 3);
    struct stat info {};
    ASSERT_EQ(::stat(path("one/memory").c_str(), &info), 0);
    EXPECT_EQ(info.st_size, kBytes);
    EXPECT_LE(info.st_blocks * 512, 64 << 10);
    expect("one", {{0, 1}, {300, 2}, {kPages - 1, 3}});
}

TEST_F(SnapshotMemoryTest, WithABaseOnlyWhatIsDifferentIsKept) {
    save("one", {{0, 1}, {7, 7}, {300, 2}, {kPages - 1, 3}});
    // Page 7 has become zeroes, 300 is another, 301 is new.
    const Pages second = {{0, 1}, {300, 9}, {301, 4}, {kPages - 1, 3}};
    EXPECT_EQ(save("two", second, "one"), 2);
    expect("two", second);
    // Back to what it was, which the snapshot in between had otherwise.
    const Pages third = {{0, 1}, {7, 7}, {301, 4}, {kPages - 1, 3}};
    EXPECT_EQ(save("three", third, "two"), 1);
    expect("three", third);
    expect("one", {{0, 1}, {7, 7}, {300, 2}, {kPages - 1, 3}});
    EXPECT_EQ(save("four", third, "three"), 0);
    expect("four", third);
}

TEST_F(SnapshotMemoryTest, AFileOfAnotherLengthIsRefused) {
    save("one", {{0, 1}});
    std::filesystem::resize_file(path("one/memory"), kBytes - 1);
    EXPECT_THAT(refusal("one"), HasSubstr(path("one/memory")));
    EXPECT_THAT(refusal("one"), HasSubstr("truncated"));
    std::filesystem::resize_file(path("one/memory"), kBytes + 1);
    EXPECT_THAT(refusal("one"), HasSubstr("damaged"));
    std::filesystem::remove(path("one/memory"));
    EXPECT_THAT(refusal("one"), HasSubstr("No such file"));
}

TEST_F(SnapshotMemoryTest, ACheckFindsWhatHasChanged) {
    save("one", {{5, 1}});
    save("two", {{5, 1}, {6, 1}}, "one");
    const UniqueFd file(::open(path("one/memory").c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::pwrite(file.get(), "x", 1, 5 * kPageSize + 17), 1);
    const auto checked = open("two")->check();
    ASSERT_FALSE(checked);
    EXPECT_THAT(checked.error().message, HasSubstr("one/memory': damaged"));
}

TEST_F(SnapshotMemoryTest, ABaseMustBeThereAndTheSame) {
    save("one", {{5, 1}});
    save("two", {{6, 1}}, "one");
    std::filesystem::rename(path("one"), path("away"));
    EXPECT_THAT(refusal("two"), HasSubstr("two' is based on"));
    EXPECT_THAT(refusal("two"), HasSubstr("No such file"));
    save("one", {{5, 1}});
    EXPECT_THAT(refusal("two"), HasSubstr("another snapshot now"));
}

TEST_F(SnapshotMemoryTest, RingsAndLongChainsAreRefused) {
    save("0", {{5, 1}});
    for (size_t i = 1; i < MemoryChain::kMaxDepth; ++i) {
        save(std::to_string(i), {{5, 1}, {6 + i, 1}}, std::to_string(i - 1));
    }
    const std::string last = std::to_string(MemoryChain::kMaxDepth - 1);
    EXPECT_EQ(refusal(last), "accepted");
    save("more", {{5, 2}}, last);
    EXPECT_THAT(refusal("more"), HasSubstr("more than 16"));

    // The first becomes one that is based on the second.
    auto first = *read_snapshot(path("0"));
    first.memory = read_snapshot(path("2"))->memory;
    first.memory.base = {"../1", read_snapshot(path("1"))->guest.id};
    const auto bytes = encode_snapshot(first);
    dir_.file("0/machine", std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    EXPECT_THAT(refusal("1"), HasSubstr("based on it itself"));
}

TEST_F(SnapshotMemoryTest, AFolderIsThereOnlyWhenItIsComplete) {
    const auto entries = [&] {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
            names.push_back(entry.path().filename().string());
        }
        return names;
    };
    {
        auto folder = SnapshotFolder::create(path("one"));
        ASSERT_TRUE(folder);
        const auto file = folder->create_memory();
        const auto cancelled = write_memory(file->get(), image({{0, 1}}).get(), kBytes, nullptr,
                                            [](double) { return false; });
        ASSERT_FALSE(cancelled);
        EXPECT_EQ(cancelled.error().message, "cancelled");
        EXPECT_FALSE(std::filesystem::exists(path("one")));
    }
    EXPECT_THAT(entries(), IsEmpty());

    save("one", {{0, 1}});
    EXPECT_THAT(SnapshotFolder::create(path("one")).error().message, HasSubstr("exists already"));
    EXPECT_THAT(SnapshotFolder::create(path("no/one")).error().message, HasSubstr("/no"));
    auto late = SnapshotFolder::create(path("two"));
    std::filesystem::create_directory(path("two"));
    EXPECT_THAT(late->publish().error().message, HasSubstr("exists already"));
}

TEST_F(SnapshotMemoryTest, AMemoryOfAnImageKnowsItsHoles) {
    save("one", {{5, 1}, {300, 1}});
    const auto memory = *open("one")->map();
    const auto pages_with_data = [&] {
        std::vector<uint64_t> pages;
        uint64_t at = 0;
        while (const auto data = memory->next_data(at)) {
            for (at = data->first; at < data->first + data->count; ++at) {
                pages.push_back(at);
            }
        }
        return pages;
    };
    EXPECT_THAT(pages_with_data(), testing::ElementsAre(5, 300));
    // Reading makes no page the guest's own, writing does.
    std::vector<std::byte> page(kPageSize);
    ASSERT_TRUE(memory->read(100 * kPageSize, page));
    ASSERT_TRUE(memory->write(200 * kPageSize, uint32_t{1}));
    ASSERT_TRUE(memory->write(201 * kPageSize, uint32_t{1}));
    ASSERT_TRUE(memory->write((kPages - 1) * kPageSize, uint32_t{1}));
    auto pages = pages_with_data();
    struct statfs system {};
    ASSERT_EQ(::statfs(path("one").c_str(), &system), 0);
    if (system.f_type == TMPFS_MAGIC) {  // fills a hole of a file that is read through a mapping
        std::erase(pages, uint64_t{100});
    }
    EXPECT_THAT(pages, testing::ElementsAre(5, 200, 201, 300, kPages - 1));
}

}  // namespace
}  // namespace ivmm
