#include <gtest/gtest.h>

#include <algorithm>

#include "devices/rng/virtio_rng.h"
#include "tests/support/fake_driver.h"

namespace ivmm::virtio {
namespace {

class VirtioRngTest : public ::testing::Test {
 protected:
    VirtioRngTest() { port_.activate(kFeatureVersion1 | kFeatureEventIdx); }

    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(8 << 20);
    test::Arena arena_{*memory_, 0x1000, 4 << 20};
    VirtioRng rng_{*memory_};
    test::FakeDevicePort port_{*memory_, arena_, rng_};
};

TEST_F(VirtioRngTest, FillsBuffers) {
    port_.queue(0).chain().writable(300).writable(700).send();
    port_.kick(0);
    const auto used = port_.queue(0).take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 1000U);
    const auto bytes = port_.queue(0).written(*used);
    // A thousand random bytes hold about 250 different values.
    std::set<std::byte> values(bytes.begin(), bytes.end());
    EXPECT_GT(values.size(), 150U);
    EXPECT_EQ(port_.interrupts(0), 1U);
}

TEST_F(VirtioRngTest, OneRequestIsBounded) {
    port_.queue(0).chain().writable(1 << 20).send();
    port_.kick(0);
    EXPECT_EQ(port_.queue(0).take_used()->written, VirtioRng::kMaxRequestBytes);
}

TEST_F(VirtioRngTest, OneRoundIsBounded) {
    for (int i = 0; i < 16; ++i) {
        port_.queue(0).chain().writable_at(0x700000, 64 << 10).send();
    }
    port_.kick_once(0);
    EXPECT_LT(port_.queue(0).used_index(), 16);
    EXPECT_EQ(port_.kick_later_requests().size(), 1U);
    port_.kick(0);
    EXPECT_EQ(port_.queue(0).used_index(), 16);
}

TEST_F(VirtioRngTest, EmptyAndReadableRequestsCostNothing) {
    port_.queue(0).chain().readable("text").send();
    for (int i = 0; i < 50; ++i) {
        port_.queue(0).chain().writable_at(0x1000, 0).send();
    }
    port_.kick_once(0);
    EXPECT_LT(port_.queue(0).used_index(), 51) << "empty requests count as well";
    port_.kick(0);
    EXPECT_EQ(port_.queue(0).used_index(), 51);
    EXPECT_EQ(port_.queue(0).take_used()->written, 0U);
}

}  // namespace
}  // namespace ivmm::virtio
