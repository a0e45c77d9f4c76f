#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "net/frame.h"

namespace ivmm::net {

/// Who has which address on the uplink, as ARP and IPv6 neighbour discovery have told. The switch
/// answers the questions of clones from this, so that none of them gets out. Bounded. One thread.
class Neighbours {
 public:
    static constexpr size_t kMost = 4096;

    /// Learns from a frame that has come from an uplink.
    void learn(const Headers& headers, ConstByteSpan head);
    std::optional<MacAddress> find(const IpAddress& address) const;

    /// The answer to an ARP request or a neighbour solicitation, if it is one and there is one.
    std::optional<std::vector<std::byte>> answer(const Headers& headers, ConstByteSpan head) const;

 private:
    void learn(const IpAddress& address, const MacAddress& mac);

    struct Hash {
        size_t operator()(const IpAddress& address) const;
    };
    std::unordered_map<IpAddress, MacAddress, Hash> known_;
};

/// The answer to an ARP request that says "`mac` has it".
std::vector<std::byte> make_arp_reply(const Headers& request, ConstByteSpan head,
                                      const MacAddress& mac);

}  // namespace ivmm::net
