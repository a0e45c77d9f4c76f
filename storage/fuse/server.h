#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/flatten/flatten.h"

namespace ivmm::storage {

/// How a view is to be mounted.
struct MountOptions {
    std::string mountpoint;  ///< an existing directory
    uint32_t threads = 8;    ///< that serve requests
    bool read_only = false;
};

/// A view to be made by a fork.
struct ForkTarget {
    std::string view;
    std::optional<MountOptions> mount;  ///< mounted at once, in this process
};

struct ForkReport {
    std::string parent_view;
    uint32_t frozen_layer = 0;
    uint32_t new_layer = 0;  ///< the parent view's
    std::vector<uint32_t> target_layers;
    double drain_us = 0;  ///< waiting for the operations in flight
    double pause_us = 0;  ///< no operation ran: drain included
};

struct MountStatus {
    std::string view;
    std::string mountpoint;
    uint32_t top_layer = 0;
    uint32_t depth = 0;   ///< layers and branches
    uint64_t inodes = 0;  ///< that the kernel knows
    uint64_t open_files = 0;
    uint64_t forks = 0;
    std::string error;  ///< why durability has ended (a failed sync), or empty
};

/// A flatten that is at work.
struct FlattenStatus {
    std::string view;
    double done = 0;  ///< 0 to 1
};

/// Serves views of one store through FUSE, each with its own mount, from one process.
/// All methods: one thread (the caller's), unless said otherwise.
class OverlayServer {
 public:
    struct Options {
        std::string store;               ///< the upper; empty: a read-only union of `lower`
        std::vector<std::string> lower;  ///< topmost first
        std::string view = "main";
        MountOptions mount;
        /// After a fork, a view with more layers of the store than this is flattened, if that makes
        /// them fewer by half of it at least. 0: never.
        uint32_t flatten_from = 0;
    };

    /// Mounts the first view. Returns when requests are served. `on_unmounted` is called, on
    /// another thread, when a mount has gone (somebody unmounted it, or the kernel aborted it).
    static Result<std::unique_ptr<OverlayServer>> start(
        const Options& options, std::function<void(const std::string& mountpoint)> on_unmounted);
    /// Unmounts everything and makes it durable. Open files get ENOTCONN.
    ~OverlayServer();

    /// Mounts one more view of the store.
    Result<void> mount(const std::string& view, const MountOptions& options);
    /// Unmounts one and makes it durable. Errors: busy (unless `force`), not mounted.
    Result<void> unmount(const std::string& view, bool force);

    /// Does what takes time of a fork with these targets: layers and view files, all on the medium.
    /// A fork that follows soon waits for the disk no more. Changes nothing that anybody sees; what
    /// is not used is taken by a later fork. Errors: as fork()'s before its instant.
    Result<void> prepare_fork(const std::string& view, const std::vector<ForkTarget>& targets);

    /// Forks a mounted view. All or nothing up to the instant of the fork; a mount that fails
    /// after it is an error that says that the view exists.
    Result<ForkReport> fork(const std::string& view, const std::vector<ForkTarget>& targets);

    /// Flattens the chain of a view (storage/flatten/flatten.h), mounted or not, while all goes on.
    /// Returns at once; `done` is called on another thread, before the end of the destructor.
    /// One after the other.
    void flatten(const std::string& view, std::function<void(Result<FlattenReport>)> done);
    /// Any thread.
    std::optional<FlattenStatus> flattening() const;

    /// Deletes a view that is not mounted.
    Result<void> remove_view(const std::string& view);

    std::vector<MountStatus> status() const;
    /// The view that is mounted there.
    std::optional<std::string> view_at(const std::string& mountpoint) const;

 private:
    struct Impl;
    explicit OverlayServer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ivmm::storage
