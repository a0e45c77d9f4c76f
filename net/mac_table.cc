#include "net/mac_table.h"

#include <cstring>

namespace ivmm::net {

size_t MacTable::Hash::operator()(const MacAddress& mac) const {
    uint64_t value = 0;
    std::memcpy(&value, mac.data(), mac.size());
    return value * 0x9e3779b97f4a7c15U >> 16;
}

void MacTable::learn(const MacAddress& mac, PortId port, size_t limit, uint32_t now_s) {
    if (is_multicast(mac)) {
        return;
    }
    const auto known = stations_.find(mac);
    if (known != stations_.end()) {
        Station& station = known->second;
        if (station.port == port) {
            station.last_seen_s = now_s;
        } else if (now_s - station.last_seen_s >= kAgeing && counts_[port] < limit) {
            --counts_[station.port];
            ++counts_[port];
            station = {port, now_s};
        }
        return;
    }
    if (counts_[port] < limit && stations_.size() < kMax) {
        stations_.emplace(mac, Station{port, now_s});
        ++counts_[port];
    }
}

std::optional<PortId> MacTable::find(const MacAddress& mac, uint32_t now_s) const {
    const auto known = stations_.find(mac);
    if (known == stations_.end() || now_s - known->second.last_seen_s >= kAgeing) {
        return std::nullopt;
    }
    return known->second.port;
}

void MacTable::forget_port(PortId port) {
    std::erase_if(stations_, [&](const auto& entry) { return entry.second.port == port; });
    counts_[port] = 0;
}

void MacTable::expire(uint32_t now_s) {
    std::erase_if(stations_, [&](const auto& entry) {
        const bool old = now_s - entry.second.last_seen_s >= kAgeing;
        counts_[entry.second.port] -= old ? 1 : 0;
        return old;
    });
}

}  // namespace ivmm::net
