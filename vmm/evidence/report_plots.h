#pragma once

#include <string>
#include <vector>

#include "vmm/evidence/findings.h"

/// What the report shows as pictures (HTML with SVG in it), each with the texts beside it, so that
/// they can be read at any width.
namespace ivmm::evidence {

/// What happened when, a lane for each kind of event.
std::string plot_timeline(const std::vector<rpc::Json>& timeline);
/// How much memory and disk the clone has written over time.
std::string plot_history(const rpc::Json& history);
/// Which parts of the memory have changed.
std::string plot_memory(const rpc::Json& memory);

}  // namespace ivmm::evidence
