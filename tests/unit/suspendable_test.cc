#include <unistd.h>

#include "devices/blk/uring_disk.h"
#include "devices/blk/virtio_blk.h"
#include "devices/rng/virtio_rng.h"
#include "devices/virtio/mmio_transport.h"
#include "tests/support/fake_driver.h"
#include "tests/support/suspendable_conformance.h"

/// The conformance suite for the virtio devices that have no backend of interest, each behind its
/// transport as in a machine.
namespace ivmm::virtio {
namespace {

constexpr uint64_t kFeatures = kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirect;

/// One device behind a transport, with a driver that uses its first queue.
class DeviceFixture : public test::SuspendableFixture {
 public:
    Suspendable& part() override { return *transport_; }
    bool change() override {
        if (!started_) {
            EXPECT_TRUE(driver_.start(kFeatures));
            started_ = true;
        }
        for (int i = 0; i < 3; ++i) {
            send();
        }
        driver_.notify(0);
        EXPECT_TRUE(test::run_until(*loop_, [&] {
            while (driver_.queue(0).take_used()) {
            }
            return driver_.queue(0).used_index() == driver_.queue(0).available_index();
        }));
        return true;
    }
    void use() override {
        driver_.write(MmioTransport::kQueueNotify, 0);
        test::run_pending(*loop_);
    }

 protected:
    virtual void send() = 0;
    void add(std::unique_ptr<Device> device) {
        transport_ =
            *MmioTransport::create("test0", *loop_, *memory_, interrupt_, std::move(device));
    }

    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(2 << 20);
    test::Arena arena_{*memory_, 0x1000, 1 << 20};
    test::FakeInterrupt interrupt_;
    std::unique_ptr<MmioTransport> transport_;

    /// Reaches the transport once there is one.
    class Proxy final : public BusDevice {
     public:
        explicit Proxy(std::unique_ptr<MmioTransport>& transport) : transport_(transport) {}
        void bus_read(uint64_t offset, ByteSpan data) override {
            transport_->bus_read(offset, data);
        }
        void bus_write(uint64_t offset, ConstByteSpan data) override {
            transport_->bus_write(offset, data);
        }

     private:
        std::unique_ptr<MmioTransport>& transport_;
    };
    Proxy proxy_{transport_};
    test::FakeMmioDriver driver_{proxy_, arena_};
    bool started_ = false;
};

class RngFixture final : public DeviceFixture {
 public:
    RngFixture() { add(std::make_unique<VirtioRng>(*memory_)); }

 private:
    void send() override { driver_.queue(0).chain().writable(16).send(); }
};

class BlkFixture final : public DeviceFixture {
 public:
    BlkFixture() {
        std::string path = "/tmp/ivmm-suspendable-XXXXXX";
        const UniqueFd file(::mkstemp(path.data()));
        EXPECT_EQ(::ftruncate(file.get(), 1 << 20), 0);
        auto disk = UringDisk::open(path, false, 8);
        ::unlink(path.c_str());
        EXPECT_TRUE(disk) << disk.error().message;
        add(*VirtioBlk::create(*loop_, *memory_, *std::move(disk), "serial", 2));
    }

 private:
    void send() override {
        const virtio_blk_outhdr header{VIRTIO_BLK_T_IN, 0, 1};
        driver_.queue(0).chain().readable(bytes_of(header)).writable(512).writable(1).send();
    }
};

IVMM_SUSPENDABLE_CONFORMANCE(VirtioRng, [] { return std::make_unique<RngFixture>(); });
IVMM_SUSPENDABLE_CONFORMANCE(VirtioBlk, [] { return std::make_unique<BlkFixture>(); });

}  // namespace
}  // namespace ivmm::virtio
