#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "vmm/watch/alert.h"
#include "vmm/watch/lru_map.h"
#include "vmm/watch/rules.h"
#include "vmm/watch/sliding_count.h"

namespace ivmm::watch {

/// A flow of the guest's, as the switch tells of it.
struct SeenFlow {
    uint32_t serial = 0;
    uint8_t protocol = 0;
    End remote;
    End local;
    bool by_remote = true;  ///< opened by the far end
    bool is_closed = false;
    uint32_t idle_s = 0;
};

/// Finds attackers without an IDS. Knows no clock; what it remembers is bounded: who has not been
/// seen for the longest time is forgotten.
class Detectors {
 public:
    static constexpr size_t kMostPeers = 4096;

    explicit Detectors(Detect detect) : detect_(std::move(detect)) {}

    /// `fresh`: flows not seen before, each once. Sources: "address-list", "decoy", "scan".
    std::vector<Alert> look_at(std::span<const SeenFlow> fresh, uint64_t now_ms);
    /// All flows that there are at the ports for logins, again and again. Source: "logins".
    std::vector<Alert> look_at_logins(std::span<const SeenFlow> flows, uint64_t now_ms);
    /// The switch numbers its flows anew.
    void forget_flows() { logins_.clear(); }

 private:
    struct Login {
        uint64_t since_ms = 0;
        bool is_done = false;
    };
    using Ports = std::map<std::pair<net::IpAddress, uint16_t>, uint64_t>;  // opened when

    bool scans(const SeenFlow& flow, uint64_t now_ms);

    const Detect detect_;
    LruMap<net::IpAddress, Ports> opened_{kMostPeers};
    LruMap<net::IpAddress, SlidingCount> failed_{kMostPeers};
    std::map<uint32_t, Login> logins_;  // by serial; those that there were the last time
};

}  // namespace ivmm::watch
