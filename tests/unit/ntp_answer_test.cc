// What a clone is told when it asks for the time.

#include "net/ntp_answer.h"

#include <gtest/gtest.h>

#include "net/wire.h"

namespace ivmm::net {
namespace {

using Bytes = std::vector<std::byte>;

Bytes query(uint8_t first) {
    Bytes bytes(48);
    store8(bytes, 0, first);
    store8(bytes, 2, 6);
    store_be32(bytes, 40, 0x11223344);
    store_be32(bytes, 44, 0x55667788);
    return bytes;
}

TEST(NtpAnswer, TellsTheTime) {
    // 2024-01-01 00:00:00.5
    const auto answer = answer_ntp(query(0xe3), 1'704'067'200'500'000'000U);
    ASSERT_TRUE(answer.has_value());
    ASSERT_EQ(answer->size(), 48U);
    EXPECT_EQ(load8(*answer, 0), 0x24);  // version 4, a server, no leap second
    EXPECT_EQ(load8(*answer, 1), 1);
    EXPECT_EQ(load8(*answer, 2), 6);
    EXPECT_EQ(load_be32(*answer, 24), 0x11223344U);
    EXPECT_EQ(load_be32(*answer, 28), 0x55667788U);
    EXPECT_EQ(load_be32(*answer, 32), 3'913'056'000U);
    EXPECT_EQ(load_be32(*answer, 36), 0x80000000U);
    EXPECT_LE(load_be32(*answer, 16), load_be32(*answer, 32));
    EXPECT_EQ(load8(*answer_ntp(query(0x0b), 0), 0), 0x0c);  // version 1
}

TEST(NtpAnswer, OthersGetNone) {
    for (const uint8_t first : std::initializer_list<uint8_t>{0x24, 0x00, 0x03, 0x2b, 0x1d, 0x26}) {
        EXPECT_EQ(answer_ntp(query(first), 0), std::nullopt) << int{first};
    }
    auto bytes = query(0x23);
    bytes.pop_back();
    EXPECT_EQ(answer_ntp(bytes, 0), std::nullopt);
}

}  // namespace
}  // namespace ivmm::net
