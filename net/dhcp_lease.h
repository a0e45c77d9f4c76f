#pragma once

#include <optional>
#include <vector>

#include "net/frame.h"

namespace ivmm::net {

/// The lease that the primary has got, for its clones: they ask for it again, and the switch
/// answers what the server had said. One thread.
class DhcpLease {
 public:
    /// Remembers an acknowledgement that is on its way to the primary.
    void learn(const Headers& headers, const Frame& frame);
    /// Whether this is what a DHCP client sends.
    static bool is_request(const Headers& headers);
    /// The answer to a clone's question, if the lease is known.
    std::optional<std::vector<std::byte>> answer(const Headers& headers, ConstByteSpan head) const;

 private:
    std::vector<std::byte> acknowledgement_;  // the whole frame
    uint16_t payload_ = 0;                    // offset of the DHCP message in it
    size_t type_ = 0;                         // offset of the message type in it
};

}  // namespace ivmm::net
