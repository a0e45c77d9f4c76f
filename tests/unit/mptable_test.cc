#include "vmm/boot/mptable.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

uint8_t sum(ConstByteSpan bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), uint8_t{0}, [](uint8_t total, std::byte b) {
        return static_cast<uint8_t>(total + std::to_integer<uint8_t>(b));
    });
}

/// The entries of the table as a kernel finds them: by type.
std::multimap<int, std::vector<uint8_t>> read_table(const GuestMemory& memory) {
    std::vector<std::byte> area(layout::kMpTableSize);
    EXPECT_TRUE(memory.read(layout::kMpTable, area));
    const ConstByteSpan bytes(area);
    EXPECT_EQ(std::memcmp(bytes.data(), "_MP_", 4), 0);
    EXPECT_EQ(sum(bytes.first(16)), 0);
    EXPECT_EQ(load_le(bytes.subspan(4, 4)), layout::kMpTable + 16);
    const ConstByteSpan table = bytes.subspan(16, load_le(bytes.subspan(20, 2)));
    EXPECT_EQ(std::memcmp(table.data(), "PCMP", 4), 0);
    EXPECT_EQ(sum(table), 0);
    EXPECT_EQ(load_le(table.subspan(36, 4)), 0xfee00000U);

    std::multimap<int, std::vector<uint8_t>> entries;
    size_t at = 44;
    while (at < table.size()) {
        const size_t size = table[at] == std::byte{0} ? 20 : 8;
        std::vector<uint8_t> entry(size);
        std::memcpy(entry.data(), table.subspan(at, size).data(), size);
        entries.emplace(entry[0], entry);
        at += size;
    }
    EXPECT_EQ(at, table.size());
    EXPECT_EQ(entries.size(), load_le(table.subspan(34, 2)));
    return entries;
}

TEST(MpTable, DescribesTheMachine) {
    auto memory = *GuestMemory::create(1 << 20);
    ASSERT_TRUE(write_mptable(*memory, 8));
    const auto entries = read_table(*memory);
    EXPECT_EQ(entries.count(0), 8U);
    EXPECT_EQ(entries.count(1), 1U);
    EXPECT_EQ(entries.count(2), 1U);
    EXPECT_EQ(entries.count(3), 24U);
    EXPECT_EQ(entries.count(4), 2U);

    uint8_t cpu = 0;
    for (auto [it, end] = entries.equal_range(0); it != end; ++it, ++cpu) {
        EXPECT_EQ(it->second[1], cpu);
        EXPECT_EQ(it->second[3], cpu == 0 ? 3 : 1);
    }
    const uint8_t io_apic = entries.find(2)->second[1];
    EXPECT_GE(io_apic, 8);
    uint8_t pin = 0;
    for (auto [it, end] = entries.equal_range(3); it != end; ++it, ++pin) {
        EXPECT_EQ(it->second, (std::vector<uint8_t>{3, 0, 5, 0, 0, pin, io_apic, pin}));
    }
}

TEST(MpTable, OneProcessor) {
    auto memory = *GuestMemory::create(1 << 20);
    ASSERT_TRUE(write_mptable(*memory, 1));
    EXPECT_EQ(read_table(*memory).count(0), 1U);
}

}  // namespace
}  // namespace ivmm
