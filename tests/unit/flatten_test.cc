#include "storage/flatten/flatten.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "storage/tools/check.h"
#include "tests/support/served_store.h"

namespace ivmm::storage {
namespace {

using test::ServedStore;

constexpr size_t kBig = 300'000;  // larger than what is copied up whole

/// All that a user can see of a view, by path. With what belongs to one store alone: inode numbers
/// and times.
using Picture = std::map<std::string, std::string>;

class PictureOf {
 public:
    PictureOf(ServedStore& store, bool all) : store_(store), all_(all) { directory(""); }
    Picture picture;

 private:
    void directory(const std::string& path) {
        object(path);
        Inode& inode = store_.at(path);
        auto listing = store_.view().open_directory(inode);
        ASSERT_TRUE(listing && store_.view().rewind(inode, **listing)) << path;
        std::map<std::string, Listing::Item> items;
        for (const auto& item : (*listing)->items()) {
            EXPECT_TRUE(items.emplace(item.name, item).second) << path << "/" << item.name;
        }
        store_.view().close_directory(inode);
        for (const auto& [name, item] : items) {
            const std::string child = path + "/" + name;
            if (item.type == DT_DIR) {
                directory(child);
            } else {
                object(child);
            }
        }
    }

    void object(const std::string& path) {
        Inode& inode = store_.at(path);
        const auto attributes = store_.view().attributes(inode);
        ASSERT_TRUE(attributes) << path;
        const bool directory = S_ISDIR(attributes->st_mode);
        std::string text =
            fmt::format("mode {:o} owner {}:{} device {}", attributes->st_mode, attributes->st_uid,
                        attributes->st_gid, directory ? 0 : attributes->st_rdev);
        if (!directory) {
            text += fmt::format(" names {} size {}", attributes->st_nlink, attributes->st_size);
        }
        if (all_) {
            text += fmt::format(" modified {}.{:09}", attributes->st_mtim.tv_sec,
                                attributes->st_mtim.tv_nsec);
            // Copies of others get new numbers when they are opened again.
            text += directory || S_ISREG(attributes->st_mode)
                        ? fmt::format(" inode {:x}", attributes->st_ino)
                        : "";
        }
        const auto names = store_.view().xattrs(inode);
        ASSERT_TRUE(names) << path;
        for (const auto& name : std::set<std::string>(names->begin(), names->end())) {
            text += fmt::format(" {}={}", name, **store_.view().xattr(inode, name));
        }
        if (S_ISLNK(attributes->st_mode)) {
            text += " to " + *store_.view().read_link(inode);
        } else if (S_ISREG(attributes->st_mode)) {
            const auto content = store_.read(path);
            ASSERT_TRUE(content) << path;
            text += fmt::format(" content {:x}", std::hash<std::string>()(*content));
        }
        picture[path] = std::move(text);
    }

    ServedStore& store_;
    bool all_;
};

Picture picture_of(ServedStore& store, bool all = true) {
    return PictureOf(store, all).picture;
}

void expect_same(const Picture& expected, const Picture& actual, const std::string& when) {
    for (const auto& [path, text] : expected) {
        const auto at = actual.find(path);
        EXPECT_EQ(at == actual.end() ? "is missing" : at->second, text) << path << ", " << when;
    }
    for (const auto& [path, text] : actual) {
        EXPECT_TRUE(expected.contains(path)) << path << " is new, " << when;
    }
}

/// Flattens a view of a served store as a server does.
Result<FlattenReport> flatten_served(ServedStore& store, const std::string& view = "main") {
    FlattenOptions options;
    options.replace = [&](const Store::Run& run, StackSpan layers,
                          Store::Replacement& replacement) {
        return store.store().replace_run(run, replacement, {"main"}, [&] {
            return store.view().replace_layers(layers, replacement.layer());
        });
    };
    return flatten(store.store(), view, options);
}

std::vector<uint32_t> layers_on_disk(const ServedStore& store) {
    std::vector<uint32_t> numbers;
    for (const auto& entry : std::filesystem::directory_iterator(store.path() + "/layers")) {
        if (const std::string name = entry.path().filename(); std::isdigit(name.front()) != 0) {
            numbers.push_back(static_cast<uint32_t>(std::stoul(name)));
        }
    }
    std::ranges::sort(numbers);
    return numbers;
}

void expect_sound(const ServedStore& store) {
    const auto report = check_store(store.path(), {});
    ASSERT_TRUE(report) << report.error().message;
    for (const auto& finding : report->findings) {
        EXPECT_NE(finding.severity, CheckFinding::Severity::kDamage)
            << finding.path << ": " << finding.what;
    }
}

/// Makes the same random changes to all stores that are given the same seed.
class Changes {
 public:
    Changes(ServedStore& store, uint64_t seed) : store_(store), random_(seed) {}

    void make(int count) {
        for (int i = 0; i < count; ++i) {
            make_one();
        }
        store_.flush();
    }

 private:
    size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

    /// A path of at most three of few names, so that they meet.
    std::string path() {
        std::string path;
        for (size_t depth = 1 + below(3); depth > 0; --depth) {
            path += fmt::format("/{}", static_cast<char>('a' + below(5)));
        }
        return path;
    }
    std::string bytes() {
        return std::string(1 + below(3 * kBlockSize), static_cast<char>('a' + below(26)));
    }

    // What cannot be done on one store cannot be done on the other.
    void make_one() {
        View& view = store_.view();
        const std::string from = path();
        const std::string to = path();
        Inode* const parent = store_.find(std::filesystem::path(from).parent_path().string());
        Inode* const other = store_.find(std::filesystem::path(to).parent_path().string());
        const std::string name = ServedStore::name_of(from);
        const std::string new_name = ServedStore::name_of(to);
        const size_t what = below(24);
        const std::string text = bytes();
        const size_t offset = below(kBig + 2 * kBlockSize);
        const auto mode = static_cast<mode_t>(below(01000));
        const bool exchange = below(3) == 0;
        if (parent == nullptr || !parent->is_directory()) {
            return;
        }
        Inode* const inode = store_.find(from);
        switch (what) {
            case 0:
            case 1:
            case 2:
                std::ignore = view.make_directory(*parent, name, S_IFDIR | 0755, {});
                break;
            case 3:
                std::ignore = view.make_node(*parent, name, S_IFREG | 0644, 0, {});
                break;
            case 4:
                std::ignore = view.make_symlink(*parent, name, to, {});
                break;
            case 5:
                std::ignore = view.make_node(*parent, name, S_IFCHR | 0600, 259, {});
                break;
            case 6:
            case 7:
                std::ignore = view.unlink(*parent, name);
                break;
            case 8:
            case 9:
                std::ignore = view.remove_directory(*parent, name);
                break;
            case 10:
            case 11:
            case 12:
            case 13:
                // A directory does not go into itself: the kernel sees to that.
                if (other != nullptr && other->is_directory() &&
                    !(to + "/").starts_with(from + "/") && !(from + "/").starts_with(to + "/")) {
                    std::ignore = view.rename(*parent, name, *other, new_name,
                                              exchange ? RENAME_EXCHANGE : 0);
                }
                break;
            default:
                if (inode != nullptr) {
                    change(*inode, what, to, text, offset, mode);
                }
        }
    }

    void change(Inode& inode, size_t what, const std::string& to, const std::string& text,
                size_t offset, mode_t mode) {
        View& view = store_.view();
        AttributeChange change;
        if (what == 14 || what == 15) {
            Inode* const other = store_.find(std::filesystem::path(to).parent_path().string());
            if (other != nullptr) {
                std::ignore = view.make_link(inode, *other, ServedStore::name_of(to));
            }
        } else if (what == 16) {
            change.mode = mode;
            std::ignore = view.set_attributes(inode, change);
        } else if (what == 17 && !S_ISLNK(inode.type)) {
            std::ignore = view.set_xattr(inode, "user.x", text.substr(0, 3), 0);
        } else if (inode.is_regular() && view.open(inode, O_RDWR)) {
            if (what == 18) {
                change.size = offset;
                EXPECT_TRUE(view.set_attributes(inode, change));
            } else if (what == 19) {
                std::ignore = view.allocate(inode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                            offset, text.size() * 7);
            } else {
                EXPECT_TRUE(view.write(inode, offset, std::as_bytes(std::span(text))));
            }
            view.close(inode);
        }
    }

    ServedStore& store_;
    std::mt19937_64 random_;
};

/// Branches with something of everything.
void fill_lower(const ServedStore& store) {
    const std::filesystem::path lower = store.lower();
    for (const char* directory : {"a", "b", "a/b", "c/d"}) {
        for (const char* file : {"c", "d", "e"}) {
            store.lower_file(fmt::format("{}/{}", directory, file),
                             std::string(file[0] == 'd' ? kBig : 100, file[0]));
        }
    }
    store.lower_file("e", "linked");
    std::filesystem::create_hard_link(lower / "e", lower / "a/a");
    std::filesystem::create_hard_link(lower / "e", lower / "b/a");
}

TEST(Flatten, RandomChangesStayAsTheyAre) {
    const uint64_t seed = std::random_device()();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    for (uint64_t round = 0; round < 8 && !testing::Test::HasFailure(); ++round) {
        ServedStore flat;
        ServedStore deep;  // the same, never flattened
        fill_lower(flat);
        fill_lower(deep);
        flat.serve();
        deep.serve();
        for (uint64_t step = 0; step < 4 && !testing::Test::HasFailure(); ++step) {
            for (uint64_t layer = 0; layer < 3; ++layer) {
                const uint64_t changes = seed + round * 100 + step * 10 + layer;
                Changes(flat, changes).make(60);
                Changes(deep, changes).make(60);
                if (layer < 2 || step % 2 == 0) {
                    flat.fork({});
                    deep.fork({});
                }
            }
            const std::string when = fmt::format("round {}, step {}", round, step);
            expect_same(picture_of(deep, false), picture_of(flat, false), when + ", before");
            const Picture before = picture_of(flat);
            const auto report = flatten_served(flat);
            ASSERT_TRUE(report) << report.error().message;
            EXPECT_EQ(flat.view().stack().size(), 3U);
            expect_same(before, picture_of(flat), when + ", in use");
            if (step % 2 == 1) {
                flat.stop();
                expect_sound(flat);
                flat.serve();
                expect_same(before, picture_of(flat), when + ", opened again");
            }
        }
        // What the layers above know of the merged ones is still good.
        for (ServedStore* const store : {&flat, &deep}) {
            Changes(*store, seed + round).make(200);
        }
        expect_same(picture_of(deep, false), picture_of(flat, false), "changed afterwards");
    }
}

TEST(Flatten, MakesOneLayerOfARunAndDeletesIt) {
    ServedStore store;
    store.lower_file("disk", std::string(kBig, 'x'));
    store.serve();
    const uint32_t first = store.top();
    for (int i = 0; i < 5; ++i) {
        store.write("/disk", static_cast<uint64_t>(i) * kBlockSize, "here");
        store.fork({});
    }
    const auto report = flatten_served(store);
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_EQ(report->merged.size(), 1U);
    EXPECT_EQ(report->merged.front().size(), 5U);
    EXPECT_EQ(report->merged.front().back(), first);
    EXPECT_TRUE(report->kept.empty());
    EXPECT_LT(report->bytes_after, report->bytes_before);
    EXPECT_EQ(layers_on_disk(store),
              (std::vector<uint32_t>{report->merged.front().front(), store.top()}));
    for (const auto& entry : std::filesystem::directory_iterator(store.path() + "/layers")) {
        EXPECT_FALSE(entry.path().filename().string().starts_with('.')) << entry.path();
    }
    const auto again = flatten_served(store);
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->merged.empty());
}

TEST(Flatten, KeepsWhatOthersNeed) {
    ServedStore store;
    store.serve();
    std::vector<uint32_t> frozen;
    for (const std::vector<std::string>& names :
         {std::vector<std::string>{}, {}, {"copy"}, {}, {"other"}}) {
        store.make_file(fmt::format("/file{}", frozen.size()), "x");
        frozen.push_back(store.fork(names));
    }
    const Picture before = picture_of(store);
    const auto report = flatten_served(store);
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_EQ(report->merged.size(), 2U);
    EXPECT_EQ(report->merged[0], (Store::Run{frozen[4], frozen[3]}));
    EXPECT_EQ(report->merged[1], (Store::Run{frozen[2], frozen[1], frozen[0]}));
    ASSERT_EQ(report->kept.size(), 1U);
    EXPECT_NE(report->kept.front().find(fmt::format("layer {} ", frozen[2])), std::string::npos);
    EXPECT_NE(report->kept.front().find("copy"), std::string::npos);
    expect_same(before, picture_of(store), "flattened");
    store.stop();
    for (const auto& [view, files] : std::map<std::string, size_t>{{"copy", 3}, {"other", 5}}) {
        store.serve(view);
        EXPECT_EQ(picture_of(store).size(), files + 1) << view;
        store.stop();
    }
    expect_sound(store);
}

TEST(Flatten, OpenFilesAndDirectoriesGoOn) {
    ServedStore store;
    store.lower_file("disk", std::string(kBig, 'x'));
    store.serve();
    store.make_directory("/d");
    store.make_file("/d/one", "one");
    store.write("/disk", kBlockSize, "first");
    store.fork({});
    store.make_file("/d/two", "two");
    store.write("/disk", 2 * kBlockSize, "second");
    store.fork({});
    View& view = store.view();
    Inode& disk = store.at("/disk");
    Inode& directory = store.at("/d");
    Inode& one = store.at("/d/one");
    ASSERT_TRUE(view.open(disk, O_RDWR) && view.open(one, O_RDWR));
    auto listing = view.open_directory(directory);
    ASSERT_TRUE(listing && view.rewind(directory, **listing));

    ASSERT_TRUE(flatten_served(store));
    ASSERT_TRUE(view.rewind(directory, **listing));
    EXPECT_EQ((*listing)->items().size(), 2U);
    std::string text(6, '\0');
    EXPECT_TRUE(view.read(disk, 2 * kBlockSize, std::as_writable_bytes(std::span(text))));
    EXPECT_EQ(text, "second");
    const std::string third = "third";
    EXPECT_TRUE(view.write(disk, 3 * kBlockSize, std::as_bytes(std::span(third))));
    EXPECT_TRUE(view.write(one, 3, std::as_bytes(std::span(third))));
    view.close(disk);
    view.close(one);
    view.close_directory(directory);
    EXPECT_EQ(store.read("/d/one"), "onethird");
    EXPECT_EQ(store.read("/disk")->substr(kBlockSize, 5), "first");
    EXPECT_EQ(store.read("/disk")->substr(3 * kBlockSize, 5), "third");
}

TEST(Flatten, AFileIsFoundByNamesThatItsCopyDoesNotHave) {
    ServedStore store;
    fill_lower(store);
    store.serve();
    for (int i = 0; i < 2; ++i) {
        store.make_file(fmt::format("/file{}", i), "x");
        store.fork({});
    }
    store.at("/e");
    store.link("/a/a", "/new");
    store.unlink("/e");
    ASSERT_TRUE(flatten_served(store));
    EXPECT_EQ(&store.at("/new"), &store.at("/a/a"));
    EXPECT_TRUE(store.view().attributes(store.at("/new")));
    EXPECT_EQ(store.read("/b/a"), "linked");
}

TEST(Flatten, GivenUpItChangesNothing) {
    ServedStore store;
    store.serve();
    for (int i = 0; i < 3; ++i) {
        store.make_file(fmt::format("/file{}", i), "x");
        store.fork({});
    }
    const auto before = layers_on_disk(store);
    FlattenOptions options;
    options.progress = [](double done) { return done < 0.5; };
    const auto flattened = flatten(store.store(), "main", options);
    ASSERT_FALSE(flattened);
    EXPECT_NE(flattened.error().message.find("stay as they are"), std::string::npos);
    EXPECT_EQ(layers_on_disk(store), before);
}

/// Who forks while layers are merged has what he wants; and who is there first wins.
TEST(Flatten, AForkMeanwhileIsNotLost) {
    ServedStore store;
    store.serve();
    for (int i = 0; i < 3; ++i) {
        store.make_file(fmt::format("/file{}", i), "x");
        store.fork({});
    }
    const Picture before = picture_of(store);
    FlattenOptions options;
    options.replace = [&](const Store::Run& run, StackSpan layers,
                          Store::Replacement& replacement) {
        store.fork({"copy"});
        return store.store().replace_run(run, replacement, {"main"}, [&] {
            return store.view().replace_layers(layers, replacement.layer());
        });
    };
    const auto report = flatten(store.store(), "main", options);
    ASSERT_TRUE(report) << report.error().message;
    expect_same(before, picture_of(store), "flattened");
    store.stop();
    store.serve("copy");
    EXPECT_EQ(store.view().stack().size(), 4U);
    expect_same(before, picture_of(store), "the copy");
}

TEST(Flatten, ViewsOfOthersAreNotTouched) {
    ServedStore store;
    store.serve();
    for (const auto* copy : {"", "", "copy"}) {
        store.make_file(fmt::format("/file{}", store.top()), "x");
        store.fork(*copy == '\0' ? std::vector<std::string>() : std::vector<std::string>{copy});
    }
    const auto other = Store::open(store.path());
    ASSERT_TRUE(other);
    const auto before = layers_on_disk(store);
    {
        const auto attached = (*other)->attach("copy", false);
        ASSERT_TRUE(attached);
        const auto refused = flatten_served(store);
        ASSERT_FALSE(refused);
        EXPECT_NE(refused.error().message.find("copy"), std::string::npos);
        EXPECT_EQ(layers_on_disk(store), before);
    }
    // A reader keeps its files, too.
    const auto reader = (*other)->stack(store.top());
    ASSERT_TRUE(reader);
    ASSERT_TRUE(flatten_served(store));
    for (const auto& layer : *reader) {
        EXPECT_EQ(layer->in_store() && layer->sealed(),
                  ::faccessat(layer->tree(), fmt::format("file{}", layer->number()).c_str(), F_OK,
                              0) == 0)
            << layer->name();
    }
}

}  // namespace
}  // namespace ivmm::storage
