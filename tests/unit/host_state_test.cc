#include "vmm/live/host_state.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/temp_dir.h"
#include "vmm/control/control_server.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/live/top_picture.h"

namespace ivmm::live {
namespace {

using rpc::Json;

/// A process that answers every method with the same.
class Played {
 public:
    Played(const RuntimeDir& folder, const std::string& name, const Json& answer)
        : lock_(*folder.lock(name)) {
        for (const char* const method : {"status", "standby.status", "clones"}) {
            server_.add_method(method, [answer](ControlConnection&, const Json&) -> Result<Json> {
                return answer;
            });
        }
        EXPECT_TRUE(server_.listen(*lock_.listen()));
        thread_ = std::jthread([this] { loop_->run(); });
    }
    ~Played() {
        loop_->stop();
        thread_.join();
    }

 private:
    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    ControlServer server_{*loop_};
    GuestLock lock_;
    std::jthread thread_;
};

/// Whatever the processes of an attacker answer, all is there and can be drawn and sent.
TEST(HostStateTest, WhateverTheProcessesAnswer) {
    const Json lists = Json::parse(R"([1, "x", null, {}, [], {"clones":[{"newest":[5,{}]}]},
        {"remote":7,"scope":[],"forks":"many","drops":{"a":-1,"b":"c"},"flows":1e300}])");
    for (const Json& answer : {Json(), Json(5), Json("text"), Json::array({1}), Json::object(),
                               Json{{"ports", lists},
                                    {"diversions", lists},
                                    {"tables", lists},
                                    {"mounts", lists},
                                    {"recent_forks", lists},
                                    {"clones", lists},
                                    {"done", lists},
                                    {"failed", 1}},
                               Json{{"state", 5},
                                    {"phase", lists},
                                    {"uptime_s", "long"},
                                    {"pid", -1},
                                    {"forks", -1e300},
                                    {"clones", "none"},
                                    {"ports", {{"drops", 1}}},
                                    {"dry_run", "yes"},
                                    {"memory_bytes", 1e300},
                                    {"store", "\x1b[2J"},
                                    {"behind_bytes", nullptr}}}) {
        const test::TempDir dir;
        ::setenv("XDG_RUNTIME_DIR", dir.path().c_str(), 1);
        const Played guest(RuntimeDir::find(), "web", answer);
        const Played net(RuntimeDir::find_switch(), "lan", answer);
        const Played server(RuntimeDir::find_overlay(), "4711", answer);
        const Played watch(RuntimeDir::find_watch(), "web", answer);
        RunningProcesses processes;
        const auto state = host_state(processes);
        ASSERT_TRUE(state) << state.error().message;
        EXPECT_EQ((*state)["guests"].size(), 1u);
        EXPECT_EQ((*state)["switches"].size(), 1u);
        EXPECT_EQ((*state)["overlays"].size(), 1u);
        EXPECT_EQ((*state)["watches"].size(), 1u);
        TopView view;
        view.state = &*state;
        view.before = &*state;
        view.seconds = 1;
        view.selected = "web";
        EXPECT_FALSE(draw_top(view).empty());
        EXPECT_EQ(state->dump().find('\x1b'), std::string::npos);
    }
}

}  // namespace
}  // namespace ivmm::live
