#include "vmm/live/running_processes.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <thread>

#include "tests/support/temp_dir.h"
#include "vmm/control/control_server.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/live/host_metrics.h"

namespace ivmm::live {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

/// A process of some kind, played by a thread; its method `status` waits while it hangs.
class Played {
 public:
    Played(const RuntimeDir& folder, const std::string& name) : lock_(*folder.lock(name)) {
        server_.add_deferred_method("status",
                                    [this](const rpc::Json&, ControlServer::Answer answer) {
                                        asked_ += 1;
                                        if (hangs_) {
                                            waiting_ = std::move(answer);
                                        } else {
                                            answer(rpc::Json{{"asked", asked_}});
                                        }
                                    });
        EXPECT_TRUE(server_.listen(*lock_.listen()));
        thread_ = std::jthread([this] { loop_->run(); });
    }
    ~Played() {
        loop_->stop();
        thread_.join();
    }
    void hang() {
        loop_->call([this] { hangs_ = true; });
    }
    void go_on() {
        loop_->call([this] {
            hangs_ = false;
            if (waiting_) {
                std::exchange(waiting_, {})(rpc::Json{{"asked", -1}});
            }
        });
    }
    int asked() {
        int asked = 0;
        loop_->call([&] { asked = asked_; });
        return asked;
    }

 private:
    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    ControlServer server_{*loop_};
    GuestLock lock_;
    bool hangs_ = false;
    int asked_ = 0;
    ControlServer::Answer waiting_;
    std::jthread thread_;
};

class RunningProcessesTest : public testing::Test {
 protected:
    RunningProcessesTest() { ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1); }

    std::vector<ProcessAnswers> ask(std::chrono::milliseconds patience = 10s) {
        auto all = processes_.ask({{"guest", {"status"}}, {"switch", {"status"}}}, patience);
        EXPECT_TRUE(all) << all.error().message;
        return all ? *std::move(all) : std::vector<ProcessAnswers>();
    }

    test::TempDir dir_;
    RunningProcesses processes_;
};

TEST_F(RunningProcessesTest, AsksWhoeverRuns) {
    EXPECT_TRUE(ask().empty());
    Played web(RuntimeDir::find(), "web");
    {
        Played lan(RuntimeDir::find_switch(), "lan");
        const auto all = ask();
        ASSERT_EQ(all.size(), 2u);
        EXPECT_EQ(all[0].kind, "guest");
        EXPECT_EQ(all[0].name, "web");
        EXPECT_TRUE(all[0].up);
        EXPECT_EQ(all[0].results.at("status").value("asked", 0), 1);
        EXPECT_EQ(all[1].kind, "switch");
    }
    const auto all = ask();  // the switch has ended as it should
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].results.at("status").value("asked", 0), 2);
}

TEST_F(RunningProcessesTest, OneThatHangsKeepsNobodyWaitingTwice) {
    Played web(RuntimeDir::find(), "web");
    Played other(RuntimeDir::find(), "other");
    web.hang();
    for (int i = 0; i < 100; ++i) {
        // Only the first call waits for it: the others would take more than a day together.
        const auto all = ask(i == 0 ? 200ms : std::chrono::milliseconds(1h));
        ASSERT_EQ(all.size(), 2u);
        EXPECT_TRUE(all[0].up);
        EXPECT_EQ(all[0].results.at("status").value("asked", 0), i + 1);
        EXPECT_FALSE(all[1].up);
        EXPECT_TRUE(all[1].results.empty());
    }
    EXPECT_EQ(web.asked(), 1);
    web.go_on();
    // Its late answer is not taken for one to what is asked now.
    for (int i = 0; i < 1000; ++i) {
        const auto all = ask();
        if (all[1].up) {
            EXPECT_EQ(all[1].results.at("status").value("asked", 0), 2);
            return;
        }
    }
    FAIL() << "it has answered, and nobody has noticed";
}

TEST_F(RunningProcessesTest, ToldOfOneThatWasKilled) {
    const pid_t process = ::fork();
    if (process == 0) {
        const auto lock = RuntimeDir::find().lock("web");
        ::_exit(lock ? 0 : 1);  // without its clean-up
    }
    int status = 0;
    ASSERT_EQ(::waitpid(process, &status, 0), process);
    ASSERT_EQ(status, 0);
    for (int i = 0; i < 3; ++i) {
        const auto metrics = host_metrics(processes_);
        ASSERT_TRUE(metrics) << metrics.error().message;
        EXPECT_THAT(metrics->to_text(), HasSubstr("ivmm_up{guest=\"web\"} 0\n"));
    }
    Played again(RuntimeDir::find(), "web");
    const auto metrics = host_metrics(processes_);
    EXPECT_THAT(metrics->to_text(), HasSubstr("ivmm_up{guest=\"web\"} 1\n"));
}

}  // namespace
}  // namespace ivmm::live
