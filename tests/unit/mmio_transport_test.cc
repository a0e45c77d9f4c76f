#include "devices/virtio/mmio_transport.h"

#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include <array>
#include <thread>

#include "tests/support/fake_driver.h"
#include "tests/support/suspendable_conformance.h"

namespace ivmm::virtio {
namespace {

using test::Arena;
using test::FakeInterrupt;
using test::FakeMmioDriver;
using test::run_pending;

constexpr uint64_t kDeviceFeature = uint64_t{1} << 5;
constexpr uint64_t kFeatures = kFeatureVersion1 | kFeatureEventIdx;

/// Answers each request with its number; counts what the transport does to it.
class EchoDevice final : public Device {
 public:
    struct State {
        static constexpr uint32_t kVersion = 3;
        uint32_t answered = 0;
        bool operator==(const State&) const = default;
        template <class Visitor, class Self>
        static void fields(Visitor& visit, Self& self) {
            visit(self.answered);
        }
    };

    uint32_t device_id() const override { return 42; }
    uint64_t offered_features() const override { return kDeviceFeature; }
    std::span<const uint16_t> queue_sizes() const override { return sizes_; }
    void read_config(uint64_t offset, ByteSpan out) const override {
        copy_window(bytes_of(config), offset, out);
    }
    void write_config(uint64_t offset, ConstByteSpan in) override {
        if (offset + in.size() <= sizeof config) {
            std::copy(in.begin(), in.end(),
                      writable_bytes_of(config).begin() + static_cast<std::ptrdiff_t>(offset));
        }
    }
    void activate(const Activation& activation) override {
        EXPECT_FALSE(active);
        active = activation;
    }
    void kick(uint16_t queue) override {
        EXPECT_TRUE(active && !frozen);
        ++kicks;
        while (auto chain = active->queues[queue].pop()) {
            active->queues[queue].push(*chain, ++state.answered);
        }
        std::ignore = active->queues[queue].enable_notifications();
        active->driver->publish(queue);
    }
    void reset() override {
        active.reset();
        state = {};
        ++resets;
    }
    std::string state_id() const override { return "echo"; }
    void freeze() override { frozen = true; }
    void thaw() override { frozen = false; }
    std::vector<std::byte> save_state() const override { return encode_state(state); }
    Result<void> restore_state(ConstByteSpan bytes) override {
        EXPECT_FALSE(active);
        EXPECT_TRUE(frozen);
        IVMM_ASSIGN(const State restored, decode_state<State>(bytes));
        if (restored.answered > 1000) {
            return fail("answered too much");
        }
        state = restored;
        return {};
    }

    std::optional<Activation> active;
    bool frozen = false;
    int kicks = 0;
    int resets = 0;
    State state;
    uint64_t config = 0x1122334455667788;

 private:
    std::array<uint16_t, 2> sizes_ = {16, 64};
};

struct Guest {
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    std::unique_ptr<GuestMemory> memory = *GuestMemory::create(1 << 20);
    Arena arena{*memory, 0x1000, 0x80000};
    FakeInterrupt interrupt;
    std::unique_ptr<MmioTransport> transport =
        *MmioTransport::create("echo0", *loop, *memory, interrupt, std::make_unique<EchoDevice>());
    FakeMmioDriver driver{*transport, arena};

    EchoDevice& device() { return dynamic_cast<EchoDevice&>(transport->device()); }
};

class MmioTransportTest : public ::testing::Test, protected Guest {
 protected:
    uint32_t status() { return driver.read(VIRTIO_MMIO_STATUS); }
    void break_device() {
        driver.queue(0).write_available_index(1000);
        driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        run_pending(*loop);
    }
};

TEST_F(MmioTransportTest, IdentifiesItself) {
    EXPECT_EQ(driver.read(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976U);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_VERSION), 2U);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_DEVICE_ID), 42U);
    EXPECT_NE(driver.read(VIRTIO_MMIO_VENDOR_ID), 0U);
    EXPECT_EQ(driver.device_features(),
              kDeviceFeature | kFeatureVersion1 | kFeatureIndirect | kFeatureEventIdx);
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 0U);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 64U);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 2);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0U);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffffU);
}

TEST_F(MmioTransportTest, ServesRequests) {
    ASSERT_TRUE(driver.start(kFeatures));
    EXPECT_EQ(status(), 15U);
    driver.queue(1).chain().writable(4).send();
    driver.notify(1);
    run_pending(*loop);
    const auto used = driver.queue(1).take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 1U);
    EXPECT_EQ(interrupt.count(), 1U);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 1U);
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0U);
}

TEST_F(MmioTransportTest, TakesNotificationsThroughTheEventFd) {
    ASSERT_TRUE(driver.start(kFeatures));
    driver.queue(0).chain().writable(4).send();
    transport->notify_event(0).signal();
    run_pending(*loop);
    EXPECT_TRUE(driver.queue(0).take_used());
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 2);  // no such queue
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0xffffffff);
    run_pending(*loop);
}

TEST_F(MmioTransportTest, FindsRequestsFromBeforeDriverOk) {
    ASSERT_TRUE(driver.negotiate(kFeatures));
    driver.set_up_queue(0, 16).chain().writable(4).send();
    driver.notify(0);
    run_pending(*loop);
    EXPECT_EQ(device().kicks, 0) << "not before DRIVER_OK";
    EXPECT_FALSE(driver.queue(0).take_used());
    driver.driver_ok();
    run_pending(*loop);
    EXPECT_TRUE(driver.queue(0).take_used());
}

TEST_F(MmioTransportTest, RefusesFeaturesThatWereNotOffered) {
    EXPECT_FALSE(driver.negotiate(kFeatureVersion1 | uint64_t{1} << 6));
    EXPECT_FALSE(driver.negotiate(kFeatureVersion1 | uint64_t{1} << 34));
    EXPECT_FALSE(driver.negotiate(kFeatureEventIdx)) << "VERSION_1 is a must";
    driver.driver_ok();
    EXPECT_EQ(status(), 3U);
    EXPECT_FALSE(device().active);
    EXPECT_TRUE(driver.negotiate(kFeatureVersion1 | kDeviceFeature));
    driver.set_driver_features(0);
    driver.driver_ok();
    ASSERT_TRUE(device().active);
    EXPECT_EQ(device().active->features, kFeatureVersion1 | kDeviceFeature) << "fixed by then";
}

TEST_F(MmioTransportTest, StatusGoesInOrder) {
    driver.write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
    EXPECT_EQ(status(), 0U);
    driver.write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER);
    EXPECT_EQ(status(), 0U);
    driver.write(VIRTIO_MMIO_STATUS, 0xffffff30 | VIRTIO_CONFIG_S_NEEDS_RESET);
    EXPECT_EQ(status(), 0U) << "not the driver's bits";
    ASSERT_TRUE(driver.start(kFeatures));
    driver.write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    EXPECT_EQ(status(), 15U) << "bits are not cleared one by one";
    driver.write(VIRTIO_MMIO_STATUS, 15 | VIRTIO_CONFIG_S_FAILED);
    EXPECT_EQ(status(), 15U | VIRTIO_CONFIG_S_FAILED);
    driver.write(VIRTIO_MMIO_STATUS, 0);
    EXPECT_EQ(status(), 0U);
}

TEST_F(MmioTransportTest, QueueRegistersAreFixedOnceReady) {
    ASSERT_TRUE(driver.negotiate(kFeatures));
    auto& queue = driver.set_up_queue(0, 16);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_READY), 1U);
    driver.write(VIRTIO_MMIO_QUEUE_NUM, 8);
    driver.write(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x10);
    driver.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x10);
    driver.write(VIRTIO_MMIO_QUEUE_USED_HIGH, 1);
    driver.driver_ok();
    queue.chain().writable(4).send();
    driver.notify(0);
    run_pending(*loop);
    EXPECT_TRUE(queue.take_used());
}

TEST_F(MmioTransportTest, QueueThatIsTakenAwayIsGone) {
    ASSERT_TRUE(driver.start(kFeatures));
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_READY), 0U);
    driver.queue(0).chain().writable(4).send();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    driver.queue(1).chain().writable(4).send();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    run_pending(*loop);
    EXPECT_FALSE(driver.queue(0).take_used());
    EXPECT_TRUE(driver.queue(1).take_used()) << "the other one goes on";
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_READY), 0U) << "only before DRIVER_OK";
}

TEST_F(MmioTransportTest, ImpossibleQueueNeedsReset) {
    ASSERT_TRUE(driver.negotiate(kFeatures));
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    driver.write(VIRTIO_MMIO_QUEUE_NUM, 0x10010);  // 16 in the low half
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_READY), 0U);
    EXPECT_NE(status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0U);
    EXPECT_EQ(interrupt.count(), 0U) << "not before DRIVER_OK";
    driver.driver_ok();
    EXPECT_FALSE(device().active);
    EXPECT_TRUE(driver.start(kFeatures));
}

TEST_F(MmioTransportTest, BrokenQueueStopsAllUntilReset) {
    ASSERT_TRUE(driver.start(kFeatures));
    break_device();
    EXPECT_EQ(status(), 15U | VIRTIO_CONFIG_S_NEEDS_RESET);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2U);
    EXPECT_EQ(interrupt.count(), 1U);
    const int kicks = device().kicks;
    driver.queue(1).chain().writable(4).send();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.write(VIRTIO_MMIO_CONFIG, 0);
    run_pending(*loop);
    EXPECT_EQ(device().kicks, kicks);
    EXPECT_EQ(device().config, 0x1122334455667788U);
    EXPECT_FALSE(driver.queue(1).take_used());
    ASSERT_TRUE(driver.start(kFeatures));
    EXPECT_EQ(device().resets, 1);
    driver.queue(1).chain().writable(4).send();
    driver.notify(1);
    run_pending(*loop);
    EXPECT_TRUE(driver.queue(1).take_used());
}

TEST_F(MmioTransportTest, ResetClearsAll) {
    ASSERT_TRUE(driver.start(kFeatures));
    driver.queue(0).chain().writable(4).send();
    driver.notify(0);
    run_pending(*loop);
    driver.write(VIRTIO_MMIO_STATUS, 0);
    EXPECT_FALSE(device().active);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0U);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_QUEUE_READY), 0U);
    EXPECT_EQ(driver.device_features(), transport->device().offered_features() | kFeatureVersion1 |
                                            kFeatureIndirect | kFeatureEventIdx);
}

TEST_F(MmioTransportTest, ConfigurationSpaceHasAnyWidth) {
    std::array<std::byte, 8> wide{};
    transport->bus_read(VIRTIO_MMIO_CONFIG, wide);
    EXPECT_EQ(load_le(wide), 0x1122334455667788U);
    std::array<std::byte, 2> narrow{};
    transport->bus_read(VIRTIO_MMIO_CONFIG + 2, narrow);
    EXPECT_EQ(load_le(narrow), 0x5566U);
    wide.fill(std::byte{1});
    transport->bus_read(VIRTIO_MMIO_CONFIG + 8, wide);
    EXPECT_EQ(load_le(wide), 0U);
    narrow.fill(std::byte{0xaa});
    transport->bus_write(VIRTIO_MMIO_CONFIG, narrow);
    EXPECT_EQ(device().config, 0x112233445566aaaaU);
}

TEST_F(MmioTransportTest, WrongWidthsAreIgnored) {
    std::array<std::byte, 8> data{};
    for (const size_t width : {1U, 2U, 3U, 8U}) {
        const auto part = std::span(data).first(width);
        std::fill(part.begin(), part.end(), std::byte{0xff});
        transport->bus_read(VIRTIO_MMIO_MAGIC_VALUE, part);
        EXPECT_EQ(load_le(part), 0U);
        part.front() = std::byte{1};
        transport->bus_write(VIRTIO_MMIO_STATUS, part);
        EXPECT_EQ(status(), 0U);
    }
    EXPECT_EQ(driver.read(0x002), 0U);
    EXPECT_EQ(driver.read(0x0f0), 0U);
    driver.write(0x0f0, 1);
}

TEST_F(MmioTransportTest, ConfigChangeIsAnnounced) {
    ASSERT_TRUE(driver.start(kFeatures));
    const auto generation = driver.read(VIRTIO_MMIO_CONFIG_GENERATION);
    device().active->driver->config_changed();
    EXPECT_NE(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    EXPECT_EQ(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2U);
    EXPECT_EQ(interrupt.count(), 1U);
}

TEST_F(MmioTransportTest, FrozenMeansSilent) {
    ASSERT_TRUE(driver.start(kFeatures));
    run_pending(*loop);
    transport->freeze();
    driver.queue(0).chain().writable(4).send();
    driver.notify(0);
    const int kicks = device().kicks;
    run_pending(*loop);
    EXPECT_EQ(device().kicks, kicks);
    EXPECT_FALSE(driver.queue(0).take_used());
    transport->thaw();
    run_pending(*loop);
    EXPECT_TRUE(driver.queue(0).take_used());
}

TEST_F(MmioTransportTest, ThawWakesBothSidesEvenIfNobodyNotified) {
    ASSERT_TRUE(driver.start(kFeatures));
    run_pending(*loop);
    transport->freeze();
    driver.queue(1).chain().writable(4).send();  // and no notify()
    const auto interrupts = interrupt.count();
    transport->thaw();
    EXPECT_GT(interrupt.count(), interrupts);
    run_pending(*loop);
    EXPECT_TRUE(driver.queue(1).take_used());
}

TEST_F(MmioTransportTest, RestoredDeviceServesItsDriver) {
    ASSERT_TRUE(driver.start(kFeatures | kDeviceFeature));
    driver.queue(0).chain().writable(4).send();
    driver.notify(0);
    run_pending(*loop);
    EXPECT_TRUE(driver.queue(0).take_used());
    transport->freeze();
    const auto state = transport->save_state();

    FakeInterrupt other_interrupt;
    auto other = *MmioTransport::create("echo0", *loop, *memory, other_interrupt,
                                        std::make_unique<EchoDevice>());
    other->freeze();
    ASSERT_TRUE(other->restore_state(state));
    driver.queue(0).chain().writable(4).send();
    other->thaw();
    run_pending(*loop);
    const auto used = driver.queue(0).take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 2U) << "the device's own state came along";
    EXPECT_GT(other_interrupt.count(), 0U);
    EXPECT_EQ(dynamic_cast<EchoDevice&>(other->device()).active->features,
              kFeatures | kDeviceFeature);
}

TEST_F(MmioTransportTest, RestoreRefusesWhatCannotBe) {
    ASSERT_TRUE(driver.start(kFeatures));
    transport->freeze();
    const auto good = transport->save_state();
    const auto refused = [&](auto change) {
        auto state = *decode_state<TransportState>(good);
        change(state);
        const bool ok = transport->restore_state(encode_state(state)).has_value();
        EXPECT_EQ(ok || transport->save_state() == good, true) << "changed by a refused state";
        EXPECT_TRUE(device().active);
        return !ok;
    };
    using S = TransportState;
    EXPECT_TRUE(refused([](S& s) { s.device_id = 1; }));
    EXPECT_TRUE(refused([](S& s) { s.status = 4; }));
    EXPECT_TRUE(refused([](S& s) { s.status = 7; }));
    EXPECT_TRUE(refused([](S& s) { s.status |= 0x10; }));
    EXPECT_TRUE(refused([](S& s) { s.status = 3; })) << "but queues are ready";
    EXPECT_TRUE(refused([](S& s) { s.interrupt_status = 4; }));
    EXPECT_TRUE(refused([](S& s) { s.driver_features |= uint64_t{1} << 63; }));
    EXPECT_TRUE(refused([](S& s) { s.driver_features = 0; }));
    EXPECT_TRUE(refused([](S& s) { s.queues.pop_back(); }));
    EXPECT_TRUE(refused([](S& s) { s.queues.emplace_back(); }));
    EXPECT_TRUE(refused([](S& s) { s.queues[0].size = 3; }));
    EXPECT_TRUE(refused([](S& s) { s.queues[0].size = 32; }));
    EXPECT_TRUE(refused([](S& s) { s.queues[1].used = uint64_t{1} << 50; }));
    EXPECT_TRUE(refused([](S& s) { s.device.clear(); }));
    EXPECT_TRUE(refused([](S& s) { s.device = encode_state(EchoDevice::State{1001}); }));
    EXPECT_FALSE(refused([](S& s) { s.device = encode_state(EchoDevice::State{1000}); }));
}

/// Registers from two threads while a third one runs the loop: for ThreadSanitizer.
TEST(MmioTransportThreads, RegistersFromTwoCpus) {
    auto memory = *GuestMemory::create(1 << 20);
    Arena arena(*memory, 0x1000, 0x80000);
    FakeInterrupt interrupt;
    auto thread = *LoopThread::start("test-loop");
    auto transport = *MmioTransport::create("echo0", thread->loop(), *memory, interrupt,
                                            std::make_unique<EchoDevice>());
    FakeMmioDriver driver(*transport, arena);
    ASSERT_TRUE(driver.start(kFeatures));
    std::jthread other([&](const std::stop_token& stop) {
        FakeMmioDriver reader(*transport, arena);
        while (!stop.stop_requested()) {
            reader.read(VIRTIO_MMIO_STATUS);
            reader.read(VIRTIO_MMIO_CONFIG);
            reader.read(VIRTIO_MMIO_INTERRUPT_STATUS);
        }
    });
    for (int i = 0; i < 200; ++i) {
        auto& queue = driver.queue(0);
        queue.chain().writable(4).send();
        driver.notify(0);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!queue.take_used()) {
            ASSERT_LT(std::chrono::steady_clock::now(), end) << "request " << i << " got lost";
            std::this_thread::yield();
        }
        driver.write(VIRTIO_MMIO_INTERRUPT_ACK, driver.read(VIRTIO_MMIO_INTERRUPT_STATUS));
    }
    other.request_stop();
    other.join();
    thread->loop().call([&] { transport.reset(); });
}

class TransportFixture final : public test::SuspendableFixture, Guest {
 public:
    Suspendable& part() override { return *transport; }
    bool change() override {
        if (!device().active) {
            EXPECT_TRUE(driver.start(kFeatures));
        }
        for (int i = 0; i < 3; ++i) {
            driver.queue(0).chain().writable(4).send();
        }
        driver.notify(0);
        run_pending(*loop);
        while (driver.queue(0).take_used()) {
        }
        return true;
    }
    void use() override {
        driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
        run_pending(*loop);
    }
};

IVMM_SUSPENDABLE_CONFORMANCE(MmioTransport, [] { return std::make_unique<TransportFixture>(); });

}  // namespace
}  // namespace ivmm::virtio
