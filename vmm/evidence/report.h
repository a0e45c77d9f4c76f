#pragma once

#include <string>
#include <vector>

#include "vmm/evidence/findings.h"

namespace ivmm::evidence {

/// A page that tells somebody who was not there what has happened: it needs no other file and no
/// script. `missing`: what could not be had. Bounded: of long lists it has the beginning, and says
/// which file has the rest.
std::string make_report(const Findings& findings, const std::vector<rpc::Json>& timeline,
                        const std::vector<std::string>& missing);

}  // namespace ivmm::evidence
