#include "storage/tools/diff.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "storage/union/directory.h"
#include "tests/support/served_store.h"

namespace ivmm::storage {
namespace {

using test::ServedStore;

constexpr size_t kBig = 300'000;  // larger than what is copied up whole

/// One line for each difference: "+", "-" or "M" with "c" and "m", and the path.
std::vector<std::string> differences(Store& store, const std::string& from, const std::string& to,
                                     std::map<std::string, std::vector<ByteRange>>* ranges = {}) {
    const auto left = open_tree(store, from);
    const auto right = open_tree(store, to);
    EXPECT_TRUE(left && right);
    std::vector<std::string> lines;
    const auto done =
        diff(*left, *right, ranges != nullptr, [&](const DiffEntry& entry) -> Result<void> {
            EXPECT_EQ(entry.error, "");
            const char kind = entry.kind == DiffEntry::Kind::kAdded     ? '+'
                              : entry.kind == DiffEntry::Kind::kRemoved ? '-'
                                                                        : 'M';
            lines.push_back(fmt::format("{}{}{} {}", kind, entry.content ? "c" : "",
                                        entry.metadata ? "m" : "", entry.path));
            if (ranges != nullptr && !entry.ranges.empty()) {
                (*ranges)[entry.path] = entry.ranges;
            }
            return {};
        });
    EXPECT_TRUE(done) << done.error().message;
    std::ranges::sort(lines);
    return lines;
}

using Lines = std::vector<std::string>;

TEST(Diff, TellsWhatHasChanged) {
    ServedStore store;
    store.lower_file("keep", "keep");
    store.lower_file("content", "before");
    store.lower_file("mode", "mode");
    store.lower_file("d/gone", "gone");
    store.lower_file("d/sub/deep", "deep");
    store.lower_file("was-file", "file");
    store.serve();
    store.make_symlink("/link", "here");
    const auto number = store.fork({"other"});

    EXPECT_EQ(differences(store.store(), std::to_string(number), "main"), Lines());
    store.write("/content", 0, "after!");
    store.change_mode("/mode", 0600);
    store.unlink("/d/gone");
    store.make_file("/d/sub/new", "new");
    store.unlink("/was-file");
    store.make_directory("/was-file");
    store.unlink("/link");
    store.make_symlink("/link", "there");
    store.make_file("/brief", "");
    store.unlink("/brief");
    const Lines expected = {"+ /d/sub/new", "+ /was-file", "- /d/gone", "- /was-file",
                            "Mc /content",  "Mc /link",    "Mm /mode"};
    EXPECT_EQ(differences(store.store(), std::to_string(number), "main"), expected);
    EXPECT_EQ(differences(store.store(), "other", "main"), expected);
    const Lines reverse = differences(store.store(), "main", "other");
    EXPECT_EQ(reverse.size(), expected.size());
    EXPECT_TRUE(std::ranges::count(reverse, "+ /d/gone") == 1);
}

TEST(Diff, BlockRangesOfAWrittenFile) {
    ServedStore store;
    store.lower_file("disk", std::string(kBig, 'x'));
    store.serve();
    store.write("/disk", 100, "one");
    const auto number = store.fork({});
    store.write("/disk", 5 * kBlockSize + 1, "two");
    store.write("/disk", 6 * kBlockSize, "three");
    store.write("/disk", 20 * kBlockSize, std::string(kBlockSize, 'x'));  // nothing new
    store.write("/disk", kBig, "end");
    store.flush();
    std::map<std::string, std::vector<ByteRange>> ranges;
    EXPECT_EQ(differences(store.store(), std::to_string(number), "main", &ranges),
              Lines{"Mc /disk"});
    const uint64_t last = kBig / kBlockSize * kBlockSize;
    const std::vector<ByteRange> expected = {{5 * kBlockSize, 2 * kBlockSize},
                                             {last, kBig + 3 - last}};
    EXPECT_EQ(ranges["/disk"], expected);
    ranges.clear();
    EXPECT_EQ(differences(store.store(), "0", std::to_string(number), &ranges), Lines{"Mc /disk"});
    EXPECT_EQ(ranges["/disk"], (std::vector<ByteRange>{{0, kBlockSize}}));
}

/// What both have in common need not even be readable.
TEST(Diff, ReadsNeitherCommonDataNorCommonDirectories) {
    ServedStore store;
    std::filesystem::create_directories(store.lower() + "/big");
    constexpr uint64_t kHuge = uint64_t{1} << 40;
    ASSERT_EQ(::close(::creat((store.lower() + "/disk").c_str(), 0644)), 0);
    // Were they data to be compared, a terabyte would take hours.
    ASSERT_EQ(::truncate((store.lower() + "/disk").c_str(), kHuge), 0);
    store.serve();
    store.write("/disk", kHuge / 2, "first");
    const auto number = store.fork({"other"});
    store.write("/disk", kHuge / 4, "second");
    store.truncate("/disk", 2 * kHuge);
    store.flush();
    // A directory that the diff lists shows names that were put there behind the union's back.
    for (const char* where : {"/big", ""}) {
        std::ofstream(store.layer_path(number) + "/tree/" + where + "/sneaked");
    }
    std::map<std::string, std::vector<ByteRange>> ranges;
    EXPECT_EQ(differences(store.store(), "other", "main", &ranges), Lines{"Mc /disk"});
    const std::vector<ByteRange> expected = {{kHuge / 4, kBlockSize}, {kHuge, kHuge}};
    EXPECT_EQ(ranges["/disk"], expected);
}

TEST(Diff, HardLinkedFileShowsUnderAllItsNames) {
    ServedStore store;
    store.lower_file("a/one", "before");
    std::filesystem::create_directories(store.lower() + "/b");
    std::filesystem::create_hard_link(store.lower() + "/a/one", store.lower() + "/b/two");
    store.serve();
    const auto number = store.fork({});
    store.write("/a/one", 0, "after!");
    EXPECT_EQ(differences(store.store(), std::to_string(number), "main"),
              (Lines{"Mc /a/one", "Mc /b/two"}));
}

TEST(Diff, UnknownTreesAreErrors) {
    ServedStore store;
    store.serve();
    EXPECT_FALSE(open_tree(store.store(), "nothing"));
    EXPECT_FALSE(open_tree(store.store(), "999"));
    EXPECT_FALSE(open_tree(store.store(), "1"));
}

TEST(Diff, TreeOfAServedViewIsLive) {
    ServedStore store;
    store.serve();
    const auto number = store.fork({"other"});
    EXPECT_TRUE(open_tree(store.store(), "main")->live);
    EXPECT_FALSE(open_tree(store.store(), "other")->live);
    EXPECT_FALSE(open_tree(store.store(), std::to_string(number))->live);
    store.stop();
    const auto opened = Store::open(store.path());
    ASSERT_TRUE(opened);
    EXPECT_FALSE(open_tree(**opened, "main")->live);
}

TEST(Diff, DamagedFileIsSaidAndTheRestCompared) {
    ServedStore store;
    store.lower_file("disk", std::string(kBig, 'x'));
    store.serve();
    const auto number = store.fork({});
    store.write("/disk", 0, "x");
    store.make_file("/new", "");
    store.stop();
    const auto opened = Store::open(store.path());
    ASSERT_TRUE(opened);
    const auto left = open_tree(**opened, std::to_string(number));
    const auto right = open_tree(**opened, "main");
    std::filesystem::remove_all(store.layer_path(right->stack.front()->number()) + "/maps");
    std::filesystem::create_directory(store.layer_path(right->stack.front()->number()) + "/maps");
    size_t errors = 0;
    size_t others = 0;
    EXPECT_TRUE(diff(*left, *right, true, [&](const DiffEntry& entry) -> Result<void> {
        ++(entry.error.empty() ? others : errors);
        EXPECT_EQ(entry.path, entry.error.empty() ? "/new" : "/disk");
        return {};
    }));
    EXPECT_EQ(errors, 1U);
    EXPECT_EQ(others, 1U);
}

/// What a view shows, read through the view.
struct Object {
    struct stat attributes {};
    std::string content;  ///< or where a link leads
};
using Tree = std::map<std::string, Object>;

void add_tree(ServedStore& store, const std::string& path, Tree* tree) {
    View& view = store.view();
    Inode& inode = store.at(path);
    Object& object = (*tree)[path];
    const auto attributes = view.attributes(inode);
    ASSERT_TRUE(attributes) << path << ": " << error_text(attributes.error().code);
    object.attributes = *attributes;
    if (S_ISREG(object.attributes.st_mode)) {
        const auto content = store.read(path);
        ASSERT_TRUE(content) << path;
        object.content = *content;
    } else if (S_ISLNK(object.attributes.st_mode)) {
        const auto target = view.read_link(inode);
        ASSERT_TRUE(target) << path << ": " << error_text(target.error().code);
        object.content = *target;
    } else if (S_ISDIR(object.attributes.st_mode)) {
        auto listing = view.open_directory(inode);
        ASSERT_TRUE(listing && (*listing)->rewind());
        for (const auto& item : (*listing)->items()) {
            add_tree(store, (path == "/" ? "" : path) + "/" + item.name, tree);
        }
        view.close_directory(inode);
    }
}

Tree tree_of(ServedStore& store) {
    Tree tree;
    add_tree(store, "/", &tree);
    return tree;
}

std::vector<ByteRange> brute_force_ranges(const std::string& a, const std::string& b) {
    std::vector<ByteRange> ranges;
    const size_t size = std::max(a.size(), b.size());
    for (size_t offset = 0; offset < size; offset += kBlockSize) {
        const auto block = [&](const std::string& content) {
            return offset < content.size() ? content.substr(offset, kBlockSize) : "";
        };
        const uint64_t length = std::min<uint64_t>(kBlockSize, size - offset);
        if (block(a) == block(b)) {
            continue;
        }
        if (!ranges.empty() && ranges.back().offset + ranges.back().length == offset) {
            ranges.back().length += length;
        } else {
            ranges.push_back({offset, length});
        }
    }
    return ranges;
}

Lines brute_force(const Tree& from, const Tree& to,
                  std::map<std::string, std::vector<ByteRange>>* ranges) {
    Lines lines;
    for (const auto& [path, a] : from) {
        const auto found = to.find(path);
        if (found == to.end() ||
            ((a.attributes.st_mode ^ found->second.attributes.st_mode) & S_IFMT) != 0) {
            lines.push_back("- " + path);
            continue;
        }
        const Object& b = found->second;
        const bool content = a.content != b.content;
        const bool times = S_ISREG(a.attributes.st_mode) && !content &&
                           (a.attributes.st_mtim.tv_sec != b.attributes.st_mtim.tv_sec ||
                            a.attributes.st_mtim.tv_nsec != b.attributes.st_mtim.tv_nsec);
        const bool metadata = a.attributes.st_mode != b.attributes.st_mode || times;
        if (content || metadata) {
            lines.push_back(fmt::format("M{}{} {}", content ? "c" : "", metadata ? "m" : "", path));
        }
        if (content && S_ISREG(a.attributes.st_mode)) {
            (*ranges)[path] = brute_force_ranges(a.content, b.content);
        }
    }
    for (const auto& [path, b] : to) {
        const auto found = from.find(path);
        if (found == from.end() ||
            ((b.attributes.st_mode ^ found->second.attributes.st_mode) & S_IFMT) != 0) {
            lines.push_back("+ " + path);
        }
    }
    std::ranges::sort(lines);
    return lines;
}

/// Does something to the tree; what cannot be done, is not.
void change(ServedStore& store, std::mt19937& random) {
    View& view = store.view();
    const Tree tree = tree_of(store);
    const auto any = [&] {
        return std::next(tree.begin(), static_cast<ptrdiff_t>(random() % tree.size()))->first;
    };
    const auto name = [&] { return std::string(1, static_cast<char>('a' + random() % 6)); };
    const std::string path = any();
    const mode_t type = tree.at(path).attributes.st_mode & S_IFMT;
    Inode& inode = store.at(path);
    switch (random() % 10) {
        case 0:
            std::ignore = view.make_node(inode, name(), S_IFREG | 0644, 0, {});
            break;
        case 1:
            std::ignore = view.make_directory(inode, name(), S_IFDIR | 0755, {});
            break;
        case 2:
            std::ignore = view.make_symlink(inode, name(), name(), {});
            break;
        case 3:
            if (path != "/") {
                Inode& parent = store.parent_of(path);
                std::ignore = type == S_IFDIR
                                  ? view.remove_directory(parent, ServedStore::name_of(path))
                                  : view.unlink(parent, ServedStore::name_of(path));
            }
            break;
        case 4: {
            // What the kernel refuses itself never gets to the view.
            const std::string directory = any();
            const std::string target = (directory == "/" ? "" : directory) + "/" + name();
            const Inode* const present = store.find(target);
            if (path != "/" && !(target + "/").starts_with(path + "/") && present != &inode &&
                (present == nullptr || present->is_directory() == inode.is_directory())) {
                std::ignore = view.rename(store.parent_of(path), store.name_of(path),
                                          store.at(directory), store.name_of(target), 0);
            }
            break;
        }
        case 5:
            if (type != S_IFDIR) {
                std::ignore = view.make_link(inode, store.at(any()), name());
            }
            break;
        case 6:
            if (type != S_IFLNK) {
                store.change_mode(path, random() % 2 == 0 ? 0755 : 0711);
            }
            break;
        case 7:
            if (type == S_IFREG) {
                store.truncate(path, random() % kBig);
            }
            break;
        default:
            if (type == S_IFREG) {
                const auto size = static_cast<size_t>(tree.at(path).attributes.st_size);
                store.write(path, random() % (size + kBlockSize),
                            std::string(random() % 9000, static_cast<char>('a' + random() % 3)));
            }
            break;
    }
}

TEST(Diff, EqualsAComparisonOfAllBytesOnRandomTrees) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    for (int round = 0; round < 2; ++round) {
        ServedStore store;
        for (const char* name : {"a", "b/c", "b/d/e", "f/a", "f/b"}) {
            store.lower_file(name, std::string(random() % kBig, 'x'));
        }
        std::filesystem::create_hard_link(store.lower() + "/a", store.lower() + "/f/c");
        store.serve();
        std::map<std::string, Tree> trees;
        for (int point = 0; point < 4; ++point) {
            for (int i = 0; i < 8; ++i) {
                change(store, random);
            }
            const Tree tree = tree_of(store);
            trees[std::to_string(store.fork({}))] = tree;
        }
        for (const auto& [from, left] : trees) {
            for (const auto& [to, right] : trees) {
                SCOPED_TRACE(fmt::format("{} to {}", from, to));
                std::map<std::string, std::vector<ByteRange>> expected;
                std::map<std::string, std::vector<ByteRange>> ranges;
                const Lines lines = brute_force(left, right, &expected);
                ASSERT_EQ(differences(store.store(), from, to, &ranges), lines);
                ASSERT_EQ(ranges, expected);
                ASSERT_EQ(differences(store.store(), from, to), lines);
            }
        }
    }
}

}  // namespace
}  // namespace ivmm::storage
