#include <gtest/gtest.h>

#include <filesystem>
#include <list>
#include <memory>
#include <thread>

#include "tests/storage/load.h"
#include "tests/storage/mounts.h"
#include "tests/storage/random.h"
#include "tests/storage/server_process.h"
#include "tests/support/temp_dir.h"

/// What a fork promises, under load: what was done before it is in the clone, what was done after
/// it is not, and neither side ever sees the other's later changes.
namespace ivmm::test {
namespace {

constexpr size_t kFolders = 3;

class ForkTest : public ::testing::Test {
 protected:
    struct View {
        std::string name;
        std::string mountpoint;
        std::vector<FolderState> folders;              ///< when nobody writes
        std::vector<std::unique_ptr<Writer>> writers;  ///< or these know
    };

    void SetUp() override {
        if (const std::string why = why_no_mounts(); !why.empty()) {
            GTEST_SKIP() << why;
        }
        std::filesystem::create_directory(lower_);
        View& main = add_view("main");
        for (size_t i = 0; i < kFolders; ++i) {
            main.folders.push_back(make_folder(folder(lower_, i)));
            ASSERT_FALSE(main.folders.back().empty());
        }
        auto server = ServerProcess::start(
            {.store = store_, .lower = {lower_}, .mountpoint = main.mountpoint});
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
    }

    static std::string folder(const std::string& root, size_t i) {
        return root + "/folder" + std::to_string(i);
    }
    View& add_view(const std::string& name) {
        views_.push_back({name, dir_.path() + "/mnt-" + name, {}, {}});
        std::filesystem::create_directory(views_.back().mountpoint);
        return views_.back();
    }
    void start_writers(View& view) {
        for (size_t i = 0; i < view.folders.size(); ++i) {
            view.writers.push_back(std::make_unique<Writer>(folder(view.mountpoint, i),
                                                            view.folders[i], random_.number()));
        }
    }
    static void stop_writers(View& view) {
        for (size_t i = 0; i < view.writers.size(); ++i) {
            view.writers[i]->stop();
            EXPECT_EQ(view.writers[i]->problem(), "") << "view " << view.name;
            view.folders[i] = view.writers[i]->state();
        }
        view.writers.clear();
    }
    /// Until every writer of a view has done some more, or has failed.
    void let_run(const View& view, uint64_t most) {
        for (const auto& writer : view.writers) {
            const uint64_t end = writer->changes() + random_.below(most);
            for (int patience = 0; writer->changes() < end && patience < 100'000; ++patience) {
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            }
        }
    }

    /// Forks a view with writers; finds what its clones are.
    void fork(View& view, const std::vector<std::string>& names) {
        std::vector<NewView> targets;
        std::vector<View*> clones;
        for (const auto& name : names) {
            clones.push_back(&add_view(name));
            targets.push_back({name, clones.back()->mountpoint});
        }
        const uint64_t before = now();
        const auto pause = server_.fork(view.name, targets);
        const uint64_t after = now();
        ASSERT_TRUE(pause) << pause.error().message;
        slowest_us_ = std::max(slowest_us_, *pause);
        for (View* clone : clones) {
            uint64_t last_in = 0;
            uint64_t first_out = UINT64_MAX;
            for (size_t i = 0; i < view.writers.size(); ++i) {
                auto cut = view.writers[i]->find_cut(folder(clone->mountpoint, i), before, after);
                ASSERT_EQ(cut.problem, "") << "fork of " << view.name << " to " << clone->name;
                clone->folders.push_back(std::move(cut.state));
                last_in = std::max(last_in, cut.last_in_begun);
                first_out = std::min(first_out, cut.first_out_ended);
            }
            // One instant for all writers: nothing in it began after something left out had ended.
            EXPECT_GT(first_out, last_in) << clone->name << " is not of one instant";
        }
    }

    void check(const View& view, const std::string& when) {
        for (size_t i = 0; i < view.folders.size(); ++i) {
            EXPECT_EQ(difference(view.folders[i], folder(view.mountpoint, i)), "")
                << "view " << view.name << ", folder " << i << ", " << when;
        }
    }
    void stop_and_check_all() {
        for (auto& view : views_) {
            stop_writers(view);
        }
        for (const auto& view : views_) {
            check(view, "at the end");
        }
    }
    void mount_again_and_check_all() {
        const auto stopped = server_.stop();
        ASSERT_TRUE(stopped) << stopped.error().message;
        auto server =
            ServerProcess::start({.store = store_, .mountpoint = views_.front().mountpoint});
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
        for (const auto& view : views_) {
            if (&view != &views_.front()) {
                const auto mounted = server_.mount({view.name, view.mountpoint});
                ASSERT_TRUE(mounted) << mounted.error().message;
            }
            check(view, "mounted again");
        }
    }

    TempDir dir_;
    const std::string lower_ = dir_.path() + "/lower";
    const std::string store_ = dir_.path() + "/store";
    std::list<View> views_;
    ServerProcess server_;
    Random random_{random_seed()};
    double slowest_us_ = 0;
};

TEST_F(ForkTest, IsOneInstantForAllWriters) {
    start_writers(views_.front());
    let_run(views_.front(), 300);
    ASSERT_NO_FATAL_FAILURE(fork(views_.front(), {"a", "b", "c", "d", "e"}));
    const uint64_t forks = amount("IVMM_FORKS", 12);
    size_t active = 1;
    for (uint64_t i = 0; i < forks; ++i) {
        View& view =
            *std::next(views_.begin(), static_cast<ptrdiff_t>(random_.below(views_.size())));
        if (view.writers.empty() && active < 3) {
            ++active;
            start_writers(view);
        }
        View& forked = view.writers.empty() ? views_.front() : view;
        let_run(forked, 200);
        ASSERT_NO_FATAL_FAILURE(fork(forked, {"f" + std::to_string(i)}));
    }
    stop_and_check_all();
    RecordProperty("slowest_fork_us", std::to_string(slowest_us_));
    ASSERT_NO_FATAL_FAILURE(mount_again_and_check_all());
}

TEST_F(ForkTest, CanBeDoneAHundredTimes) {
    const uint64_t forks = amount("IVMM_FORKS", 100);
    View& main = views_.front();
    for (uint64_t i = 0; i < forks; ++i) {
        start_writers(main);
        let_run(main, 10);
        const bool mounted = i % 20 == 0;
        if (mounted) {
            ASSERT_NO_FATAL_FAILURE(fork(main, {"h" + std::to_string(i)}));
        }
        stop_writers(main);
        if (!mounted) {
            const auto done = server_.fork("main", {{"h" + std::to_string(i), ""}});
            ASSERT_TRUE(done) << done.error().message;
            if (i % 20 == 7) {
                View& view = add_view("h" + std::to_string(i));
                view.folders = main.folders;
                const auto later = server_.mount({view.name, view.mountpoint});
                ASSERT_TRUE(later) << later.error().message;
            }
        }
    }
    stop_and_check_all();
    ASSERT_NO_FATAL_FAILURE(mount_again_and_check_all());
}

TEST_F(ForkTest, ViewsCanBeDeleted) {
    View& main = views_.front();
    start_writers(main);
    for (int i = 0; i < 4; ++i) {
        let_run(main, 100);
        ASSERT_NO_FATAL_FAILURE(fork(main, {"v" + std::to_string(i)}));
    }
    for (const auto* name : {"v1", "v3"}) {
        ASSERT_FALSE(server_.remove_view(name)) << "removed while it was mounted";
        const auto unmounted = server_.unmount(name);
        ASSERT_TRUE(unmounted) << unmounted.error().message;
        const auto removed = server_.remove_view(name);
        ASSERT_TRUE(removed) << removed.error().message;
        views_.remove_if([&](const View& view) { return view.name == name; });
        ASSERT_FALSE(server_.mount({name, dir_.path()}));
    }
    let_run(main, 100);
    stop_and_check_all();
    ASSERT_NO_FATAL_FAILURE(mount_again_and_check_all());
}

}  // namespace
}  // namespace ivmm::test
