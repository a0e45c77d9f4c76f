#pragma once

#include <string>

#include "base/result.h"
#include "vmm/fork/clone_record.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm {

/// The fork of one view of an overlay for a clone, by the server that serves it. One thread.
class ViewFork {
 public:
    /// `parent` is the mount of the view that is to be forked; `view` what the clone gets.
    ViewFork(overlay::ServedMount parent, CloneView view)
        : parent_(std::move(parent)), view_(std::move(view)) {}

    /// Its fork_point is known after the commit.
    const CloneView& view() const { return view_; }
    bool is_of(const overlay::ServedMount& mount) const {
        return parent_.server.pid == mount.server.pid && parent_.view == mount.view;
    }

    /// Lets the server do what waits for the disk. Errors: a view of this name exists already, the
    /// server says no.
    Result<void> prepare();
    /// The fork itself: asks for it, and waits for it. Errors of either: it has not happened,
    /// unless may_exist(). After an error of the first, the second is not to be called.
    Result<void> begin_commit();
    Result<void> end_commit();
    /// Mounts the clone's view.
    Result<void> mount();

    /// Whether there is, or may yet come to be, a view that the commit has made.
    bool may_exist() const { return may_exist_; }
    /// How long the overlay stood still, in microseconds; after the commit.
    double pause_us() const { return pause_us_; }

 private:
    Unexpected failed(const Error& error) const;
    Result<rpc::Json> call(const char* method, const rpc::Json& params,
                           ControlClient::Milliseconds patience);

    overlay::ServedMount parent_;
    CloneView view_;
    ControlClient::Deadline deadline_;
    bool may_exist_ = false;
    double pause_us_ = 0;
};

}  // namespace ivmm
