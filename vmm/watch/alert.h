#pragma once

#include <cstdint>
#include <string>

#include "net/address.h"

namespace ivmm::watch {

/// One end of a flow. Port 0: not known.
struct End {
    net::IpAddress address;
    uint16_t port = 0;
};

/// Somebody's word that a guest is attacked. All texts are bounded; what is in them may be the
/// attacker's.
struct Alert {
    static constexpr size_t kMaxText = 256;

    std::string source;  ///< "eve", a detector's name, or whatever a program calls itself
    End attacker;
    End victim;                 ///< unspecified: not known
    uint64_t flow_id = 0;       ///< Suricata's; 0: none
    uint64_t signature_id = 0;  ///< 0: none
    std::string signature;
    std::string category;
    uint32_t severity = 0;  ///< 1 is the worst; 0: none
    std::string timestamp;  ///< of the sender; empty: none
};

}  // namespace ivmm::watch
