#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <thread>

#include "base/unique_fd.h"
#include "tests/storage/durability.h"
#include "tests/storage/mounts.h"
#include "tests/storage/random.h"
#include "tests/storage/server_process.h"
#include "tests/support/temp_dir.h"

/// Whenever the server is killed, or the power fails under it: what was flushed is there, and
/// nothing is there that was never written.
namespace ivmm::test {
namespace {

constexpr size_t kFolders = 2;  // a thread each
constexpr size_t kMostViews = 4;
constexpr uint64_t kMostOperations = 120;

class CrashTest : public ::testing::Test {
 protected:
    struct View {
        std::string mountpoint;
        std::vector<DurableFolder> folders;
        bool must_exist = true;
        std::array<bool, kFolders> synced{};  ///< by each thread, since the last crash
    };

    void SetUp() override {
        if (const std::string why = why_no_mounts(); !why.empty()) {
            GTEST_SKIP() << why;
        }
        std::filesystem::create_directory(lower_);
        for (size_t i = 0; i < kFolders; ++i) {
            fresh_.push_back(make_durable_folder(folder(lower_, i), 1 + i * 100));
            ASSERT_FALSE(fresh_.back().files.empty());
        }
    }

    static std::string folder(const std::string& root, size_t i) {
        return root + "/folder" + std::to_string(i);
    }
    std::string mountpoint_of(const std::string& view) {
        std::string path = dir_.path() + "/mnt-" + view;
        std::filesystem::create_directory(path);
        return path;
    }

    /// Serves all views that the model knows; those that need not exist may turn out not to.
    void start() {
        View& main = views_.at("main");
        auto server = ServerProcess::start(
            {.store = store_, .lower = {lower_}, .mountpoint = main.mountpoint});
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
        for (auto view = views_.begin(); view != views_.end();) {
            const auto mounted = view->first == "main"
                                     ? Result<void>()
                                     : server_.mount({view->first, view->second.mountpoint});
            EXPECT_TRUE(mounted || !view->second.must_exist)
                << view->first << ": " << mounted.error().message;
            view = mounted ? std::next(view) : views_.erase(view);
        }
    }

    void check(const std::string& when) {
        for (auto& [name, view] : views_) {
            for (size_t i = 0; i < kFolders; ++i) {
                for (const auto& line :
                     check_after_crash(view.folders[i], folder(view.mountpoint, i))) {
                    ADD_FAILURE() << "view " << name << ", folder " << i << ", " << when << ": "
                                  << line;
                }
            }
        }
    }

    /// One thread's load: its folder of any view. The views do not change while it holds `views`.
    void write(size_t index, uint64_t seed) {
        Random random(seed);
        DurableWriter writer(random, numbers_[index], stop_);
        while (!stop_) {
            const std::shared_lock views(mutex_);
            auto& [name, view] =
                *std::next(views_.begin(), static_cast<ptrdiff_t>(random.below(views_.size())));
            const auto outcome = writer.step(view.folders[index], folder(view.mountpoint, index));
            if (outcome == DurableWriter::Outcome::kFailed) {
                const int error = errno;
                EXPECT_TRUE(stop_) << "before any crash: " << error_text(error);
                return;
            }
            if (outcome == DurableWriter::Outcome::kSynced) {
                view.synced[index] = true;
            }
            ++operations_;
        }
    }

    /// Forks any view, so that the clone's model is the same.
    void fork(Random& random) {
        const std::unique_lock views(mutex_);
        const auto source =
            std::next(views_.begin(), static_cast<ptrdiff_t>(random.below(views_.size())));
        const std::string name = "v" + std::to_string(++forks_);
        View clone = source->second;
        clone.mountpoint = mountpoint_of(name);
        clone.must_exist = false;  // until it is acknowledged
        clone.synced = {};
        const auto done = server_.fork(source->first, {{name, clone.mountpoint}});
        EXPECT_TRUE(done || stop_) << done.error().message;
        clone.must_exist = done && !forks_need_sync_;
        views_[name] = std::move(clone);
        if (!done) {
            stop_ = true;
        }
    }

    /// Merges the layers of any view, in the background; sometimes it has an end.
    void flatten(Random& random) {
        const auto view =
            std::next(views_.begin(), static_cast<ptrdiff_t>(random.below(views_.size())));
        const auto begun = server_.flatten(view->first);
        EXPECT_TRUE(begun) << begun.error().message;
        if (random.one_in(4)) {
            const auto merged = server_.flattened();
            EXPECT_TRUE(merged) << merged.error().message;
            merged_ += merged ? *merged : 0;
        }
    }

    /// Runs load and forks until a random moment, then `crash`.
    template <class Crash>
    void run_until_crash(Random& random, const Crash& crash) {
        stop_ = false;
        operations_ = 0;
        std::vector<std::jthread> threads;
        for (size_t i = 0; i < kFolders; ++i) {
            threads.emplace_back([this, i, seed = random.number()] { write(i, seed); });
        }
        const uint64_t end = 1 + random.below(kMostOperations);
        const uint64_t fork_at = random.below(2 * end);
        uint64_t flatten_at = random.below(2 * end);
        while (operations_ < end && !HasFailure()) {
            if (operations_ >= flatten_at) {
                flatten_at = UINT64_MAX;
                flatten(random);
            }
            if (operations_ >= fork_at && forks_this_time_ == 0 && views_.size() < kMostViews) {
                ++forks_this_time_;
                if (random.one_in(3)) {  // the crash may hit the fork
                    threads.emplace_back([this, seed = random.number()] {
                        Random own(seed);
                        fork(own);
                    });
                    break;
                }
                fork(random);
            }
            std::this_thread::yield();
        }
        std::this_thread::sleep_for(std::chrono::microseconds(random.below(2000)));
        stop_ = true;
        crash();
        threads.clear();
        forks_this_time_ = 0;
        server_.clean_up();
    }

    void remove_some_views(Random& random) {
        for (auto view = views_.begin(); view != views_.end();) {
            if (view->first == "main" || !random.one_in(3)) {
                ++view;
                continue;
            }
            const auto unmounted = server_.unmount(view->first);
            EXPECT_TRUE(unmounted) << unmounted.error().message;
            const auto removed = server_.remove_view(view->first);
            EXPECT_TRUE(removed) << removed.error().message;
            view = views_.erase(view);
        }
    }

    void new_store(const std::string& path) {
        store_ = path;
        views_.clear();
        views_["main"] = {mountpoint_of("main"), fresh_, true, {}};
    }

    TempDir dir_;
    const std::string lower_ = dir_.path() + "/lower";
    std::string store_;
    std::vector<DurableFolder> fresh_;  ///< what the lower branch holds
    ServerProcess server_;
    bool forks_need_sync_ = false;  ///< a fork is durable after the first sync in the clone
    std::shared_mutex mutex_;       ///< guards views_ against forks
    std::map<std::string, View> views_;
    std::array<uint64_t, kFolders> numbers_{1'000'000, 2'000'000};
    std::atomic<bool> stop_ = false;
    std::atomic<uint64_t> operations_ = 0;
    int forks_ = 0;
    int forks_this_time_ = 0;
    uint64_t merged_ = 0;  ///< layers, of the flattens that had an end
    Random random_{random_seed()};
};

TEST_F(CrashTest, KilledServer) {
    const uint64_t crashes = amount("IVMM_CRASHES", 12);
    constexpr uint64_t kCrashesOfAStore = 5;
    for (uint64_t i = 0; i < crashes && !HasFailure(); ++i) {
        SCOPED_TRACE("crash " + std::to_string(i));
        if (i % kCrashesOfAStore == 0) {
            new_store(dir_.path() + "/store" + std::to_string(i));
        }
        ASSERT_NO_FATAL_FAILURE(start());
        if (i % kCrashesOfAStore != 0) {
            check("served again");
            remove_some_views(random_);
        }
        run_until_crash(random_, [&] { server_.kill(); });
    }
    ASSERT_NO_FATAL_FAILURE(start());
    check("at the end");
    const auto stopped = server_.stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
    RecordProperty("merged_layers", std::to_string(merged_));
}

class PowerLossTest : public CrashTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(PowerLossTest, LosesNothingThatWasSynced) {
    const uint64_t crashes = amount("IVMM_CRASHES", 4);
    constexpr uint64_t kImageSize = 400U << 20U;
    const std::string disk = dir_.path() + "/disk";
    std::filesystem::create_directory(disk);
    auto image = DiskImage::make(dir_.path() + "/image", kImageSize, GetParam(), disk);
    if (!image && image.error().kind == ErrorKind::kHost) {
        GTEST_SKIP() << image.error().message;
    }
    ASSERT_TRUE(image) << image.error().message;
    forks_need_sync_ = true;
    new_store(disk + "/store");
    {
        // That the store exists is durable when the first server has ended.
        ASSERT_NO_FATAL_FAILURE(start());
        const auto stopped = server_.stop();
        ASSERT_TRUE(stopped) << stopped.error().message;
    }
    for (uint64_t i = 0; i < crashes && !HasFailure(); ++i) {
        SCOPED_TRACE("power cut " + std::to_string(i));
        ASSERT_NO_FATAL_FAILURE(start());
        check("power is back");
        remove_some_views(random_);
        run_until_crash(random_, [&] {
            const auto cut = image->cut_power();
            EXPECT_TRUE(cut) << cut.error().message;
            server_.kill();
        });
        for (auto& [name, view] : views_) {
            view.must_exist = view.must_exist || view.synced[0] || view.synced[1];
        }
        const auto powered = image->power_on();
        ASSERT_TRUE(powered) << powered.error().message;
    }
    ASSERT_NO_FATAL_FAILURE(start());
    check("at the end");
    const auto stopped = server_.stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
    RecordProperty("merged_layers", std::to_string(merged_));
}

INSTANTIATE_TEST_SUITE_P(FileSystems, PowerLossTest, ::testing::Values("ext4", "xfs"),
                         [](const auto& type) { return std::string(type.param); });

}  // namespace
}  // namespace ivmm::test
