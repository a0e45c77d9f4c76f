#pragma once

#include <vector>

#include "vmm/evidence/findings.h"

namespace ivmm::evidence {

/// Everything that has a time, in its order, as Timesketch and Cowrie's readers take it:
/// `datetime`, `timestamp_desc`, `eventid`, `sensor`, `message` and what belongs to the event
/// (docs/evidence.md).
std::vector<rpc::Json> make_timeline(const Findings& findings);

}  // namespace ivmm::evidence
