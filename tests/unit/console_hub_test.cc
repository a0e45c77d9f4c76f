#include "vmm/console/console_hub.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace ivmm {
namespace {

void print(ConsoleHub& hub, std::string_view text) {
    hub.console_output(std::as_bytes(std::span(text)));
}

bool ready(const ConsoleHub& hub, int milliseconds) {
    pollfd wanted{hub.ready_fd(), POLLIN, 0};
    return ::poll(&wanted, 1, milliseconds) == 1;
}

class ConsoleHubTest : public testing::Test {
 protected:
    std::unique_ptr<ConsoleHub> hub_ = *ConsoleHub::create();
};

TEST_F(ConsoleHubTest, LateReaderSeesScrollback) {
    print(*hub_, "hello ");
    print(*hub_, "world");
    ConsoleHub::Reader reader(*hub_);
    EXPECT_EQ(reader.read(5).bytes, "hello");
    EXPECT_EQ(reader.read(100).bytes, " world");
    const auto nothing = reader.read(100);
    EXPECT_EQ(nothing.bytes, "");
    EXPECT_EQ(nothing.lost, 0u);
}

TEST_F(ConsoleHubTest, KeepsTheLastBytesAcrossTheEdgeOfTheRing) {
    std::string all;
    for (int i = 0; i < 20000; ++i) {
        const std::string line = fmt::format("line {}\n", i);
        print(*hub_, line);
        all += line;
    }
    ConsoleHub::Reader reader(*hub_);
    std::string seen;
    for (auto chunk = reader.read(1000); !chunk.bytes.empty(); chunk = reader.read(1000)) {
        EXPECT_EQ(chunk.lost, 0u);
        seen += chunk.bytes;
    }
    EXPECT_EQ(seen, all.substr(all.size() - ConsoleHub::kScrollback));
}

TEST_F(ConsoleHubTest, SlowReaderIsToldWhatItLost) {
    ConsoleHub::Reader reader(*hub_);
    print(*hub_, "0123456789");
    EXPECT_EQ(reader.read(4).bytes, "0123");
    print(*hub_, std::string(ConsoleHub::kScrollback - 1, 'x'));
    const auto chunk = reader.read(10);
    EXPECT_EQ(chunk.lost, 5u);
    EXPECT_EQ(chunk.bytes, "9xxxxxxxxx");
    EXPECT_EQ(reader.read(1).lost, 0u);
}

TEST_F(ConsoleHubTest, OneWriteLargerThanTheRing) {
    ConsoleHub::Reader reader(*hub_);
    print(*hub_, std::string(1000, 'a') + std::string(ConsoleHub::kScrollback, 'b'));
    const auto chunk = reader.read(SIZE_MAX);
    EXPECT_EQ(chunk.lost, 1000u);
    EXPECT_EQ(chunk.bytes, std::string(ConsoleHub::kScrollback, 'b'));
}

TEST_F(ConsoleHubTest, WakesReadersAndNobodyElse) {
    print(*hub_, "x");
    EXPECT_FALSE(ready(*hub_, 10));
    const ConsoleHub::Reader reader(*hub_);
    print(*hub_, "y");
    EXPECT_TRUE(ready(*hub_, 1000));
    hub_->acknowledge();
    EXPECT_FALSE(ready(*hub_, 10));
    print(*hub_, "z");
    EXPECT_TRUE(ready(*hub_, 1000));
}

TEST_F(ConsoleHubTest, WritersOnManyThreads) {
    ConsoleHub::Reader reader(*hub_);
    constexpr size_t kEach = 20000;
    std::vector<std::jthread> writers;
    for (const char c : {'a', 'b', 'c'}) {
        writers.emplace_back([this, c] {
            for (size_t i = 0; i < kEach; ++i) {
                print(*hub_, std::string_view(&c, 1));
            }
        });
    }
    uint64_t seen = 0;
    while (seen < 3 * kEach) {
        const auto chunk = reader.read(100);
        seen += chunk.lost + chunk.bytes.size();
    }
    EXPECT_EQ(seen, 3 * kEach);
}

}  // namespace
}  // namespace ivmm
