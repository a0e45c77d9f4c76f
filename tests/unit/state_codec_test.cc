#include "base/state_codec.h"

#include <gtest/gtest.h>

namespace ivmm {
namespace {

struct Pod {
    uint32_t a;
    uint32_t b;
    bool operator==(const Pod&) const = default;
};

enum class Colour : uint8_t { kRed, kGreen };

struct Inner {
    static constexpr uint32_t kVersion = 7;
    uint16_t number = 0;
    bool operator==(const Inner&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.number);
    }
};

struct Outer {
    static constexpr uint32_t kVersion = 2;
    uint8_t byte = 0;
    uint64_t word = 0;
    bool flag = false;
    Colour colour = Colour::kRed;
    Pod pod{};
    std::array<uint16_t, 3> array{};
    std::vector<Inner> list;
    std::string text;
    std::optional<Inner> maybe;
    bool operator==(const Outer&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.byte, self.word, self.flag, self.colour, self.pod, self.array, self.list,
              self.text, self.maybe);
    }
};

struct Empty {
    static constexpr uint32_t kVersion = 1;
    bool operator==(const Empty&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& /*self*/) {
        visit();
    }
};

Outer example() {
    return {1, 2, true, Colour::kGreen, {3, 4}, {5, 6, 7}, {{8}, {9}}, "text", Inner{10}};
}

}  // namespace

template <>
inline constexpr bool kStatePod<Pod> = true;

namespace {

TEST(StateCodecTest, ComesBackEqual) {
    EXPECT_EQ(*decode_state<Outer>(encode_state(example())), example());
    EXPECT_EQ(*decode_state<Outer>(encode_state(Outer{})), Outer{});
    EXPECT_TRUE(decode_state<Empty>(encode_state(Empty{})));
}

TEST(StateCodecTest, LayoutIsFixed) {
    const auto bytes = encode_state(Inner{0x1234});
    const std::vector<std::byte> expected = {std::byte{7}, std::byte{0},    std::byte{0},
                                             std::byte{0}, std::byte{0x34}, std::byte{0x12}};
    EXPECT_EQ(bytes, expected);
}

TEST(StateCodecTest, RefusesEveryOtherLength) {
    auto bytes = encode_state(example());
    for (size_t n = 0; n < bytes.size(); ++n) {
        EXPECT_FALSE(decode_state<Outer>(std::span(bytes).first(n))) << n;
    }
    bytes.push_back(std::byte{0});
    const auto longer = decode_state<Outer>(bytes);
    ASSERT_FALSE(longer);
    EXPECT_NE(longer.error().message.find("too many"), std::string::npos);
}

TEST(StateCodecTest, RefusesOtherVersionsAtEachLevel) {
    auto bytes = encode_state(example());
    bytes[0] = std::byte{3};
    const auto other = decode_state<Outer>(bytes);
    ASSERT_FALSE(other);
    EXPECT_NE(other.error().message.find("version 3"), std::string::npos);
    bytes = encode_state(example());
    bytes[bytes.size() - 6] = std::byte{8};  // of `maybe`
    EXPECT_FALSE(decode_state<Outer>(bytes));
}

TEST(StateCodecTest, RefusesWhatIsNoBoolean) {
    auto bytes = encode_state(example());
    bytes[4 + 1 + 8] = std::byte{2};
    EXPECT_FALSE(decode_state<Outer>(bytes));
}

TEST(StateCodecTest, HugeListsAreRefusedBeforeTheyAreAllocated) {
    StateWriter writer;
    writer(uint64_t{1} << 60);
    std::vector<uint64_t> list;
    std::string text;
    for (const int kind : {0, 1}) {
        StateReader reader(writer.bytes());
        kind == 0 ? reader(list) : reader(text);
        EXPECT_FALSE(reader.finish());
    }
    EXPECT_EQ(list.capacity(), 0U);
}

}  // namespace
}  // namespace ivmm
