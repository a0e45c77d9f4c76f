#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>

#include "storage/layer/marks.h"
#include "tests/storage/mounts.h"
#include "tests/storage/operations.h"
#include "tests/storage/random.h"
#include "tests/storage/server_process.h"
#include "tests/storage/tree.h"
#include "tests/support/temp_dir.h"

/// The kernel's overlayfs is the oracle: the same operations, one by one, on two unions of the same
/// branches must give the same answers and the same trees. IVMM_OPERATIONS says how many;
/// IVMM_COMPARE_EVERY=1 finds the operation after which the trees first differ.
///
/// What is known to be different and left out:
///
/// | what | why |
/// |---|---|
/// | writing to hard links of a lower file | overlayfs (index=off) parts them, we keep them
/// together | | a file opened read-only before it is copied up | overlayfs goes on showing the
/// lower file | | opening devices | our mount may be nodev | | set-group-ID without group execution
/// | the kernel's FUSE keeps it when another user writes | | renaming a directory whose lower path
/// is long | overlayfs allows 256 bytes, we any length | | SEEK_END of a directory | the kernel's
/// FUSE answers it, overlayfs refuses | | times of what was changed during the test | each side has
/// its own "now" | | sizes and link counts of directories | depend on the file system below |
namespace ivmm::test {
namespace {

constexpr size_t kBranches = 3;

class OracleTest : public ::testing::Test {
 protected:
    void SetUp() override {
        if (const std::string why = why_no_mounts(); !why.empty()) {
            GTEST_SKIP() << why;
        }
    }

    /// One side's folders: its own copies of the branches, a mount point, and room for the upper.
    struct Folders {
        std::string root;
        std::vector<std::string> branches;
        std::string mountpoint() const { return root + "/mnt"; }
        std::string upper() const { return root + "/upper"; }
        std::string work() const { return root + "/work"; }
    };
    Folders make_folders(const std::string& name, uint64_t seed) {
        Folders folders{dir_.path() + "/" + name, {}};
        std::filesystem::create_directory(folders.root);
        for (const auto& folder : {folders.mountpoint(), folders.upper(), folders.work()}) {
            std::filesystem::create_directory(folder);
        }
        for (size_t i = 0; i < kBranches; ++i) {
            folders.branches.push_back(folders.root + "/lower" + std::to_string(i));
            std::filesystem::create_directory(folders.branches.back());
        }
        make_branches(folders.branches, seed);
        return folders;
    }

    /// The operations, for whoever has to find out what went wrong.
    class History {
     public:
        void add(uint64_t number, const Operation& operation, const Outcome& expected) {
            std::string line = fmt::format("{:6} {} -> {}", number, describe(operation),
                                           describe(expected).substr(0, 60));
            auto& opened = opened_.at(static_cast<size_t>(operation.slot));
            if (operation.what == Do::kOpen) {
                opened = expected.error == 0 ? "  (" + printable(operation.path) + ")" : "";
            } else if (operation.what >= Do::kRead) {
                line += opened;
            }
            lines_.push_back(std::move(line));
        }
        /// The last ones, or those with the names of the files that are wrong.
        std::string show(const std::vector<std::string>& paths = {}) const {
            constexpr size_t kShown = 40;
            std::deque<std::string> chosen;
            for (const auto& line : lines_) {
                const bool fits = std::any_of(paths.begin(), paths.end(), [&](const auto& path) {
                    return line.find(path.substr(path.rfind('/') + 1)) != std::string::npos;
                });
                if (fits || paths.empty()) {
                    chosen.push_back(line);
                }
                if (chosen.size() > kShown) {
                    chosen.pop_front();
                }
            }
            std::string text = "operations:\n";
            for (const auto& line : chosen) {
                text += line + "\n";
            }
            return text;
        }

     private:
        std::vector<std::string> lines_;
        std::array<std::string, Side::kSlots> opened_;
    };

    /// Compares a mounted tree with what it should be; says how it differs, and by which
    /// operations.
    void expect_same(
        const Tree& expected, const std::string& actual_root, const std::string& when,
        const std::function<bool(const std::string&)>& skip = [](const std::string&) {
            return false;
        }) {
        std::vector<std::string> problems;
        const Tree actual = take_down(actual_root, problems);
        std::vector<std::string> paths;
        for (const auto& line : differences(expected, actual, skip)) {
            problems.push_back(line);
            paths.push_back(line.substr(1, line.find("': ") - 1));
        }
        for (const auto& line : problems) {
            ADD_FAILURE() << when << ": " << line;
        }
        if (!problems.empty()) {
            FAIL() << history_.show(paths);
        }
    }

    static Tree tree_of(const std::string& root) {
        std::vector<std::string> problems;
        Tree tree = take_down(root, problems);
        for (const auto& line : problems) {
            ADD_FAILURE() << "the oracle itself: " << line;
        }
        return tree;
    }

    static std::vector<std::string> paths_of(const Tree& tree) {
        std::vector<std::string> paths;
        for (const auto& [path, entry] : tree) {
            if (!path.empty()) {
                paths.push_back(path);
            }
        }
        return paths;
    }

    /// Does the same operations on both mounts. `before` is called before each.
    void compare(
        Random& random, const std::string& theirs, const std::string& ours, uint64_t operations,
        const std::function<void(uint64_t)>& before = [](uint64_t) {}) {
        Tree tree = tree_of(theirs);
        ASSERT_NO_FATAL_FAILURE(expect_same(tree, ours, "before any change"));
        OperationMaker maker(random, paths_of(tree));
        Side oracle(theirs);
        Side tested(ours);
        const uint64_t between_comparisons = amount("IVMM_COMPARE_EVERY", 400);
        for (uint64_t i = 1; i <= operations; ++i) {
            before(i);
            const Operation operation = maker.next();
            const Outcome expected = oracle.run(operation);
            if (operation.what == Do::kRename && expected.error == EXDEV) {
                continue;
            }
            // A block file can do what the file system below it cannot (on tmpfs: zeroes in a
            // range).
            if (operation.what == Do::kFallocate && expected.error == EOPNOTSUPP &&
                (operation.flags & FALLOC_FL_ZERO_RANGE) != 0) {
                continue;
            }
            const Outcome actual = tested.run(operation);
            history_.add(i, operation, expected);
            if (expected != actual) {
                FAIL() << history_.show() << "operation " << i << ": " << describe(operation)
                       << "\n overlayfs: " << describe(expected)
                       << "\n ours:      " << describe(actual);
            }
            if (i % between_comparisons == 0 || i == operations) {
                tree = tree_of(theirs);
                ASSERT_NO_FATAL_FAILURE(
                    expect_same(tree, ours, "after operation " + std::to_string(i)));
                maker.set_paths(paths_of(tree));
            }
        }
        oracle.close_all();
        tested.close_all();
    }

    TempDir dir_;
    History history_;
};

TEST_F(OracleTest, AnswersAsOverlayfsDoes) {
    const uint64_t seed = random_seed();
    Random random(seed);
    const Folders theirs = make_folders("kernel", seed);
    const Folders ours = make_folders("ours", seed);
    ::umask(0);  // modes are what the operations say
    auto kernel =
        Mount::overlayfs(theirs.mountpoint(), theirs.branches, theirs.upper(), theirs.work());
    ASSERT_TRUE(kernel) << kernel.error().message;
    const std::string store = ours.root + "/store";
    auto server = ServerProcess::start(
        {.store = store, .lower = ours.branches, .mountpoint = ours.mountpoint()});
    ASSERT_TRUE(server) << server.error().message;

    ASSERT_NO_FATAL_FAILURE(
        compare(random, theirs.mountpoint(), ours.mountpoint(), amount("IVMM_OPERATIONS", 6000)));
    const Tree tree = tree_of(theirs.mountpoint());

    // Mounted again, it is the same.
    const auto top = server->top_layer("main");
    ASSERT_TRUE(top) << top.error().message;
    ASSERT_TRUE(server->stop());
    {
        auto again = ServerProcess::start({.store = store, .mountpoint = ours.mountpoint()});
        ASSERT_TRUE(again) << again.error().message;
        expect_same(tree, ours.mountpoint(), "mounted again");
        const auto stopped = again->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }

    // The kernel reads our layer, but for what is made of blocks.
    const std::string layer = fmt::format("{}/layers/{}/tree", store, *top);
    std::vector<std::string> stack{layer};
    stack.insert(stack.end(), ours.branches.begin(), ours.branches.end());
    {
        const auto read = Mount::overlayfs(ours.mountpoint(), stack, "", "");
        ASSERT_TRUE(read) << read.error().message;
        const storage::Marks marks(storage::MarkStyle::kTrusted);
        const UniqueFd top_tree(::open(layer.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        expect_same(
            tree, ours.mountpoint(), "our layer, read by overlayfs", [&](const std::string& path) {
                const auto part =
                    marks.block_part({top_tree.get(), path.c_str() + (path.empty() ? 0 : 1)});
                return part && part->has_value();
            });
    }

    // And we read the kernel's.
    ASSERT_TRUE(kernel->unmount());
    stack = {theirs.upper()};
    stack.insert(stack.end(), theirs.branches.begin(), theirs.branches.end());
    auto reader = ServerProcess::start({.lower = stack, .mountpoint = ours.mountpoint()});
    ASSERT_TRUE(reader) << reader.error().message;
    expect_same(tree, ours.mountpoint(), "overlayfs's upper, read by us");
}

/// Files that are open go on meanwhile, as do names and links that later layers refer to.
TEST_F(OracleTest, AnswersAsOverlayfsDoesWhileItsLayersAreMerged) {
    const uint64_t seed = random_seed();
    Random random(seed);
    const Folders theirs = make_folders("kernel", seed);
    const Folders ours = make_folders("ours", seed);
    ::umask(0);
    auto kernel =
        Mount::overlayfs(theirs.mountpoint(), theirs.branches, theirs.upper(), theirs.work());
    ASSERT_TRUE(kernel) << kernel.error().message;
    const std::string store = ours.root + "/store";
    auto server = ServerProcess::start(
        {.store = store, .lower = ours.branches, .mountpoint = ours.mountpoint()});
    ASSERT_TRUE(server) << server.error().message;
    uint32_t merged = 0;
    bool at_work = false;
    Random when(seed + 1);
    const auto before = [&](uint64_t i) {
        if (!when.one_in(40)) {
            return;
        }
        if (at_work && when.one_in(2)) {
            const auto layers = server->flattened();
            ASSERT_TRUE(layers) << layers.error().message;
            merged += *layers;
            at_work = false;
        }
        if (!at_work && when.one_in(3)) {
            ASSERT_TRUE(server->flatten("main"));
            at_work = true;
        } else {
            const std::string fork = "fork" + std::to_string(i);
            const auto forked = server->fork("main", {{fork, ""}});
            ASSERT_TRUE(forked && server->remove_view(fork)) << i;
        }
    };
    ASSERT_NO_FATAL_FAILURE(compare(random, theirs.mountpoint(), ours.mountpoint(),
                                    amount("IVMM_OPERATIONS", 1500), before));
    if (at_work) {
        const auto layers = server->flattened();
        ASSERT_TRUE(layers) << layers.error().message;
        merged += *layers;
    }
    // Where few operations are done, chance may have left nothing to merge, or nothing sealed yet.
    for (int patience = 0; merged == 0 && patience < 100; ++patience) {
        const std::string fork = "last" + std::to_string(patience);
        ASSERT_TRUE(server->fork("main", {{fork, ""}}) && server->remove_view(fork));
        ASSERT_TRUE(server->flatten("main"));
        const auto layers = server->flattened();
        ASSERT_TRUE(layers) << layers.error().message;
        merged += *layers;
    }
    EXPECT_GT(merged, 0U);
    const Tree tree = tree_of(theirs.mountpoint());
    ASSERT_TRUE(server->stop());
    auto again = ServerProcess::start({.store = store, .mountpoint = ours.mountpoint()});
    ASSERT_TRUE(again) << again.error().message;
    expect_same(tree, ours.mountpoint(), "mounted again");
}

TEST_F(OracleTest, TheRootLooksAsTheTopmostBranchDoes) {
    const std::string lower = dir_.path() + "/lower";
    const std::string mountpoint = dir_.path() + "/mnt";
    const std::string clone = dir_.path() + "/clone";
    for (const auto& folder : {lower, mountpoint, clone}) {
        std::filesystem::create_directory(folder);
    }
    ASSERT_EQ(::chown(lower.c_str(), 1000, 1001), 0);
    ASSERT_EQ(::chmod(lower.c_str(), 01775), 0);
    ASSERT_EQ(::setxattr(lower.c_str(), "user.root", "x", 1, 0), 0);
    auto server = ServerProcess::start(
        {.store = dir_.path() + "/store", .lower = {lower}, .mountpoint = mountpoint});
    ASSERT_TRUE(server) << server.error().message;
    expect_same(tree_of(lower), mountpoint, "a new store");
    ASSERT_EQ(::chmod(mountpoint.c_str(), 0711), 0);
    ASSERT_EQ(::setxattr(mountpoint.c_str(), "user.root", "y", 1, 0), 0);
    const auto forked = server->fork("main", {{"clone", clone}});
    ASSERT_TRUE(forked) << forked.error().message;
    expect_same(tree_of(mountpoint), clone, "a clone");
    struct stat status {};
    ASSERT_EQ(::stat(mountpoint.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0711U);
}

}  // namespace
}  // namespace ivmm::test
