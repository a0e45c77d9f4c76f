#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "storage/fuse/server.h"
#include "vmm/control/control_server.h"

namespace ivmm::overlay {

/// The control socket's methods for one overlay server (docs/overlay.md).
///
/// The overlay's methods run on a worker, one after the other, so that one client that waits for
/// the disk does not keep the control thread, which makes and destroys this.
class OverlayControl {
 public:
    struct Identity {
        std::string store;               ///< empty: a read-only union
        std::vector<std::string> lower;  ///< as given to the server; empty: the store's own
    };

    /// Adds the methods to the server. What is given must outlive this, except the worker's
    /// thread, which must have ended before this is destroyed. `on_last_gone` is called on the
    /// control thread when nothing is mounted any more.
    OverlayControl(Identity identity, storage::OverlayServer& overlay, EventLoop& control,
                   EventLoop& worker, ControlServer& server, std::function<void()> on_last_gone);

    /// A mount has gone, by whatever means. Any thread, as long as the worker lives.
    void mount_has_gone(const std::string& mountpoint);

 private:
    using Json = rpc::Json;
    using Mounts = std::vector<std::pair<std::string, std::string>>;  // view, mount point
    using Work = Result<Json> (OverlayControl::*)(const Json& params);

    void add(const char* name, Work work);
    void flatten(const Json& params, ControlServer::Answer answer);

    // On the worker:
    Result<Json> status(const Json& params);
    Result<Json> metrics(const Json& params);
    Result<Json> prepare_fork(const Json& params);
    Result<Json> fork(const Json& params);
    Result<Json> mount(const Json& params);
    Result<Json> unmount(const Json& params);
    Result<Json> remove_view(const Json& params);
    void compare_mounts();
    Mounts present() const;

    void broadcast(const char* event, Json params);  // any thread

    const Identity identity_;
    storage::OverlayServer& overlay_;
    EventLoop& control_;
    EventLoop& worker_;
    ControlServer& server_;
    const std::function<void()> on_last_gone_;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    Mounts mounts_;  // those that the clients know of; on the worker
};

}  // namespace ivmm::overlay
