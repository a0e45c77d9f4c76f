#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/switch.h"
#include "vmm/control/json_rpc.h"

namespace ivmm {

/// A switch's events as JSON, one object a line, for timelines (docs/switch.md).
class EventLog {
 public:
    /// `path` empty: no file.
    static Result<EventLog> open(const std::string& path);

    /// Writes the event; what it has written.
    rpc::Json write(const std::string& sensor, const net::Event& event);

 private:
    UniqueFd file_;
};

}  // namespace ivmm
