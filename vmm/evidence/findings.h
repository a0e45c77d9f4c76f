#pragma once

#include <string>
#include <vector>

#include "vmm/control/json_rpc.h"

namespace ivmm::evidence {

/// What is known of a clone, for the timeline and the report; as the files of the bundle have it
/// (docs/evidence.md). Much of it an attacker has written.
struct Findings {
    rpc::Json about;  ///< as in the manifest: clone, primary, forked, exported, running
    rpc::Json cause = rpc::Json::object();   ///< what has led to the fork
    rpc::Json memory;                        ///< memory.json; null: the clone does not run
    rpc::Json history = rpc::Json::array();  ///< [ms since 1970, memory, disk], bytes
    std::vector<rpc::Json> sessions;
    std::vector<rpc::Json> events;  ///< of the switch
    struct Disk {
        std::string name;
        rpc::Json files;
    };
    std::vector<Disk> disks;
    std::string console;  ///< the last of what the clone has printed
};

}  // namespace ivmm::evidence
