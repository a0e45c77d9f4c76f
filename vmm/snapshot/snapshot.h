#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/state_codec.h"
#include "vmm/config/guest_config.h"
#include "vmm/machine/machine_state.h"

/// What a snapshot of a guest is made of: a folder with the files `machine` (everything here, in a
/// container) and `memory` (memory_file.h).
namespace ivmm {

inline constexpr const char* kMachineFile = "machine";
inline constexpr const char* kMemoryFile = "memory";

/// Says which snapshot it is, wherever it is moved.
using SnapshotId = std::array<uint8_t, 16>;
SnapshotId new_snapshot_id();

/// A disk as it was at the instant of the snapshot. The disks that are writable are all `own` ones
/// or all the guest's.
struct SnapshotDisk {
    static constexpr uint32_t kVersion = 1;
    std::string path;      ///< absolute
    uint64_t size = 0;     ///< bytes
    int64_t mtime_ns = 0;  ///< when its content was changed last; 0 for a block device
    bool own = false;      ///< a copy that is the snapshot's: never to be written
    bool operator==(const SnapshotDisk&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.path, self.size, self.mtime_ns, self.own);
    }
};

struct SnapshotGuest {
    static constexpr uint32_t kVersion = 1;
    SnapshotId id{};
    std::string created;  ///< "2026-01-31T12:00:00Z"
    GuestConfig config;   ///< with paths that are absolute
    std::vector<SnapshotDisk> disks;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.id, self.created, self.config, self.disks);
    }
};

/// The snapshot on whose memory another is based.
struct SnapshotBase {
    static constexpr uint32_t kVersion = 1;
    std::string path;  ///< of its folder, relative to the folder of the snapshot that names it
    SnapshotId id{};
    bool operator==(const SnapshotBase&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.path, self.id);
    }
};

/// What the file `memory` holds.
struct SnapshotMemory {
    static constexpr uint32_t kVersion = 1;
    uint64_t bytes = 0;                  ///< length of the file, and size of the guest's memory
    std::array<uint64_t, 2> checksum{};  ///< see MemoryDigest
    std::optional<SnapshotBase> base;    ///< where the other pages are
    /// With a base: which pages the file holds (as PageSet has them); a hole among them is a page
    /// of zeroes. Without one, it holds them all.
    std::vector<uint64_t> pages;
    bool operator==(const SnapshotMemory&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.bytes, self.checksum, self.base, self.pages);
    }
};

struct Snapshot {
    SnapshotGuest guest;
    SnapshotMemory memory;
    MachineState machine;
};

/// The file `machine`.
std::vector<std::byte> encode_snapshot(const Snapshot& snapshot);
/// Any bytes are safe. What is accepted fits together and describes a guest that ivmm could have
/// made, whether or not this host can run it; the values of its state are for the machine to check.
Result<Snapshot> decode_snapshot(ConstByteSpan file);

/// Reads the file `machine` in the folder. Errors name the file.
Result<Snapshot> read_snapshot(const std::string& folder);

}  // namespace ivmm
