#include "devices/bus.h"

#include <gtest/gtest.h>

#include <array>

namespace ivmm {
namespace {

class Recorder final : public BusDevice {
 public:
    void bus_read(uint64_t offset, ByteSpan data) override {
        last_offset = offset;
        store_le(data, 0x42);
    }
    void bus_write(uint64_t offset, ConstByteSpan data) override {
        last_offset = offset;
        written = load_le(data);
    }
    uint64_t last_offset = ~uint64_t{0};
    uint64_t written = 0;
};

TEST(BusTest, RoutesToTheDeviceOfTheAddress) {
    Bus bus;
    Recorder a;
    Recorder b;
    ASSERT_TRUE(bus.add(0x100, 0x10, a));
    ASSERT_TRUE(bus.add(0x110, 0x10, b));
    std::array<std::byte, 4> data{};
    bus.read(0x10c, data);
    EXPECT_EQ(load_le(data), 0x42U);
    EXPECT_EQ(a.last_offset, 0xcU);
    bus.write(0x110, data);
    EXPECT_EQ(b.last_offset, 0U);
    EXPECT_EQ(b.written, 0x42U);
}

TEST(BusTest, NobodyAnswersWithOnes) {
    Bus bus;
    Recorder a;
    ASSERT_TRUE(bus.add(0x100, 0x10, a));
    for (const uint64_t address : {0x0fdU, 0x10dU, 0x110U, 0x0U}) {
        std::array<std::byte, 4> data{};
        bus.read(address, data);
        EXPECT_EQ(load_le(data), 0xffffffffU) << address;
        bus.write(address, data);
    }
    EXPECT_EQ(a.last_offset, ~uint64_t{0}) << "also where only a part is the device's";
}

TEST(BusTest, RefusesRangesThatMeet) {
    Bus bus;
    Recorder a;
    ASSERT_TRUE(bus.add(0x100, 0x10, a));
    EXPECT_FALSE(bus.add(0x100, 0x10, a));
    EXPECT_FALSE(bus.add(0x10f, 1, a));
    EXPECT_FALSE(bus.add(0xf0, 0x11, a));
    EXPECT_FALSE(bus.add(0xf0, 0x100, a));
    EXPECT_FALSE(bus.add(0x200, 0, a));
    EXPECT_FALSE(bus.add(~uint64_t{0}, 2, a));
    EXPECT_TRUE(bus.add(0xf0, 0x10, a));
    EXPECT_TRUE(bus.add(0x110, 1, a));
}

}  // namespace
}  // namespace ivmm
