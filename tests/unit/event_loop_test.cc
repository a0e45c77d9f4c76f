#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <latch>
#include <numeric>

#include "tests/support/fake_driver.h"

namespace ivmm {
namespace {

using test::run_pending;

TEST(EventLoopTest, CallsBackWhileReadable) {
    auto loop = *EventLoop::create();
    auto event = *EventFd::create();
    int calls = 0;
    auto watch = *loop->watch(event.fd(), EPOLLIN, [&](uint32_t events) {
        EXPECT_EQ(events, uint32_t{EPOLLIN});
        ++calls;
    });
    run_pending(*loop);
    EXPECT_EQ(calls, 0);
    event.signal();
    run_pending(*loop);
    EXPECT_GE(calls, 1);
    EXPECT_TRUE(event.drain());
    EXPECT_FALSE(event.drain());
    calls = 0;
    run_pending(*loop);
    EXPECT_EQ(calls, 0);
}

TEST(EventLoopTest, SilencedAndRemovedWatchesAreNotCalled) {
    auto loop = *EventLoop::create();
    auto event = *EventFd::create();
    int calls = 0;
    auto watch = *loop->watch(event.fd(), EPOLLIN, [&](uint32_t) { ++calls; });
    event.signal();
    watch.set_events(0);
    run_pending(*loop);
    EXPECT_EQ(calls, 0);
    watch.set_events(EPOLLIN);
    run_pending(*loop);
    EXPECT_GE(calls, 1);
    calls = 0;
    watch.reset();
    EXPECT_FALSE(watch);
    run_pending(*loop);
    EXPECT_EQ(calls, 0);
}

TEST(EventLoopTest, AWatchMayRemoveItselfAndOthersInACallback) {
    auto loop = *EventLoop::create();
    auto event = *EventFd::create();
    auto other_event = *EventFd::create();
    int calls = 0;
    EventLoop::Watch watch;
    EventLoop::Watch other;
    const auto callback = [&](uint32_t) {
        ++calls;
        watch.reset();
        other.reset();
    };
    watch = *loop->watch(event.fd(), EPOLLIN, callback);
    other = *loop->watch(other_event.fd(), EPOLLIN, callback);
    event.signal();
    other_event.signal();
    run_pending(*loop);
    EXPECT_EQ(calls, 1);
}

TEST(EventLoopTest, RunsTasksInOrderAndThoseThatTasksPost) {
    auto thread = *LoopThread::start("test-loop");
    std::vector<int> order;
    std::latch all_posted(1);
    thread->loop().post([&] { all_posted.wait(); });
    for (int i = 0; i < 100; ++i) {
        thread->loop().post([&, i] {
            order.push_back(i);
            if (i == 0) {
                thread->loop().post([&] { order.push_back(100); });
            }
        });
    }
    all_posted.count_down();
    thread->loop().call([] {});
    thread->loop().call([] {});
    std::vector<int> expected(101);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(order, expected);
}

TEST(EventLoopTest, CallRunsOnTheLoopsThreadAndWaits) {
    auto thread = *LoopThread::start("test-loop");
    EventLoop& loop = thread->loop();
    std::thread::id id;
    loop.call([&] {
        loop.call([&] { id = std::this_thread::get_id(); });  // directly, from its own thread
    });
    EXPECT_NE(id, std::thread::id());
    EXPECT_NE(id, std::this_thread::get_id());
}

TEST(EventLoopTest, CallRunsDirectlyWithoutAThread) {
    auto loop = *EventLoop::create();
    std::thread::id id;
    loop->call([&] { id = std::this_thread::get_id(); });
    EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(EventLoopTest, ManyThreadsCall) {
    auto thread = *LoopThread::start("test-loop");
    int count = 0;  // only the loop's thread touches it
    {
        std::vector<std::jthread> callers;
        for (int i = 0; i < 4; ++i) {
            callers.emplace_back([&] {
                for (int n = 0; n < 500; ++n) {
                    thread->loop().call([&] { ++count; });
                }
            });
        }
    }
    int result = 0;
    thread->loop().call([&] { result = count; });
    EXPECT_EQ(result, 2000);
}

TEST(EventLoopTest, StopBeforeRunEndsItAtOnce) {
    auto loop = *EventLoop::create();
    loop->stop();
    loop->run();
}

TEST(EventLoopTest, BadDescriptorIsAnError) {
    auto loop = *EventLoop::create();
    EXPECT_FALSE(loop->watch(-1, EPOLLIN, [](uint32_t) {}));
}

}  // namespace
}  // namespace ivmm
