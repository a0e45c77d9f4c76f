#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "base/result.h"
#include "storage/fuse/server.h"
#include "storage/union/view.h"

struct fuse_session;

namespace ivmm::storage {

/// The mount of a view: the kernel's requests become the view's operations.
class FuseSession {
 public:
    /// Mounts and serves. The view must outlive the session. `source` is what mount(8) shows as
    /// the device. `on_end` is called once on a thread of the session's, when it has been unmounted
    /// by whomever.
    static Result<std::unique_ptr<FuseSession>> start(View& view, const std::string& source,
                                                      const MountOptions& options,
                                                      std::function<void()> on_end);
    /// Unmounts. If it is busy, it is cut off: open files get ENOTCONN. So are processes in other
    /// mount namespaces, where it may still be mounted.
    ~FuseSession();
    FuseSession(const FuseSession&) = delete;
    FuseSession& operator=(const FuseSession&) = delete;

    /// Unmounts, unless it is busy.
    Result<void> unmount();

 private:
    FuseSession(fuse_session* session, std::string mountpoint);
    /// Whether nobody has unmounted it yet.
    bool connected() const;

    fuse_session* session_;
    std::string mountpoint_;
    bool unmounted_ = false;
    std::future<void> ended_;  // the library's loop
    std::thread thread_;
};

}  // namespace ivmm::storage
