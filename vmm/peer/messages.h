#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/state_codec.h"
#include "vmm/config/guest_config.h"
#include "vmm/machine/machine_state.h"

/// What the host of a primary and that of its standby say to each other:
///
///     primary                        standby's host
///     Hello                      →
///                                ←   Welcome      what it has of this replica already
///                                ←   Ready        a complete machine over the replica waits
///     Pages …                    →
///                                ←   Applied …    up to which message the pages are there
///     Prepare                    →                the trigger
///                                ←   Prepared     the clone has its name
///     Pages …                    →                the last, of the instant of the fork
///     Disks                      →
///                                ←   Wanted       which of them have to be sent
///     DiskData …                 →
///     Start                      →
///                                ←   Running      the clone runs
///     Adopted                    →                and may go on running
///                                ←   Ready        the next one waits, over a copy of the replica
///
/// Failed may come from either side at any time; it ends the connection. A connection that ends
/// between Prepare and Adopted takes the clone with it. One that ends at another time is continued
/// by the next Hello with the same id.
namespace ivmm::peer {

enum class MessageType : uint32_t {
    kHello = 101,
    kWelcome,
    kReady,
    kPages,
    kApplied,
    kPrepare,
    kPrepared,
    kDisks,
    kWanted,
    kDiskData,
    kStart,
    kRunning,
    kAdopted,
    kFailed,
};

/// A message without fields.
template <MessageType Type>
struct Signal {
    static constexpr MessageType kType = Type;
    static constexpr uint32_t kVersion = 1;

    template <class Visitor, class Self>
    static void fields(Visitor& /*visit*/, Self& /*self*/) {}
};
using Ready = Signal<MessageType::kReady>;
using Adopted = Signal<MessageType::kAdopted>;

struct Hello {
    static constexpr MessageType kType = MessageType::kHello;
    static constexpr uint32_t kVersion = 1;
    std::array<uint64_t, 2> id{};  ///< of the replica: random
    std::string host_kind;         ///< host_kind_name()
    uint64_t cpu = 0;              ///< cpu_fingerprint()
    GuestConfig config;
    std::vector<uint64_t> disk_sizes;  ///< bytes, of each disk of the configuration

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.id, self.host_kind, self.cpu, self.config, self.disk_sizes);
    }
};

struct Welcome {
    static constexpr MessageType kType = MessageType::kWelcome;
    static constexpr uint32_t kVersion = 1;
    bool fresh = true;     ///< the replica is empty: nothing of it was known here
    uint64_t applied = 0;  ///< number of the last Pages whose pages are there

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.fresh, self.applied);
    }
};

/// Pages that follow each other.
struct PageRun {
    static constexpr uint32_t kVersion = 1;
    uint64_t first = 0;
    uint32_t count = 0;
    bool operator==(const PageRun&) const = default;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.first, self.count);
    }
};

/// With their content, packed, as the message's tail.
struct Pages {
    static constexpr MessageType kType = MessageType::kPages;
    static constexpr uint32_t kVersion = 1;
    uint64_t number = 0;  ///< 1, 2, … of one replica, whatever connections there are
    std::vector<PageRun> runs;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.number, self.runs);
    }
};

struct Applied {
    static constexpr MessageType kType = MessageType::kApplied;
    static constexpr uint32_t kVersion = 1;
    uint64_t number = 0;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.number);
    }
};

struct Prepare {
    static constexpr MessageType kType = MessageType::kPrepare;
    static constexpr uint32_t kVersion = 1;
    std::string clone;    ///< empty: one is made up
    std::string primary;  ///< of this name

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.clone, self.primary);
    }
};

struct Prepared {
    static constexpr MessageType kType = MessageType::kPrepared;
    static constexpr uint32_t kVersion = 1;
    std::string clone;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.clone);
    }
};

struct Disks {
    static constexpr MessageType kType = MessageType::kDisks;
    static constexpr uint32_t kVersion = 1;
    std::vector<std::string> paths;    ///< on the primary's host, of each disk
    std::vector<uint64_t> data_bytes;  ///< of each, what is no hole

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.paths, self.data_bytes);
    }
};

struct Wanted {
    static constexpr MessageType kType = MessageType::kWanted;
    static constexpr uint32_t kVersion = 1;
    std::vector<uint8_t> send;  ///< for each disk: 1 if its data are to be sent

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.send);
    }
};

/// With the content, packed, as the message's tail. One of no bytes says that all was sent.
struct DiskData {
    static constexpr MessageType kType = MessageType::kDiskData;
    static constexpr uint32_t kVersion = 1;
    uint32_t disk = 0;
    uint64_t offset = 0;
    uint32_t bytes = 0;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.disk, self.offset, self.bytes);
    }
};

struct Start {
    static constexpr MessageType kType = MessageType::kStart;
    static constexpr uint32_t kVersion = 1;
    MachineState state;
    uint64_t age_ns = 0;  ///< of the state, when this was sent

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.state, self.age_ns);
    }
};

struct Running {
    static constexpr MessageType kType = MessageType::kRunning;
    static constexpr uint32_t kVersion = 2;
    uint32_t pid = 0;                  ///< on that host
    uint64_t age_ns = 0;               ///< for how long it ran when this was sent
    uint64_t private_bytes = 0;        ///< memory that the clone's process has for itself
    std::vector<std::string> disks;    ///< paths on that host
    std::vector<std::string> methods;  ///< "sent", "overlay", "shared"
    uint64_t hook_us = 0;              ///< for so long the clone's hook ran

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.pid, self.age_ns, self.private_bytes, self.disks, self.methods, self.hook_us);
    }
};

struct Failed {
    static constexpr MessageType kType = MessageType::kFailed;
    static constexpr uint32_t kVersion = 1;
    std::string reason;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.reason);
    }
};

}  // namespace ivmm::peer
