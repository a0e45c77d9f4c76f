#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <tuple>

#include "vmm/watch/alert.h"

namespace ivmm::watch {

/// Suricata writes each alert to the socket and to the file, and may drop it at the socket. Of an
/// alert that comes both ways, this tells the second one, whichever comes first. It remembers a
/// bounded number of alerts. One thread.
class EveLedger {
 public:
    static constexpr size_t kMostAlerts = 65536;
    enum class Way : int8_t { kFile = -1, kSocket = 1 };

    /// Whether the alert has come the other way already.
    bool has_come(const Alert& alert, Way way);

 private:
    using Key = std::tuple<uint64_t, uint64_t, std::string>;  // flow, signature, time
    std::map<Key, int> balance_;  // so many more have come by the socket than by the file
    std::deque<Key> oldest_;
};

}  // namespace ivmm::watch
