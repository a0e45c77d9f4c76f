#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/line_stream.h"

namespace ivmm {

/// A client of a control socket that waits for its answers.
class ControlClient {
 public:
    using Milliseconds = std::chrono::milliseconds;
    using Deadline = std::chrono::steady_clock::time_point;
    static constexpr Milliseconds kPatience{10'000};

    /// Takes a connected socket. `peer` is what error messages call the process at the other end.
    explicit ControlClient(UniqueFd socket, std::string peer = "the guest's process")
        : stream_(std::move(socket)), peer_(std::move(peer)) {}

    /// Calls a method and waits for its answer. Notifications that come before it are kept.
    /// Errors: the process says no; it is gone (code EPIPE) or does not answer in time (ETIMEDOUT),
    /// and then nobody knows whether it has done what was asked, or still will.
    Result<rpc::Json> call(std::string_view method, const rpc::Json& params = rpc::Json::object(),
                           Milliseconds patience = kPatience);

    /// The two halves of call(), for who asks several processes at once.
    Result<void> ask(std::string_view method, const rpc::Json& params, Deadline deadline);
    Result<rpc::Json> answer(Deadline deadline);

    /// Waits until the process closes the connection, which it does when it has released
    /// all it had. Returns the last notification of this name, if there was one.
    Result<std::optional<rpc::Json>> wait_for_end(std::string_view event, Milliseconds patience);

 private:
    /// The next message; nothing at the end of the connection.
    Result<std::optional<rpc::Message>> receive(Deadline deadline);
    Unexpected ended() const;
    Result<void> wait(short poll_events, Deadline deadline);

    LineStream stream_;
    std::string peer_;
    std::optional<rpc::Message> last_event_;
    int last_id_ = 0;
};

}  // namespace ivmm
