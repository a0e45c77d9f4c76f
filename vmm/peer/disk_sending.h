#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/peer/link.h"

namespace ivmm::peer {

/// Disks that nobody writes any more, on their way to another host.
class DiskSending {
 public:
    static Result<DiskSending> open(const std::vector<std::string>& paths);
    /// What there is to send.
    const Disks& offer() const { return offer_; }
    /// Sends the data of the disks for which `wanted` is not 0; holes are not sent. Errors also:
    /// the other side says that it cannot take them.
    Result<void> send(Link& link, const std::vector<uint8_t>& wanted) const;

 private:
    Disks offer_;
    std::vector<UniqueFd> files_;
};

}  // namespace ivmm::peer
