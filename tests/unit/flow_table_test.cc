#include "net/flow_table.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace ivmm::net {
namespace {

FlowKey key(uint32_t n) {
    FlowKey key;
    key.remote = *parse_ip("198.51.100.1");
    key.local = *parse_ip("192.0.2.1");
    key.protocol = kTcp;
    key.remote_port = static_cast<uint16_t>(n);
    key.outer_vlan = static_cast<uint16_t>(n >> 16);
    return key;
}

Flow& open_flow(FlowTable& table, uint32_t n, uint32_t now_s) {
    Flow& flow = *table.add(key(n), now_s);
    table.touch(flow, Direction::kIn, 60, kTcpSyn, now_s);
    table.touch(flow, Direction::kOut, 60, kTcpSyn | kTcpAck, now_s);
    return flow;
}

TEST(FlowTable, FindsWhatIsThereAndNothingElse) {
    FlowTable table(1000);
    std::set<uint32_t> there;
    std::mt19937 random(1);
    for (int i = 0; i < 20000; ++i) {
        const auto n = static_cast<uint32_t>(random() % 2000);
        if (Flow* const flow = table.find(key(n))) {
            ASSERT_TRUE(there.contains(n));
            table.remove(*flow);
            there.erase(n);
        } else {
            ASSERT_FALSE(there.contains(n));
            if (there.size() < 1000) {
                ASSERT_NE(table.add(key(n), 1), nullptr);
                there.insert(n);
            }
        }
        ASSERT_EQ(table.size(), there.size());
    }
    size_t visited = 0;
    table.for_each([&](const Flow& flow) {
        visited += there.contains(flow.key.remote_port) ? 1 : 0;
        return true;
    });
    EXPECT_EQ(visited, there.size());
}

TEST(FlowTable, ASynFloodEvictsNeitherOpenNorPinnedFlows) {
    FlowTable table(1000);
    for (uint32_t n = 0; n < 400; ++n) {
        open_flow(table, n, 1);
    }
    table.pin(*table.add(key(500), 1));
    for (uint32_t n = 0; n < 100'000; ++n) {
        ASSERT_NE(table.add(key(0x10000 + n), 2), nullptr);
    }
    for (uint32_t n = 0; n < 400; ++n) {
        ASSERT_NE(table.find(key(n)), nullptr);
    }
    EXPECT_NE(table.find(key(500)), nullptr);
    EXPECT_EQ(table.size(), 1000U);
    EXPECT_EQ(table.evicted(), 100'000U - 599U);
}

TEST(FlowTable, WhenAllArePinnedNothingIsAdded) {
    FlowTable table(8);
    for (uint32_t n = 0; n < 8; ++n) {
        table.pin(*table.add(key(n), 1));
    }
    EXPECT_EQ(table.add(key(9), 1), nullptr);
    table.unpin_all();
    EXPECT_NE(table.add(key(9), 1), nullptr);
    EXPECT_EQ(table.find(key(0)), nullptr);
}

TEST(FlowTable, WhoIsToBeKeptIsPinnedInsteadOfEvicted) {
    FlowTable table(4, [](const Flow& flow) { return flow.key.remote_port == 1; });
    for (uint32_t n = 1; n <= 4; ++n) {
        table.add(key(n), 1);
    }
    table.add(key(5), 1);
    EXPECT_NE(table.find(key(1)), nullptr);
    EXPECT_EQ(table.find(key(2)), nullptr);
    EXPECT_EQ(table.pinned(), 1U);
}

TEST(FlowTable, IdleFlowsGo) {
    FlowTable table(100);
    table.add(key(1), 1000);
    open_flow(table, 2, 1000);
    table.expire(1059);
    EXPECT_EQ(table.size(), 2U);
    table.expire(1060);
    EXPECT_EQ(table.find(key(1)), nullptr);
    table.expire(1000 + 7199);
    EXPECT_NE(table.find(key(2)), nullptr);
    table.expire(1000 + 7200);
    EXPECT_EQ(table.size(), 0U);
}

TEST(FlowTable, AMillionFlowsFitInTheMemoryThatIsStated) {
    FlowTable table(1'000'000);
    EXPECT_LE(table.memory_bytes(), size_t{1'000'000} * 120);
    for (uint32_t n = 0; n < 1'000'000; ++n) {
        ASSERT_NE(table.add(key(n), 1), nullptr);
    }
    EXPECT_EQ(table.evicted(), 0U);
}

}  // namespace
}  // namespace ivmm::net
