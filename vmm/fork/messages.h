#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/state_codec.h"
#include "vmm/config/guest_config.h"
#include "vmm/machine/machine_state.h"

/// What a primary and its standby say to each other, in this order:
///
///     primary                     standby
///     Hello, image            →
///                             ←   Ready        a complete machine over the image waits
///     Prepare                 →                the trigger
///                             ←   Prepared     name and network are the clone's
///     Start                   →                right after the instant of the fork
///                             ←   Running      the clone is on its own
///
/// In place of each answer, Failed. When the connection ends before Start, the standby does.
namespace ivmm {

enum class MessageType : uint32_t {
    kHello = 1,
    kReady,
    kPrepare,
    kPrepared,
    kStart,
    kRunning,
    kFailed,
};

/// With a descriptor of the memory image, open for reading.
struct HelloMessage {
    static constexpr MessageType kType = MessageType::kHello;
    static constexpr uint32_t kVersion = 2;
    GuestConfig config;
    std::vector<uint64_t> disk_sizes;  ///< bytes, of each disk of the configuration
    bool all_disks_late = false;       ///< read-only disks also are not there before Start

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.config, self.disk_sizes, self.all_disks_late);
    }
};

struct ReadyMessage {
    static constexpr MessageType kType = MessageType::kReady;
    static constexpr uint32_t kVersion = 1;

    template <class Visitor, class Self>
    static void fields(Visitor& /*visit*/, Self& /*self*/) {}
};

struct PrepareMessage {
    static constexpr MessageType kType = MessageType::kPrepare;
    static constexpr uint32_t kVersion = 2;
    std::string clone;
    std::string primary;          ///< what the guest is called of which it is a clone
    std::string attacker;         ///< whose flows it gets; may be empty
    std::vector<NetConfig> nets;  ///< for the first network devices; the others get no cable
    CloneHook hook;               ///< is run between Start and the clone's first instruction
    CloneLimits limits;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.clone, self.primary, self.attacker, self.nets, self.hook, self.limits);
    }
};

struct PreparedMessage {
    static constexpr MessageType kType = MessageType::kPrepared;
    static constexpr uint32_t kVersion = 1;

    template <class Visitor, class Self>
    static void fields(Visitor& /*visit*/, Self& /*self*/) {}
};

struct StartMessage {
    static constexpr MessageType kType = MessageType::kStart;
    static constexpr uint32_t kVersion = 1;
    MachineState state;
    std::vector<std::string> disks;  ///< paths, of each disk of the configuration

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.state, self.disks);
    }
};

struct RunningMessage {
    static constexpr MessageType kType = MessageType::kRunning;
    static constexpr uint32_t kVersion = 2;
    uint64_t first_run_ns = 0;   ///< CLOCK_MONOTONIC right before the first KVM_RUN
    uint64_t private_bytes = 0;  ///< memory that the clone's process has for itself then
    uint64_t hook_us = 0;        ///< for so long its hook ran

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.first_run_ns, self.private_bytes, self.hook_us);
    }
};

struct FailedMessage {
    static constexpr MessageType kType = MessageType::kFailed;
    static constexpr uint32_t kVersion = 1;
    std::string reason;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.reason);
    }
};

}  // namespace ivmm
