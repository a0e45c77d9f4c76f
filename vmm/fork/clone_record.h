#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/control/json_rpc.h"

/// What was made for a clone, so that it can be removed when the clone has ended, by whomever. A
/// file CLONE.clone in the folder of the guests' sockets (RuntimeDir).
namespace ivmm {

/// A view of an overlay that is the clone's own.
struct CloneView {
    std::string store;        ///< directory of the store
    std::string view;         ///< its name there
    std::string mountpoint;   ///< where it is mounted; a folder of the clone's own
    int server_pid = 0;       ///< of the overlay server that made it
    uint64_t fork_point = 0;  ///< the layer that the fork has frozen; 0: not known
    bool operator==(const CloneView&) const = default;
};

struct CloneDisk {
    std::string method;  ///< "overlay", "reflink", "copy", "shared" or "sent" (by another host)
    std::string source;  ///< the primary's
    std::string path;    ///< the clone's; a "reflink", "copy" or "sent" is a file of its own
    bool operator==(const CloneDisk&) const = default;
};

struct CloneRecord {
    std::string clone;
    std::string primary;
    std::string created;    ///< "2026-01-31T12:00:00Z"
    bool complete = false;  ///< false: the fork was begun; what is named may be missing
    std::vector<CloneDisk> disks;
    std::vector<CloneView> views;
    /// What has led to the fork, as whoever asked for it has said (docs/control-socket.md); an
    /// object.
    rpc::Json cause = rpc::Json::object();
    bool operator==(const CloneRecord&) const = default;
};

rpc::Json to_json(const CloneRecord& record);
/// Errors: the members are not those of a record, or of a newer version.
Result<CloneRecord> clone_record_from(const rpc::Json& json);

/// The file with the record of a clone, and the folder with its mount points, whether they exist or
/// not.
std::string clone_record_path(const std::string& clone);
std::string clone_folder(const std::string& clone);
/// The file in which its process leaves what it knows of it at its end (clone_witness.h).
std::string clone_testimony_path(const std::string& clone);

/// Writes the file, all of it or nothing. Errors: a path is not UTF-8 (kUsage).
Result<void> write_clone_record(const CloneRecord& record);

/// The record of a clone. Of one whose fork was broken off before it had a record: one that names
/// nothing. Errors: there is no such clone; the file is damaged.
Result<CloneRecord> read_clone_record(const std::string& clone);

/// A name for a clone of this guest that no guest and no clone has.
std::string free_clone_name(const std::string& primary);

/// The names of all clones of which something is there, sorted.
std::vector<std::string> clone_names();

}  // namespace ivmm
