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

TEST(Ring, WhatWasNotTakenYetCanBeTakenBack) {
    Bed bed;
    std::vector<int> got;
    std::vector<int> back;
    uint8_t number = 0;
    // Several times around the ring, which leaves no room when what was taken back keeps its own.
    for (int round = 0; round < 200; ++round) {
        for (int i = 0; i < 10; ++i) {
            const auto room = bed.producer.reserve(3000 + 100 * static_cast<size_t>(i));
            ASSERT_TRUE(room);
            room->front() = std::byte{number++};
            bed.producer.push({});
        }
        bed.producer.publish();
        const auto first = bed.consumer.next();
        ASSERT_TRUE(first);
        got.push_back(std::to_integer<int>(first->frame.front()));
        bed.consumer.release();
        size_t shown = 0;
        bed.producer.take_back([&](const VnetHeader&, ConstByteSpan frame) {
            ++shown;
            const int value = std::to_integer<int>(frame.front());
            if (value % 3 != 0 && round % 10 != 0) {
                return false;
            }
            back.push_back(value);
            return true;
        });
        EXPECT_EQ(shown, 9U);
        bed.producer.take_back([](const VnetHeader&, ConstByteSpan frame) {
            EXPECT_NE(std::to_integer<int>(frame.front()) % 3, 0) << "shown twice";
            return false;
        });
        while (const auto record = bed.consumer.next()) {
            got.push_back(std::to_integer<int>(record->frame.front()));
        }
        bed.consumer.release();
    }
    EXPECT_FALSE(bed.consumer.broken());
    EXPECT_EQ(got.size() + back.size(), 2000U);
    EXPECT_TRUE(bed.consumer.sleep());
}

TEST(Ring, APeerThatLiesIsShownNothingOutside) {
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
        Bed bed;
        for (int frames = 0; frames < 20; ++frames) {
            ASSERT_TRUE(bed.producer.reserve(random() % 500));
            bed.producer.push({});
        }
        bed.producer.publish();
        const uint32_t word = random() % 3 == 0 ? UINT32_MAX : static_cast<uint32_t>(random());
        std::memcpy(bed.data + random() % 4000 / 4 * 4, &word, sizeof(word));
        bed.state.consumed = random() % 2 == 0 ? static_cast<uint32_t>(random()) : 0;
        const std::byte* const end = bed.data + kRingBytes;
        bed.producer.take_back([&](const VnetHeader&, ConstByteSpan frame) {
            EXPECT_GE(frame.data(), bed.data);
            EXPECT_LE(frame.data() + frame.size(), end);
            return true;
        });
    }
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
