#include "storage/layer/store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "storage/layer/record.h"
#include "storage/layer/store_records.h"
#include "tests/support/temp_dir.h"

namespace ivmm::storage {
namespace {

namespace fs = std::filesystem;
using Views = std::vector<std::string>;

class StoreTest : public testing::Test {
 protected:
    void SetUp() override { fs::create_directory(lower_); }

    std::shared_ptr<Store> make() {
        auto store = Store::open_or_create(path_, {lower_});
        EXPECT_TRUE(store) << store.error().message;
        return *store;
    }
    static std::shared_ptr<Store> open(const std::string& path) {
        auto store = Store::open(path);
        EXPECT_TRUE(store) << store.error().message;
        return *store;
    }
    static Store::Attached attach(Store& store, const std::string& view, bool create = false) {
        auto attached = store.attach(view, create);
        EXPECT_TRUE(attached) << attached.error().message;
        return *std::move(attached);
    }
    static std::vector<Store::ViewLock> fork(Store& store, Store::ViewLock& view,
                                             const Views& names) {
        const auto prepared = store.prepare(view, names.size() + 1);
        EXPECT_TRUE(prepared) << prepared.error().message;
        auto locks = store.commit(view, *prepared, names);
        EXPECT_TRUE(locks) << locks.error().message;
        return *std::move(locks);
    }
    /// The store as a crash at this moment would leave it.
    std::string copy() {
        const auto target = fmt::format("{}/copy{}", dir_.path(), copies_++);
        const auto command = fmt::format("cp -a {} {}", path_, target);
        EXPECT_EQ(std::system(command.c_str()), 0);
        return target;
    }
    static std::vector<uint32_t> numbers(const std::vector<std::shared_ptr<Layer>>& stack) {
        std::vector<uint32_t> result;
        for (const auto& layer : stack) {
            result.push_back(layer->number());
        }
        return result;
    }
    static std::vector<uint32_t> layers(const Store& store) {
        const auto manifests = store.manifests();
        EXPECT_TRUE(manifests) << manifests.error().message;
        std::vector<uint32_t> result;
        for (const auto& manifest : *manifests) {
            result.push_back(manifest.number);
        }
        return result;
    }
    static Views names(const Store& store) {
        const auto views = store.views();
        EXPECT_TRUE(views) << views.error().message;
        Views result;
        for (const auto& view : *views) {
            result.push_back(view.name);
        }
        return result;
    }
    static std::set<std::string> entries(const std::string& path) {
        std::set<std::string> result;
        for (const auto& entry : fs::directory_iterator(path)) {
            result.insert(entry.path().filename());
        }
        return result;
    }
    /// Attaches every view of a store: each has a stack down to the lower branch, and a top that no
    /// other stack has in it. Nothing that no view needs is left.
    static void check(const std::string& path) {
        const auto store = open(path);
        std::vector<Store::Attached> attached;
        for (const auto& name : names(*store)) {
            attached.push_back(attach(*store, name));
        }
        std::set<uint32_t> needed;
        for (const auto& view : attached) {
            const auto stack = numbers(view.stack);
            EXPECT_EQ(stack.back(), 1U);
            EXPECT_TRUE(std::ranges::is_sorted(stack, std::greater())) << view.lock.name();
            needed.insert(stack.begin(), std::prev(stack.end()));
            for (const auto& other : attached) {
                const auto others = numbers(other.stack);
                EXPECT_EQ(std::ranges::count(others, stack.front()), &other == &view ? 1 : 0)
                    << view.lock.name() << " and " << other.lock.name();
            }
            for (size_t i = 0; i < view.stack.size(); ++i) {
                EXPECT_EQ(view.stack[i]->frozen(), i != 0);
                EXPECT_EQ(view.stack[i]->sealed(), i != 0);
            }
        }
        const auto all = layers(*store);
        EXPECT_EQ(std::set<uint32_t>(all.begin(), all.end()), needed);
        std::set<std::string> expected = {"NEXT"};
        for (const auto number : needed) {
            expected.insert(std::to_string(number));
        }
        if (!needed.empty()) {
            EXPECT_EQ(entries(path + "/layers"), expected);
        }
        const auto views = names(*store);
        EXPECT_EQ(entries(path + "/views"), std::set<std::string>(views.begin(), views.end()));
    }

    test::TempDir dir_;
    std::string path_ = dir_.path() + "/store";
    std::string lower_ = dir_.path() + "/lower";
    int copies_ = 0;
};

TEST_F(StoreTest, IsMadeAndOpenedAgain) {
    auto store = make();
    const auto uuid = store->uuid();
    EXPECT_EQ(uuid.size(), 36U);
    EXPECT_EQ(store->directory(), path_);
    ASSERT_EQ(store->lower().size(), 1U);
    EXPECT_EQ(store->lower()[0]->name(), lower_);
    EXPECT_EQ(store->lower()[0]->number(), 1U);
    struct stat attributes {};
    ASSERT_EQ(::stat(path_.c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_mode & 07777, 0700U);
    store.reset();
    EXPECT_EQ(make()->uuid(), uuid);
    EXPECT_EQ(open(path_)->uuid(), uuid);
    EXPECT_EQ((*Store::open_or_create(path_, {}))->lower().size(), 1U);
}

TEST_F(StoreTest, OtherDirectoriesAreRefused) {
    fs::create_directory(path_);
    dir_.file("store/file");
    auto store = Store::open_or_create(path_, {});
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().message,
              path_ +
                  " is neither empty nor an ivmm store; a directory with files can be a lower "
                  "branch");
    store = Store::open(path_);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().message, path_ + " is not an ivmm store");
    store = Store::open(path_ + "/none");
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().message, path_ + "/none: No such file or directory");
    // The directories of a store without its STORE are one only if they are empty.
    fs::remove(path_ + "/file");
    fs::create_directories(path_ + "/layers/256");
    EXPECT_FALSE(Store::open_or_create(path_, {}));
    fs::remove(path_ + "/layers/256");
    dir_.file("store/.STORE.tmp", "half");
    EXPECT_TRUE(Store::open_or_create(path_, {}));
}

TEST_F(StoreTest, LowerBranchesAreKept) {
    make();
    const auto second = dir_.path() + "/second";
    fs::create_directory(second);
    fs::create_directory_symlink(lower_, dir_.path() + "/link");
    EXPECT_TRUE(Store::open_or_create(path_, {dir_.path() + "/link"}));
    auto store = Store::open_or_create(path_, {second, lower_});
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().message, fmt::format("{} is over other lower branches: {}; given were: "
                                                 "{}, {}",
                                                 path_, lower_, second, lower_));
    fs::remove(lower_);
    store = Store::open(path_);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().message, fmt::format("{}: cannot open the lower branch {}: No such "
                                                 "file or directory",
                                                 path_, lower_));
    store = Store::open_or_create(dir_.path() + "/odd", {dir_.path() + "/l\xff"});
    EXPECT_FALSE(store);
    fs::create_directory(dir_.path() + "/l\xff");
    store = Store::open_or_create(dir_.path() + "/odd", {dir_.path() + "/l\xff"});
    ASSERT_FALSE(store);
    EXPECT_NE(store.error().message.find("not UTF-8"), std::string::npos);
}

TEST_F(StoreTest, AViewIsMadeAndServedOnce) {
    const auto store = make();
    auto missing = store->attach("main", false);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().message, path_ + " has no view \"main\"");
    {
        const auto main = attach(*store, "main", true);
        EXPECT_EQ(numbers(main.stack), (std::vector<uint32_t>{256, 1}));
        EXPECT_EQ(main.lock.name(), "main");
        struct stat attributes {};
        ASSERT_EQ(::fstat(main.stack[0]->tree(), &attributes), 0);
        EXPECT_EQ(attributes.st_mode & 07777, 0755U);
        const auto again = open(path_)->attach("main", false);
        ASSERT_FALSE(again);
        EXPECT_EQ(again.error().message,
                  fmt::format("view \"main\" is in use by process {}", ::getpid()));
        EXPECT_FALSE(store->remove_view("main"));
        EXPECT_TRUE(store->views()->front().served);
    }
    EXPECT_FALSE(store->views()->front().served);
    EXPECT_EQ(store->views()->front().top, 256U);
    EXPECT_EQ(numbers(attach(*store, "main").stack), (std::vector<uint32_t>{256, 1}));
    for (const std::string& bad : {std::string(), std::string(".x"), std::string("a/b"),
                                   std::string(65, 'x'), std::string("ü")}) {
        EXPECT_FALSE(store->attach(bad, true)) << bad;
        EXPECT_FALSE(store->check_new_name(bad)) << bad;
    }
    EXPECT_EQ(store->check_new_name("main").error().message, "there is a view \"main\" already");
    EXPECT_TRUE(store->check_new_name("A.b_c-9"));
}

TEST_F(StoreTest, AnotherProcessHasItsViews) {
    make();
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        const auto store = Store::open(path_);
        const auto main = (*store)->attach("main", true);
        std::ignore = ::write(ready[1], main ? "y" : "n", 1);
        ::pause();
    }
    char answer = 0;
    ASSERT_EQ(::read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    const auto store = open(path_);
    const auto refused = store->attach("main", false);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message, fmt::format("view \"main\" is in use by process {}", child));
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    EXPECT_TRUE(store->attach("main", false));
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST_F(StoreTest, AForkGivesBothSidesLayersOfTheirOwn) {
    const auto store = make();
    auto main = attach(*store, "main", true);
    const auto prepared = store->prepare(main.lock, 3);
    ASSERT_TRUE(prepared);
    EXPECT_EQ(numbers(prepared->layers), (std::vector<uint32_t>{257, 258, 259}));
    EXPECT_EQ(numbers(store->prepare(main.lock, 2)->layers), (std::vector<uint32_t>{257, 258}));
    EXPECT_FALSE(main.stack[0]->frozen());
    auto locks = store->commit(main.lock, *prepared, {"one", "two"});
    ASSERT_TRUE(locks) << locks.error().message;
    EXPECT_TRUE(main.stack[0]->frozen());
    EXPECT_FALSE(main.stack[0]->sealed());
    ASSERT_EQ(locks->size(), 2U);
    EXPECT_EQ(locks->at(1).name(), "two");
    EXPECT_FALSE(store->attach("one", false));
    EXPECT_EQ(numbers(*store->stack(259)), (std::vector<uint32_t>{259, 256, 1}));
    EXPECT_EQ((*store->stack(259))[0], prepared->layers[2]);
    EXPECT_EQ((*store->stack(259))[1], main.stack[0]);

    ASSERT_TRUE(store->seal(*main.stack[0]));
    main.stack[0]->set_sealed({});
    EXPECT_EQ(store->manifests()->front().state, Manifest::State::kSealed);
    EXPECT_EQ(store->manifests()->front().generation, 1U);

    // A fork of a fork.
    auto three = fork(*store, locks->at(0), {"three"});
    EXPECT_EQ(numbers(*store->stack(store->views()->at(2).top)),
              (std::vector<uint32_t>{261, 258, 256, 1}));
    EXPECT_EQ(names(*store), (Views{"main", "one", "three", "two"}));
}

TEST_F(StoreTest, AForkThatFailsHasNotHappened) {
    const auto store = make();
    auto main = attach(*store, "main", true);
    attach(*store, "taken", true);
    const auto prepared = store->prepare(main.lock, 3);
    ASSERT_TRUE(prepared);
    for (const Views& bad : {Views{"one", "taken"}, Views{"one", "a/b"}, Views{"one", "one"},
                             Views{"one", "two", "three"}}) {
        ASSERT_FALSE(store->commit(main.lock, *prepared, bad));
        EXPECT_EQ(names(*store), (Views{"main", "taken"}));
        EXPECT_EQ(store->views()->front().top, 256U);
        EXPECT_FALSE(main.stack[0]->frozen());
        EXPECT_EQ(entries(path_ + "/locks"), (std::set<std::string>{"main", "taken"}));
    }
    // In the middle of the renames, and at the last one.
    for (const char* lost : {"260", "258"}) {
        const auto file = fmt::format("{}/views/.{}.next", path_, lost);
        fs::rename(file, file + "x");
        ASSERT_FALSE(store->commit(main.lock, *prepared, {"one", "two"}));
        EXPECT_EQ(names(*store), (Views{"main", "taken"}));
        fs::rename(file + "x", file);
    }
    EXPECT_TRUE(store->commit(main.lock, *prepared, {"one", "two"}));
    EXPECT_FALSE(store->commit(main.lock, *prepared, {"three"}));
}

TEST_F(StoreTest, WhatIsNotUsedOfAForkGoes) {
    const auto store = make();
    auto main = attach(*store, "main", true);
    const auto prepared = store->prepare(main.lock, 4);
    const auto locks = store->commit(main.lock, *prepared, {"one"});
    ASSERT_TRUE(locks);
    EXPECT_EQ(layers(*store), (std::vector<uint32_t>{256, 257, 258, 259, 260}));
    ASSERT_TRUE(store->prepare(main.lock, 1));
    EXPECT_EQ(layers(*store), (std::vector<uint32_t>{256, 257, 258, 261}));
    EXPECT_EQ(entries(path_ + "/views"), (std::set<std::string>{"main", "one", ".261.next"}));
}

TEST_F(StoreTest, RemovedViewsTakeTheirLayersAlong) {
    const auto store = make();
    {
        auto main = attach(*store, "main", true);
        auto one = std::move(fork(*store, main.lock, {"one"}).front());
        auto two = std::move(fork(*store, one, {"two"}).front());
        ASSERT_TRUE(store->prepare(two, 2));
    }
    // 256 < main 257; 256 < 258 < one 259, two 260 (and two spares over it).
    EXPECT_EQ(layers(*store).size(), 7U);
    ASSERT_TRUE(store->remove_view("two"));
    EXPECT_EQ(layers(*store), (std::vector<uint32_t>{256, 257, 258, 259}));
    ASSERT_TRUE(store->remove_view("one"));
    EXPECT_EQ(layers(*store), (std::vector<uint32_t>{256, 257}));
    EXPECT_EQ(store->remove_view("one").error().message, path_ + " has no view \"one\"");
    ASSERT_TRUE(store->remove_view("main"));
    EXPECT_EQ(entries(path_ + "/layers"), (std::set<std::string>{"NEXT"}));
    EXPECT_TRUE(entries(path_ + "/views").empty());
    EXPECT_TRUE(entries(path_ + "/locks").empty());
    // Numbers are not used again.
    EXPECT_EQ(attach(*store, "main", true).stack[0]->number(), 263U);
}

TEST_F(StoreTest, ACrashAnywhereInAForkIsSurvived) {
    auto store = make();
    std::vector<std::string> crashes;
    {
        auto main = attach(*store, "main", true);
        dir_.file("store/layers/256/tree/file", "written");
        dir_.file("store/layers/256/work/half", "unfinished");
        crashes.push_back(copy());
        const auto prepared = store->prepare(main.lock, 3);
        crashes.push_back(copy());
        // Of the renames, in order: none, one, two, all.
        crashes.push_back(copy());
        fs::rename(crashes.back() + "/views/.258.next", crashes.back() + "/views/one");
        crashes.push_back(copy());
        fs::rename(crashes.back() + "/views/.258.next", crashes.back() + "/views/one");
        fs::rename(crashes.back() + "/views/.259.next", crashes.back() + "/views/two");
        // And only the last, as a power failure may leave it.
        crashes.push_back(copy());
        fs::rename(crashes.back() + "/views/.257.next", crashes.back() + "/views/main");
        const auto locks = store->commit(main.lock, *prepared, {"one", "two"});
        crashes.push_back(copy());
        ASSERT_TRUE(store->seal(*main.stack[0]));
        crashes.push_back(copy());
    }
    for (const auto& crash : crashes) {
        SCOPED_TRACE(crash);
        check(crash);
        const auto again = open(crash);
        const auto main = attach(*again, "main");
        const auto has_file = [](const auto& layer) {
            return layer->number() == 256 && ::faccessat(layer->tree(), "file", F_OK, 0) == 0;
        };
        EXPECT_TRUE(std::ranges::any_of(main.stack, has_file));
    }
    // With a child in use, the view does not go on in its old layer.
    EXPECT_EQ(attach(*open(crashes[2]), "main").stack.size(), 3U);
    EXPECT_EQ(attach(*open(crashes[1]), "main").stack.size(), 2U);
}

TEST_F(StoreTest, ASpareWithFilesIsNotUsedAgain) {
    const auto store = make();
    {
        auto main = attach(*store, "main", true);
        ASSERT_TRUE(store->prepare(main.lock, 2));
    }
    // As if the rename of a fork had been lost in a power failure, but not a file written since.
    dir_.file("store/layers/257/tree/later");
    const auto store2 = open(path_);  // beside the first: no garbage collection
    auto main = attach(*store2, "main");
    EXPECT_EQ(layers(*store2), (std::vector<uint32_t>{256}));
    EXPECT_EQ(numbers(store2->prepare(main.lock, 1)->layers), (std::vector<uint32_t>{259}));
}

TEST_F(StoreTest, ACrashAnywhereInARemovalIsSurvived) {
    const auto store = make();
    std::vector<std::string> crashes;
    {
        auto main = attach(*store, "main", true);
        auto one = std::move(fork(*store, main.lock, {"one"}).front());
        auto two = fork(*store, one, {"two"});
    }
    const auto before = copy();
    ASSERT_TRUE(store->remove_view("two"));
    crashes.push_back(before);
    crashes.push_back(copy());
    for (int renamed = 0; renamed < 2; ++renamed) {
        crashes.push_back(fmt::format("{}/partial{}", dir_.path(), renamed));
        ASSERT_EQ(std::system(fmt::format("cp -a {} {}", before, crashes.back()).c_str()), 0);
        fs::remove(crashes.back() + "/views/two");
        if (renamed == 1) {
            fs::rename(crashes.back() + "/layers/260", crashes.back() + "/layers/.260.dead");
            fs::remove_all(crashes.back() + "/layers/.260.dead/tree");
        }
    }
    for (const auto& crash : crashes) {
        SCOPED_TRACE(crash);
        check(crash);
    }
}

TEST_F(StoreTest, UnfinishedLayersAreGarbage) {
    make();
    fs::create_directories(path_ + "/layers/.300.new/tree/deep/er");
    fs::create_directories(path_ + "/layers/.301.dead/tree");
    dir_.file("store/views/.main.tmp");
    dir_.file("store/locks/old");
    const auto held = open(path_);
    EXPECT_TRUE(entries(path_ + "/layers").empty());
    EXPECT_TRUE(entries(path_ + "/views").empty());
    EXPECT_TRUE(entries(path_ + "/locks").empty());
    // Not while somebody else has the store open: it may be in the middle of something.
    fs::create_directories(path_ + "/layers/.302.new");
    open(path_);
    EXPECT_EQ(entries(path_ + "/layers"), (std::set<std::string>{".302.new"}));
}

TEST_F(StoreTest, AnUnsealedLayerOfAnotherIsWaitedFor) {
    const auto store = make();
    auto main = attach(*store, "main", true);
    { const auto one = fork(*store, main.lock, {"one"}); }
    // As another process would: the frozen layer is still in the first one's memory.
    const auto other = open(path_);
    const auto refused = other->attach("one", false);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("layer 256 is still being written"), std::string::npos);
    ASSERT_TRUE(store->seal(*main.stack[0]));
    main.stack[0]->set_sealed({});
    EXPECT_TRUE(other->attach("one", false));
}

TEST_F(StoreTest, DamageIsSeenAndNamed) {
    {
        const auto store = make();
        auto main = attach(*store, "main", true);
        const auto one = fork(*store, main.lock, {"one"});
    }
    // What stops when this file is damaged.
    const auto use = [this]() -> Result<void> {
        IVMM_ASSIGN(const auto store, Store::open(path_));
        IVMM_ASSIGN(const auto main, store->attach("main", false));
        IVMM_TRY(store->prepare(main.lock, 1));
        return {};
    };
    for (const std::string& file : {std::string("STORE"), std::string("layers/257/MANIFEST"),
                                    std::string("views/main"), std::string("layers/NEXT")}) {
        std::ifstream in(path_ + "/" + file);
        const std::string good{std::istreambuf_iterator<char>(in), {}};
        auto flipped = good;
        flipped[good.size() / 2] ^= 1;
        for (const auto& bad : {std::string(), good.substr(0, good.size() - 1), good + "x", flipped,
                                std::string(kMaxRecordSize + 1, ' ')}) {
            std::ofstream(path_ + "/" + file) << bad;
            const auto used = use();
            ASSERT_FALSE(used) << file;
            EXPECT_TRUE(used.error().message.starts_with(path_ + "/" + file + ": "))
                << used.error().message;
            if (bad.size() < kMaxRecordSize) {
                EXPECT_NE(used.error().message.find("ivmm overlay check"), std::string::npos);
            }
        }
        std::ofstream(path_ + "/" + file) << good;
    }
    EXPECT_TRUE(fs::exists(path_ + "/layers/258")) << "deleted in spite of damage";
    const auto used = use();
    EXPECT_TRUE(used) << used.error().message;
}

TEST_F(StoreTest, DamageOfOneViewIsKeptToIt) {
    const auto store = make();
    {
        auto main = attach(*store, "main", true);
        const auto one = fork(*store, main.lock, {"one"});
    }
    const auto crash = copy();
    std::ofstream(crash + "/views/one") << "what?";
    const auto opened = open(crash);
    EXPECT_FALSE(opened->attach("one", false));
    // Whether it needs a child of main's layer cannot be known, so that one is not written.
    EXPECT_EQ(numbers(attach(*opened, "main").stack), (std::vector<uint32_t>{259, 257, 256, 1}));
    EXPECT_TRUE(opened->remove_view("one"));
    EXPECT_TRUE(fs::exists(crash + "/layers/258"));
}

TEST_F(StoreTest, AMissingLayerIsDamage) {
    const auto store = make();
    {
        auto main = attach(*store, "main", true);
        const auto one = fork(*store, main.lock, {"one"});
        const auto two = fork(*store, main.lock, {"two"});
    }
    const auto crash = copy();
    fs::remove_all(crash + "/layers/257");
    const auto opened = open(crash);
    EXPECT_TRUE(fs::exists(crash + "/layers/256"));
    const auto main = opened->attach("main", false);
    ASSERT_FALSE(main);
    EXPECT_NE(main.error().message.find("/layers/257/MANIFEST: No such file"), std::string::npos)
        << main.error().message;
    EXPECT_TRUE(opened->attach("one", false));
    const auto manifests = opened->manifests();
    ASSERT_FALSE(manifests);
    EXPECT_NE(manifests.error().message.find("layer 257 is missing"), std::string::npos);
}

TEST_F(StoreTest, ANewerStoreIsRefused) {
    make();
    std::ofstream(path_ + "/STORE") << encode_record("ivmm-store", 2, nlohmann::json::object());
    const auto store = Store::open(path_);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().message, path_ + "/STORE: format version 2; this ivmm reads version 1");
    EXPECT_EQ(store.error().kind, ErrorKind::kHost);
}

/// In the child: forks views of main for ever; tells of each fork in the pipe, and seals some.
[[noreturn]] void fork_for_ever(const std::string& path, int pipe, int round) {
    const auto store = Store::open(path);
    auto main = store ? (*store)->attach("main", true) : fail("");
    for (uint32_t i = 0; main; ++i) {
        const auto name = fmt::format("c{}-{}", round, i);
        const auto prepared = (*store)->prepare(main->lock, 2);
        const auto former = *(*store)->stack(prepared->parent);
        if (!prepared || !(*store)->commit(main->lock, *prepared, {name}) ||
            ::write(pipe, (name + "\n").c_str(), name.size() + 1) < 0) {
            break;
        }
        if (i % 2 == 0 && (*store)->seal(*former.front())) {
            former.front()->set_sealed({});
        }
        if (i % 3 == 2) {
            std::ignore = (*store)->remove_view(fmt::format("c{}-{}", round, i - 2));
        }
    }
    ::_exit(1);
}

class StoreKilled : public StoreTest, public testing::WithParamInterface<int> {};

/// Several tests, for none of them takes long.
TEST_P(StoreKilled, LosesNoForkThatWasReported) {
    make();
    const auto seed = std::random_device{}();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    for (int round = 0; round < 5; ++round) {
        int told[2];
        ASSERT_EQ(::pipe2(told, O_CLOEXEC), 0);
        const pid_t child = ::fork();
        if (child == 0) {
            fork_for_ever(path_, told[1], round);
        }
        ::close(told[1]);
        // A moment some time after a number of forks.
        std::string text;
        const auto wanted = std::uniform_int_distribution<ptrdiff_t>(0, 3)(random);
        for (char byte = 0; std::ranges::count(text, '\n') < wanted;) {
            ASSERT_EQ(::read(told[0], &byte, 1), 1) << "the child has failed";
            text += byte;
        }
        ::usleep(std::uniform_int_distribution<useconds_t>(0, 20'000)(random));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status)) << "the child has failed";
        char piece[4096];
        for (ssize_t n = 0; (n = ::read(told[0], piece, sizeof(piece))) > 0;) {
            text.append(piece, static_cast<size_t>(n));
        }
        ::close(told[0]);
        const auto reported = static_cast<uint32_t>(std::ranges::count(text, '\n'));
        check(path_);
        const auto views = names(*open(path_));
        for (uint32_t i = 0; i < reported; ++i) {
            // The child may have removed it, after two more forks.
            if (i % 3 != 0 || i + 2 >= reported) {
                const auto name = fmt::format("c{}-{}", round, i);
                EXPECT_TRUE(std::ranges::count(views, name) || (i % 3 == 0 && i + 2 == reported))
                    << name;
            }
        }
        // So that the store stays small.
        const auto store = open(path_);
        for (const auto& name : views) {
            ASSERT_TRUE(store->remove_view(name));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Rounds, StoreKilled, testing::Range(0, 10));

/// The part of a fork that stops a view: no file may be synced in it.
TEST_F(StoreTest, ACommitSyncsNothing) {
    const auto store = make();
    auto main = attach(*store, "main", true);
    std::vector<double> us;
    for (int i = 0; i < 10; ++i) {
        const auto prepared = store->prepare(main.lock, 2);
        const auto start = std::chrono::steady_clock::now();
        ASSERT_TRUE(store->commit(main.lock, *prepared, {fmt::format("c{}", i)}));
        us.push_back(
            std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
                .count());
    }
    std::ranges::sort(us);
    fmt::print("commit: median {:.0f} us, largest {:.0f} us\n", us[us.size() / 2], us.back());
}

}  // namespace
}  // namespace ivmm::storage
