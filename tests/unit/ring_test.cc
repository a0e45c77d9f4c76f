#include "net/ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

namespace ivmm::net {
namespace {

/// One direction, and both ends of it.
struct Bed {
    std::unique_ptr<std::byte[]> memory{// NOLINT(*-avoid-c-arrays): aligned, and large
                                        new (std::align_val_t{64})
                                            std::byte[kRingStateBytes + kRingBytes]()};
    RingProducer producer{memory.get()};
    RingConsumer consumer{memory.get()};
    RingState& state{*reinterpret_cast<RingState*>(memory.get())};
    std::byte* data{memory.get() + kRingStateBytes};

    ~Bed() { ::operator delete[](memory.release(), std::align_val_t{64}); }
};

TEST(Ring, FramesOfAllLengthsComeOutAsTheyWentIn) {
    Bed bed;
    std::mt19937 random(1);
    uint32_t sent = 0;
    uint32_t got = 0;
    std::vector<size_t> lengths;
    while (got < 5000) {
        const size_t length = random() % 4 == 0 ? random() % kMaxFrameLength : 14 + random() % 1500;
        if (sent < 5000) {
            if (const auto room = bed.producer.reserve(length)) {
                std::fill(room->begin(), room->end(), static_cast<std::byte>(sent));
                VnetHeader vnet;
                vnet.gso_size = static_cast<uint16_t>(sent);
                bed.producer.push(vnet);
                lengths.push_back(length);
                ++sent;
                if (random() % 4 != 0) {
                    continue;
                }
            }
        }
        bed.producer.publish();
        while (const auto record = bed.consumer.next()) {
            ASSERT_EQ(record->frame.size(), lengths[got]);
            ASSERT_EQ(record->vnet.gso_size, static_cast<uint16_t>(got));
            if (!record->frame.empty()) {
                ASSERT_EQ(record->frame.front(), static_cast<std::byte>(got));
                ASSERT_EQ(record->frame.back(), static_cast<std::byte>(got));
            }
            ++got;
        }
        bed.consumer.release();
    }
    EXPECT_FALSE(bed.consumer.broken());
    EXPECT_FALSE(bed.producer.broken());
}

TEST(Ring, WhoSleepsIsWoken) {
    Bed bed;
    ASSERT_TRUE(bed.consumer.sleep());
    ASSERT_TRUE(bed.producer.reserve(100));
    bed.producer.push({});
    EXPECT_TRUE(bed.producer.publish());
    EXPECT_FALSE(bed.producer.publish());
    EXPECT_FALSE(bed.consumer.sleep());
    EXPECT_FALSE(bed.producer.sleep());  // there is room
    while (bed.producer.reserve(1000)) {
        bed.producer.push({});
    }
    bed.producer.publish();
    EXPECT_TRUE(bed.producer.sleep());
    while (bed.consumer.next()) {
    }
    EXPECT_TRUE(bed.consumer.release());
    EXPECT_TRUE(bed.producer.reserve(1000));
}

TEST(Ring, APeerThatLiesBreaksItsRing) {
    const auto length_at_start = [](Bed& bed, uint32_t length) {
        std::memcpy(bed.data, &length, sizeof(length));
    };
    for (const uint32_t produced : {1U, 15U, static_cast<uint32_t>(kRingBytes) + 16, UINT32_MAX}) {
        Bed bed;
        bed.state.produced = produced;
        EXPECT_FALSE(bed.consumer.next());
        EXPECT_TRUE(bed.consumer.broken()) << produced;
    }
    for (const uint32_t length : {static_cast<uint32_t>(kMaxFrameLength) + 1, 1000U, UINT32_MAX}) {
        Bed bed;
        bed.state.produced = 64;
        length_at_start(bed, length);
        EXPECT_FALSE(bed.consumer.next());
        EXPECT_TRUE(bed.consumer.broken()) << length;
    }
    Bed bed;
    bed.state.consumed = 1'000'000;
    EXPECT_FALSE(bed.producer.reserve(100));
    EXPECT_TRUE(bed.producer.broken());
}

}  // namespace
}  // namespace ivmm::net
