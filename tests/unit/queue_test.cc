#include "devices/virtio/queue.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "tests/support/fake_driver.h"

namespace ivmm::virtio {
namespace {

using test::Arena;
using test::FakeQueue;

constexpr uint64_t kAll = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIdx;
constexpr uint64_t kPlain = kFeatureVersion1;
constexpr Gpa kNoRam = uint64_t{1} << 40;

class QueueTest : public ::testing::Test {
 protected:
    static constexpr uint64_t kMemory = 1 << 20;

    void start(uint64_t features, uint16_t size = 8) {
        arena_.emplace(*memory_, 0x1000, 0x80000);
        driver_.emplace(*arena_, size, (features & kFeatureEventIdx) != 0);
        queue_.reset();
        queue_.state() = driver_->layout();
        ASSERT_TRUE(queue_.enable(features));
    }
    /// Makes head 0 available with these descriptors in the table.
    void offer(std::initializer_list<Descriptor> descriptors) {
        uint16_t i = 0;
        for (const auto& descriptor : descriptors) {
            driver_->write_descriptor(i++, descriptor);
        }
        driver_->write_available(0, 0);
        driver_->write_available_index(1);
    }
    void expect_broken() {
        EXPECT_FALSE(queue_.pop());
        EXPECT_TRUE(queue_.broken());
        EXPECT_EQ(reason_, queue_.fault());
        EXPECT_FALSE(queue_.ready());
        // And it stays so, whatever is asked of it.
        EXPECT_FALSE(queue_.pop());
        queue_.push(Chain(0, {}, 0), 0);
        EXPECT_FALSE(queue_.publish());
        EXPECT_FALSE(queue_.enable_notifications());
        queue_.disable_notifications();
        EXPECT_EQ(driver_->used_index(), 0);
        EXPECT_EQ(broken_calls_, 1);
    }

    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(kMemory);
    std::optional<Arena> arena_;
    std::string reason_;
    int broken_calls_ = 0;
    Queue queue_{*memory_, 256, [this](std::string_view reason) {
                     reason_ = reason;
                     ++broken_calls_;
                 }};
    std::optional<FakeQueue> driver_;
};

TEST_F(QueueTest, GivesOutAChainAndTakesItBack) {
    start(kPlain);
    EXPECT_FALSE(queue_.pop());
    driver_->chain().readable("header").readable("text").writable(16).writable(8).send();
    auto chain = queue_.pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain->readable().size(), 2U);
    EXPECT_EQ(chain->writable().size(), 2U);
    Cursor in(*memory_, chain->readable());
    std::array<char, 10> text{};
    ASSERT_TRUE(in.read(text));
    EXPECT_EQ(std::string_view(text.data(), text.size()), "headertext");
    Cursor out(*memory_, chain->writable());
    ASSERT_TRUE(out.write(uint64_t{42}));
    queue_.push(*chain, 8);
    EXPECT_FALSE(driver_->take_used()) << "not published yet";
    EXPECT_TRUE(queue_.publish());
    auto used = driver_->take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(load_le(driver_->written(*used)), 42U);
    EXPECT_FALSE(queue_.publish()) << "nothing new";
    EXPECT_FALSE(queue_.pop());
}

TEST_F(QueueTest, GoesRoundManyTimes) {
    for (const uint64_t features : {kPlain, kAll}) {
        start(features, 4);
        // More than 65536, so that the indices wrap around, too.
        for (uint32_t i = 0; i < 70000; ++i) {
            auto builder = driver_->chain();
            builder.readable(bytes_of(i)).writable(4);
            if ((features & kFeatureIndirect) != 0 && i % 3 == 0) {
                builder.indirect();
            }
            builder.send();
            auto chain = queue_.pop();
            ASSERT_TRUE(chain) << queue_.fault();
            Cursor in(*memory_, chain->readable());
            uint32_t value = 0;
            ASSERT_TRUE(in.read(value));
            ASSERT_EQ(value, i);
            queue_.push(*chain, 0);
            std::ignore = queue_.publish();
            ASSERT_TRUE(driver_->take_used());
        }
    }
}

TEST_F(QueueTest, UndoPopGivesTheSameChainAgain) {
    start(kPlain);
    const auto first = driver_->chain().writable(1).send();
    const auto second = driver_->chain().writable(2).send();
    ASSERT_EQ(queue_.pop()->head(), first.head);
    ASSERT_EQ(queue_.pop()->head(), second.head);
    queue_.undo_pop();
    EXPECT_EQ(queue_.pop()->head(), second.head);
}

TEST_F(QueueTest, FollowsDirectDescriptorsIntoAnIndirectTable) {
    start(kAll);
    const Descriptor table[] = {{0x90000, 8, kDescriptorNext, 1},
                                {0x91000, 8, kDescriptorWrite, 0}};
    ASSERT_TRUE(memory_->write(0x92000, std::as_bytes(std::span(table))));
    // The WRITE flag of the descriptor that refers to the table is to be ignored.
    offer({{0x93000, 4, kDescriptorNext, 1},
           {0x92000, sizeof table, kDescriptorIndirect | kDescriptorWrite, 0}});
    const auto chain = queue_.pop();
    ASSERT_TRUE(chain) << queue_.fault();
    ASSERT_EQ(chain->readable().size(), 2U);
    EXPECT_EQ(chain->readable()[0].address, 0x93000U);
    EXPECT_EQ(chain->readable()[1].address, 0x90000U);
    EXPECT_EQ(chain->writable()[0].address, 0x91000U);
}

TEST_F(QueueTest, SkipsEmptyBuffers) {
    start(kPlain);
    offer({{kNoRam, 0, kDescriptorNext, 1}, {0x90000, 8, 0, 0}});
    const auto chain = queue_.pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain->readable().size(), 1U);
}

TEST_F(QueueTest, AChainMayBeAsLongAsTheQueue) {
    start(kPlain, 8);
    auto builder = driver_->chain();
    for (int i = 0; i < 8; ++i) {
        builder.writable(1);
    }
    builder.send();
    EXPECT_EQ(queue_.pop()->writable().size(), 8U);
}

// ---- What a hostile driver can do ----

TEST_F(QueueTest, BreaksOnIndexThatIsTooFarAhead) {
    start(kPlain);
    driver_->write_available_index(9);
    expect_broken();
}
TEST_F(QueueTest, BreaksOnIndexThatGoesBack) {
    start(kPlain);
    driver_->write_available_index(0xffff);
    expect_broken();
}
TEST_F(QueueTest, BreaksOnHeadBeyondTheTable) {
    start(kPlain);
    driver_->write_available(0, 8);
    driver_->write_available_index(1);
    expect_broken();
}
TEST_F(QueueTest, BreaksOnNextBeyondTheTable) {
    start(kPlain);
    offer({{0x90000, 8, kDescriptorNext, 8}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnALoop) {
    start(kPlain);
    offer({{0x90000, 8, kDescriptorNext, 1}, {0x90000, 8, kDescriptorNext, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnALoopInAnIndirectTable) {
    start(kAll);
    ASSERT_TRUE(memory_->write(0x92000, Descriptor{0x90000, 8, kDescriptorNext, 0}));
    offer({{0x92000, 16, kDescriptorIndirect, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnMemoryThatIsNotRam) {
    for (const Gpa address : {kNoRam, kMemory - 7, ~Gpa{0} - 3}) {
        broken_calls_ = 0;
        start(kPlain);
        offer({{address, 8, 0, 0}});
        expect_broken();
    }
}
TEST_F(QueueTest, BreaksOnReadableAfterWritable) {
    start(kPlain);
    offer({{0x90000, 8, kDescriptorNext | kDescriptorWrite, 1}, {0x90000, 8, 0, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnIndirectThatWasNotNegotiated) {
    start(kPlain);
    offer({{0x92000, 16, kDescriptorIndirect, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnIndirectWithNext) {
    start(kAll);
    offer({{0x92000, 16, kDescriptorIndirect | kDescriptorNext, 1}, {0x90000, 8, 0, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnNestedIndirect) {
    start(kAll);
    ASSERT_TRUE(memory_->write(0x92000, Descriptor{0x94000, 16, kDescriptorIndirect, 0}));
    offer({{0x92000, 16, kDescriptorIndirect, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnImpossibleIndirectLength) {
    for (const uint32_t length : {0U, 15U, 17U, 16U * 9, ~0U, ~15U}) {
        broken_calls_ = 0;
        start(kAll);
        offer({{0x92000, length, kDescriptorIndirect, 0}});
        expect_broken();
    }
}
TEST_F(QueueTest, BreaksOnIndirectTableThatIsNotRam) {
    start(kAll);
    offer({{kMemory - 8, 16, kDescriptorIndirect, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnNextBeyondTheIndirectTable) {
    start(kAll);
    ASSERT_TRUE(memory_->write(0x92000, Descriptor{0x90000, 8, kDescriptorNext, 1}));
    offer({{0x92000, 16, kDescriptorIndirect, 0}});
    expect_broken();
}
TEST_F(QueueTest, BreaksOnFourGigabytes) {
    auto memory = *GuestMemory::create(uint64_t{2} << 30);
    Arena arena(*memory, 0x1000, 0x10000);
    FakeQueue driver(arena, 8, false);
    Queue queue(*memory, 8);
    queue.state() = driver.layout();
    ASSERT_TRUE(queue.enable(kPlain));
    driver.chain().writable_at(0, 0x7fffffff).writable_at(0, 0x7fffffff).send();
    EXPECT_TRUE(queue.pop());
    driver.chain().writable_at(0, 0x7fffffff).writable_at(0, 0x7fffffff).writable_at(0, 2).send();
    EXPECT_FALSE(queue.pop());
    EXPECT_TRUE(queue.broken());
}

TEST_F(QueueTest, ReadsGarbageWithoutHarm) {
    std::mt19937 random(7);
    for (int i = 0; i < 3000; ++i) {
        start(i % 2 == 0 ? kAll : kPlain);
        for (uint16_t d = 0; d < 8; ++d) {
            driver_->write_descriptor(
                d, {random() % (kMemory + 0x1000), static_cast<uint32_t>(random() % 256),
                    static_cast<uint16_t>(random() % 8), static_cast<uint16_t>(random() % 9)});
            driver_->write_available(d, static_cast<uint16_t>(random() % 9));
        }
        driver_->write_available_index(static_cast<uint16_t>(random() % 9));
        for (int n = 0; n < 9; ++n) {
            const auto chain = queue_.pop();
            if (!chain) {
                break;
            }
            for (const auto& segment : chain->readable()) {
                ASSERT_TRUE(memory_->contains(segment.address, segment.length));
            }
            for (const auto& segment : chain->writable()) {
                ASSERT_TRUE(memory_->contains(segment.address, segment.length));
            }
        }
    }
}

// ---- Set-up ----

TEST_F(QueueTest, RefusesImpossibleLayouts) {
    start(kPlain);
    const QueueState good = driver_->layout();
    const auto refused = [&](auto change) {
        queue_.reset();
        queue_.state() = good;
        change(queue_.state());
        const bool enabled = queue_.enable(kPlain);
        return !enabled && !queue_.ready() && !queue_.pop();
    };
    EXPECT_TRUE(refused([](QueueState& s) { s.size = 0; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.size = 7; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.size = 512; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.descriptors += 8; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.available += 1; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.used += 2; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.descriptors = kMemory - 16; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.available = kMemory - 4; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.used = kNoRam; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.used = ~Gpa{3}; }));
    EXPECT_FALSE(refused([](QueueState&) {}));
}

TEST_F(QueueTest, ChecksStates) {
    start(kPlain);
    EXPECT_TRUE(queue_.check({}));
    QueueState state = queue_.state();
    state.next_available = 0xfffe;
    state.next_used = 0xfffe;
    EXPECT_TRUE(queue_.check(state));
    state.next_available = 0x0006;
    EXPECT_TRUE(queue_.check(state));
    state.next_available = 0x0007;
    EXPECT_FALSE(queue_.check(state));
    state.next_available = 0xfffd;
    EXPECT_FALSE(queue_.check(state));
    QueueState moved;
    moved.next_used = 1;
    EXPECT_FALSE(queue_.check(moved));
}

TEST_F(QueueTest, GoesOnFromARestoredState) {
    start(kAll);
    driver_->chain().writable(4).send();
    queue_.push(*queue_.pop(), 1);
    std::ignore = queue_.publish();
    const auto state = queue_.state();
    driver_->chain().writable(4).send();

    Queue other(*memory_, 256);
    ASSERT_TRUE(other.check(state));
    other.restore(state, kAll);
    const auto chain = other.pop();
    ASSERT_TRUE(chain);
    other.push(*chain, 2);
    std::ignore = other.publish();
    EXPECT_EQ(driver_->take_used()->written, 1U);
    EXPECT_EQ(driver_->take_used()->written, 2U);
}

// ---- Notifications ----

TEST_F(QueueTest, FlagsSuppressInterruptsAndNotifications) {
    start(kPlain);
    driver_->set_no_interrupt(true);
    driver_->chain().writable(4).send();
    EXPECT_TRUE(driver_->must_notify());
    queue_.disable_notifications();
    driver_->chain().writable(4).send();
    EXPECT_FALSE(driver_->must_notify());
    EXPECT_TRUE(queue_.enable_notifications()) << "requests are there already";
    queue_.push(*queue_.pop(), 0);
    EXPECT_FALSE(queue_.publish());
    driver_->set_no_interrupt(false);
    queue_.push(*queue_.pop(), 0);
    EXPECT_TRUE(queue_.publish());
    EXPECT_FALSE(queue_.enable_notifications());
    driver_->chain().writable(4).send();
    EXPECT_TRUE(driver_->must_notify());
}

TEST_F(QueueTest, EventIdxAsksForOneNotification) {
    start(kAll);
    EXPECT_FALSE(queue_.enable_notifications());
    driver_->chain().writable(4).send();
    EXPECT_TRUE(driver_->must_notify());
    driver_->chain().writable(4).send();
    EXPECT_FALSE(driver_->must_notify()) << "asked for the first one only";
    EXPECT_TRUE(queue_.pop());
    EXPECT_TRUE(queue_.enable_notifications());
    EXPECT_TRUE(queue_.pop());
    EXPECT_FALSE(queue_.enable_notifications());
    driver_->chain().writable(4).send();
    EXPECT_TRUE(driver_->must_notify());
}

TEST_F(QueueTest, EventIdxInterruptsWhenTheIndexPasses) {
    start(kAll);
    driver_->set_used_event(1);  // after two
    for (int i = 0; i < 4; ++i) {
        driver_->chain().writable(4).send();
    }
    queue_.push(*queue_.pop(), 0);
    EXPECT_FALSE(queue_.publish());
    queue_.push(*queue_.pop(), 0);
    EXPECT_TRUE(queue_.publish());
    queue_.push(*queue_.pop(), 0);
    EXPECT_FALSE(queue_.publish());
    driver_->set_used_event(3);
    queue_.push(*queue_.pop(), 0);
    EXPECT_TRUE(queue_.publish());
}

TEST_F(QueueTest, OnePublishForManyPassesAnyEventBetween) {
    start(kAll);
    driver_->set_used_event(2);
    for (int i = 0; i < 8; ++i) {
        driver_->chain().writable(4).send();
    }
    while (auto chain = queue_.pop()) {
        queue_.push(*chain, 0);
    }
    EXPECT_TRUE(queue_.publish());
}

/// Two threads, as in reality: no request and no wake-up may be lost.
TEST_F(QueueTest, NoLostWakeUps) {
    start(kAll, 16);
    constexpr uint32_t kRequests = 20000;
    std::atomic<bool> notified = false;
    std::atomic<bool> interrupted = false;
    const auto wait_for = [](std::atomic<bool>& flag) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (!flag.exchange(false)) {
            if (std::chrono::steady_clock::now() > end) {
                return false;
            }
            std::this_thread::yield();
        }
        return true;
    };
    bool device_ok = true;
    std::thread device([&] {
        uint32_t done = 0;
        while (done < kRequests && device_ok) {
            while (auto chain = queue_.pop()) {
                queue_.push(*chain, 0);
                ++done;
            }
            if (queue_.publish()) {
                interrupted = true;
            }
            if (done < kRequests && !queue_.enable_notifications()) {
                device_ok = wait_for(notified);
            }
        }
    });
    uint32_t sent = 0;
    uint32_t received = 0;
    bool driver_ok = true;
    while (received < kRequests && driver_ok) {
        while (sent < kRequests && driver_->free_descriptors() > 0) {
            driver_->chain().writable_at(0x90000, 4).send();
            ++sent;
        }
        if (driver_->must_notify()) {
            notified = true;
        }
        driver_->set_used_event(static_cast<uint16_t>(received));
        if (driver_->used_index() == static_cast<uint16_t>(received)) {
            driver_ok = wait_for(interrupted);
        }
        while (driver_->take_used()) {
            ++received;
        }
    }
    device.join();
    EXPECT_TRUE(device_ok);
    EXPECT_TRUE(driver_ok);
    EXPECT_EQ(received, kRequests);
}

}  // namespace
}  // namespace ivmm::virtio
