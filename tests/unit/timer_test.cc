#include "base/timer.h"

#include <gtest/gtest.h>

namespace ivmm {
namespace {

using std::chrono::milliseconds;

class TimerTest : public testing::Test {
 protected:
    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    int calls_ = 0;
};

TEST_F(TimerTest, CallsOnceOrAgainAndAgain) {
    Timer once = *Timer::create(*loop_, [this] { ++calls_; });
    int ticks = 0;
    Timer every = *Timer::create(*loop_, [this, &ticks] {
        if (++ticks == 3) {
            loop_->stop();
        }
    });
    const auto begin = std::chrono::steady_clock::now();
    once.set_once(milliseconds(0));
    every.set_every(milliseconds(5));
    loop_->run();
    EXPECT_EQ(calls_, 1);
    EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(15));
}

TEST_F(TimerTest, StoppedOrSetAnewInTheSameRoundItKeepsSilent) {
    Timer stopped = *Timer::create(*loop_, [this] { ++calls_; });
    Timer later = *Timer::create(*loop_, [this] { ++calls_; });
    Timer first = *Timer::create(*loop_, [&] {
        stopped.stop();
        later.set_once(std::chrono::hours(1));
    });
    Timer end = *Timer::create(*loop_, [this] { loop_->stop(); });
    // All have expired when the loop begins, in the order in which they have.
    first.set_once(milliseconds(1));
    std::this_thread::sleep_for(milliseconds(10));
    stopped.set_once(milliseconds(1));
    later.set_once(milliseconds(1));
    std::this_thread::sleep_for(milliseconds(10));
    end.set_once(milliseconds(20));
    loop_->run();
    EXPECT_EQ(calls_, 0);
}

TEST_F(TimerTest, MayEndItselfInItsCallback) {
    auto timer = std::make_unique<Timer>();
    *timer = *Timer::create(*loop_, [&] {
        ++calls_;
        timer.reset();
    });
    Timer end = *Timer::create(*loop_, [this] { loop_->stop(); });
    timer->set_every(milliseconds(1));
    end.set_once(milliseconds(20));
    loop_->run();
    EXPECT_EQ(calls_, 1);
}

}  // namespace
}  // namespace ivmm
