#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/config/guest_config.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/metrics.h"

namespace ivmm {

/// Whose flows go to the clone.
struct DivertRequest {
    rpc::Json selector;  ///< as the switch's methods have it (docs/switch.md)
    uint32_t ttl_s = 0;  ///< 0: for ever
    std::string policy;  ///< of the clone; empty: the switch's
};

/// What came of that; frames went to the clone.
struct NetForkReport {
    double hold_us = 0;           ///< for so long frames waited
    uint64_t held_frames = 0;     ///< that came meanwhile
    uint64_t unread_frames = 0;   ///< that were on their way to the guest
    uint64_t refused_frames = 0;  ///< that came meanwhile and had no room: lost
};

/// What whoever asks for a fork may choose.
struct ForkRequest {
    std::string clone;                    ///< its name; empty: one is made up
    bool name_is_made_up = false;         ///< it may be another one, where it is taken
    std::vector<NetConfig> nets;          ///< cables of the clone's first network devices
    std::optional<DivertRequest> divert;  ///< then the cables are the switch's, and `nets` is empty
    uint32_t clones = 1;  ///< of this instant; the others are CLONE-2, …, without cables
    rpc::Json cause = rpc::Json::object();  ///< what has led to it, for the clone's record
    CloneHook hook;
    CloneLimits limits;
    bool life_is_asked_for = false;  ///< these two were asked for, and are not the guest's own
};

/// What came of it. Times in microseconds.
struct ForkReport {
    struct Disk {
        std::string path;
        std::string method;
    };
    std::string clone;
    std::string where;  ///< "HOST:PORT" of the host that it runs on; empty: this one
    int clone_pid = 0;
    std::string fork_point;
    bool waited_for_sync = false;  ///< there was no standby in sync at the trigger
    uint32_t rounds = 0;           ///< extra rounds between trigger and pause
    double trigger_to_pause_us = 0;
    double pause_us = 0;  ///< the primary stood still
    // What the pause was made of.
    double stop_us = 0;  ///< until no vCPU ran and no device worked
    double residual_copy_us = 0;
    double state_us = 0;
    double disk_fork_us = 0;
    double net_commit_us = 0;
    double resume_us = 0;
    uint64_t residual_pages = 0;  ///< copied in the pause
    double trigger_to_run_us = 0;
    uint64_t clone_private_bytes = 0;  ///< of its process, at its start
    uint64_t hook_us = 0;              ///< of trigger_to_run_us
    std::vector<Disk> disks;
    NetForkReport net;

    /// More clones of the same instant.
    struct Sibling {
        std::string clone;
        std::string error;  ///< why it does not run; empty: it does
        int clone_pid = 0;
        double trigger_to_run_us = 0;
        uint64_t clone_private_bytes = 0;
        uint64_t hook_us = 0;
        std::vector<Disk> disks;
    };
    std::vector<Sibling> siblings;
};

/// What is remembered of a fork. Times in microseconds.
struct PastFork {
    std::string clone;
    std::string time;  ///< when it was done: "2026-01-31T12:00:00Z"
    double pause_us = 0;
    double trigger_to_run_us = 0;
};

/// All forks of a guest since its start.
struct ForkHistory {
    static constexpr size_t kMostRecent = 32;
    std::deque<PastFork> recent;  ///< the newest last
    uint64_t failed = 0;
    Histogram pauses;
    Histogram starts;  ///< from the trigger until the clone ran

    void note(const Result<ForkReport>& outcome);
};

/// What keeps the standby.
struct StandbyStatus {
    enum class Phase { kNone, kBuilding, kInSync, kFailed };
    Phase phase = Phase::kNone;
    std::string error;  ///< why kFailed
    int pid = 0;
    std::string where;              ///< "HOST:PORT" of a standby on another host
    uint64_t replica_bytes = 0;     ///< memory of the host that the replica takes
    uint64_t rounds = 0;            ///< since the replica was begun
    uint64_t last_dirty_pages = 0;  ///< of the last round
    double last_round_us = 0;
    double interval_ms = 0;   ///< between two rounds
    uint64_t lag_pages = 0;   ///< not yet at a standby on another host
    uint64_t sent_bytes = 0;  ///< to it
    uint64_t forks = 0;       ///< successful ones
    uint32_t clones = 0;      ///< that run
    ForkHistory history;

    /// How far the replica was behind when it was last looked at: what was written since the round
    /// before, and of what goes to another host what is not there yet.
    uint64_t behind_pages() const { return std::max(lag_pages, last_dirty_pages); }
};

}  // namespace ivmm
