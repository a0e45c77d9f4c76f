#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "storage/tools/check.h"
#include "tests/storage/load.h"
#include "tests/storage/mounts.h"
#include "tests/storage/random.h"
#include "tests/storage/server_process.h"
#include "tests/support/temp_dir.h"

/// Layers are merged below views that are in use, and nobody sees it; and whatever ends it, each
/// view has the layers from before or the merged one.
namespace ivmm::test {
namespace {

/// Block maps, which a kill would take away, and what is frozen: sealed then, as a flatten needs
/// it.
void flush_mount(const std::string& mountpoint) {
    const UniqueFd root(::open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(::fsync(root.get()), 0);
}

class FlattenTest : public ::testing::Test {
 protected:
    struct View {
        std::string name;
        std::string mountpoint;
        FolderState state;               ///< when nobody writes
        std::unique_ptr<Writer> writer;  ///< or it knows
    };

    void SetUp() override {
        if (const std::string why = why_no_mounts(); !why.empty()) {
            GTEST_SKIP() << why;
        }
        std::filesystem::create_directory(lower_);
        add_view("main").state = make_folder(lower_ + "/folder");
        ASSERT_FALSE(main().state.empty());
        start();
    }

    View& main() { return views_.front(); }
    View& add_view(const std::string& name) {
        views_.push_back({name, dir_.path() + "/mnt-" + name, {}, {}});
        std::filesystem::create_directory(views_.back().mountpoint);
        return views_.back();
    }
    static std::string folder(const View& view) { return view.mountpoint + "/folder"; }

    /// Serves all views.
    void start() {
        auto server = ServerProcess::start(
            {.store = store_, .lower = {lower_}, .mountpoint = main().mountpoint});
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
        for (const View& view : views_) {
            if (&view != &main()) {
                const auto mounted = server_.mount({view.name, view.mountpoint});
                ASSERT_TRUE(mounted) << mounted.error().message;
            }
        }
    }
    void write(View& view) {
        view.writer = std::make_unique<Writer>(folder(view), view.state, random_.number());
    }
    static void stop(View& view) {
        view.writer->stop();
        EXPECT_EQ(view.writer->problem(), "") << "view " << view.name;
        view.state = view.writer->state();
        view.writer.reset();
    }
    /// Until a view's writer has done some more, or has failed.
    void let_run(const View& view, uint64_t most) {
        const uint64_t end = view.writer->changes() + 1 + random_.below(most);
        for (int patience = 0; view.writer->changes() < end && patience < 100'000; ++patience) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }
    /// A layer of a view's that nobody else needs.
    void freeze(const View& view) {
        const std::string name = fmt::format("frozen{}", ++forks_);
        const auto forked = server_.fork(view.name, {{name, ""}});
        ASSERT_TRUE(forked) << forked.error().message;
        const auto removed = server_.remove_view(name);
        ASSERT_TRUE(removed) << removed.error().message;
    }
    /// A view that is mounted and written.
    View& fork(View& view) {
        View& clone = add_view(fmt::format("clone{}", ++forks_));
        const uint64_t before = now();
        const auto forked = server_.fork(view.name, {{clone.name, clone.mountpoint}});
        const uint64_t after = now();
        EXPECT_TRUE(forked) << forked.error().message;
        auto cut = view.writer->find_cut(folder(clone), before, after);
        EXPECT_EQ(cut.problem, "") << clone.name;
        clone.state = std::move(cut.state);
        return clone;
    }
    void check_all(const std::string& when) {
        for (const View& view : views_) {
            EXPECT_EQ(difference(view.state, folder(view)), "")
                << "view " << view.name << ", " << when;
        }
    }
    void flush() { flush_mount(main().mountpoint); }
    size_t layers_on_disk() const {
        size_t layers = 0;
        for (const auto& entry : std::filesystem::directory_iterator(store_ + "/layers")) {
            layers += entry.is_directory() ? 1 : 0;
        }
        return layers;
    }

    TempDir dir_;
    const std::string lower_ = dir_.path() + "/lower";
    const std::string store_ = dir_.path() + "/store";
    std::list<View> views_;
    ServerProcess server_;
    Random random_{random_seed()};
    size_t forks_ = 0;
};

TEST_F(FlattenTest, NobodySeesItUnderLoad) {
    write(main());
    uint32_t merged = 0;
    const uint64_t rounds = amount("IVMM_FLATTENS", 5);
    for (uint64_t round = rounds; round > 0 && !HasFailure(); --round) {
        for (int i = 0; i < 4; ++i) {
            let_run(main(), 100);
            ASSERT_NO_FATAL_FAILURE(freeze(main()));
        }
        ASSERT_TRUE(server_.flatten("main"));
        // A fork meanwhile, too.
        let_run(main(), 20);
        View& clone = fork(main());
        write(clone);
        let_run(clone, 50);
        ASSERT_NO_FATAL_FAILURE(freeze(clone));
        const auto layers = server_.flattened();
        ASSERT_TRUE(layers) << layers.error().message;
        merged += *layers;
        let_run(main(), 50);
    }
    // A round merges those of its four frozen layers that are sealed by then: at least two, or
    // none.
    EXPECT_GE(merged, rounds > 1 ? 5U : 2U);
    for (View& view : views_) {
        stop(view);
    }
    check_all("at the end");
    const auto stopped = server_.stop();
    ASSERT_TRUE(stopped) << stopped.error().message;
    ASSERT_NO_FATAL_FAILURE(start());
    check_all("mounted again");
}

TEST_F(FlattenTest, AKillAtAnyMomentLeavesOneOrTheOther) {
    write(main());
    let_run(main(), 100);
    ASSERT_NO_FATAL_FAILURE(freeze(main()));
    let_run(main(), 100);
    fork(main());
    stop(main());
    for (uint64_t round = amount("IVMM_KILLS", 8); round > 0 && !HasFailure(); --round) {
        for (int i = 0; i < 3; ++i) {
            write(main());
            let_run(main(), 60);
            stop(main());
            ASSERT_NO_FATAL_FAILURE(freeze(main()));
        }
        flush();
        ASSERT_TRUE(server_.flatten("main"));
        std::this_thread::sleep_for(std::chrono::microseconds(random_.below(60'000)));
        server_.kill();
        server_.clean_up();
        const auto report = storage::check_store(store_, {});
        ASSERT_TRUE(report) << report.error().message;
        for (const auto& finding : report->findings) {
            EXPECT_NE(finding.severity, storage::CheckFinding::Severity::kDamage)
                << finding.path << ": " << finding.what;
        }
        ASSERT_NO_FATAL_FAILURE(start());
        check_all("after a kill");
    }
    // What was half done is garbage, which is gone, and it can be done again.
    ASSERT_TRUE(server_.flatten("main"));
    const auto merged = server_.flattened();
    ASSERT_TRUE(merged) << merged.error().message;
    check_all("at the end");
    ASSERT_TRUE(server_.stop());
    ASSERT_NO_FATAL_FAILURE(start());
    EXPECT_LE(layers_on_disk(), 8U);
}

TEST_F(FlattenTest, AFullDiskChangesNothing) {
    const std::string disk = dir_.path() + "/disk";
    const std::string mountpoint = dir_.path() + "/mnt";
    std::filesystem::create_directory(disk);
    std::filesystem::create_directory(mountpoint);
    const auto small = Mount::make("none", disk, "tmpfs", 0, "size=16m");
    ASSERT_TRUE(small) << small.error().message;
    const std::string store = disk + "/store";
    auto server = ServerProcess::start({.store = store, .mountpoint = mountpoint});
    ASSERT_TRUE(server) << server.error().message;
    const std::string content(5 << 20, 'x');
    for (const std::string name : {"a", "b"}) {
        std::ofstream(mountpoint + "/" + name) << content;
        const auto forked = server->fork("main", {{name, ""}});
        ASSERT_TRUE(forked && server->remove_view(name)) << name;
    }
    ASSERT_NO_FATAL_FAILURE(flush_mount(mountpoint));
    // There is room for one of the files, and not for both. The next fork's layers are being made
    // meanwhile: hidden at first.
    const auto layers = [&](bool hidden) {
        std::set<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(store + "/layers")) {
            if (entry.path().filename().string().starts_with('.') == hidden) {
                names.insert(entry.path().filename());
            }
        }
        return names;
    };
    const auto before = layers(false);
    ASSERT_TRUE(server->flatten("main"));
    const auto refused = server->flattened();
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("No space left on device"), std::string::npos)
        << refused.error().message;
    EXPECT_TRUE(std::ranges::includes(layers(false), before)) << "a layer is missing";
    for (int patience = 0; !layers(true).empty() && patience < 1000; ++patience) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(layers(true), std::set<std::string>()) << "something half made was left";
    for (const std::string name : {"a", "b"}) {
        std::ifstream file(mountpoint + "/" + name);
        EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), content) << name;
    }
    std::filesystem::remove(mountpoint + "/a");
    const auto forked = server->fork("main", {{"c", ""}});
    ASSERT_TRUE(forked && server->remove_view("c"));
    ASSERT_NO_FATAL_FAILURE(flush_mount(mountpoint));
    ASSERT_TRUE(server->flatten("main"));
    const auto merged = server->flattened();
    ASSERT_TRUE(merged) << merged.error().message;
    EXPECT_EQ(*merged, 3U);
    EXPECT_TRUE(server->stop());
}

}  // namespace
}  // namespace ivmm::test
