#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "net/address.h"

namespace ivmm::net {

/// A port's place in the switch.
using PortId = uint8_t;

/// Where stations were seen last. Bounded as a whole and by port; who is known on one port is not
/// believed to be on another one before it has been silent for kAgeing, so nobody can take a
/// station's place. One thread.
class MacTable {
 public:
    static constexpr uint32_t kAgeing = 300;  ///< seconds
    static constexpr size_t kMax = 8192;

    /// `limit`: how many the port may have.
    void learn(const MacAddress& mac, PortId port, size_t limit, uint32_t now_s);
    std::optional<PortId> find(const MacAddress& mac, uint32_t now_s) const;
    void forget_port(PortId port);
    void expire(uint32_t now_s);
    size_t size() const { return stations_.size(); }

 private:
    struct Station {
        PortId port = 0;
        uint32_t last_seen_s = 0;
    };
    struct Hash {
        size_t operator()(const MacAddress& mac) const;
    };

    std::unordered_map<MacAddress, Station, Hash> stations_;
    std::array<size_t, 256> counts_{};  // by port
};

}  // namespace ivmm::net
