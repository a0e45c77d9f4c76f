#include "vmm/switch/event_log.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utc_time.h"

namespace ivmm {

Result<EventLog> EventLog::open(const std::string& path) {
    EventLog log;
    if (!path.empty()) {
        log.file_.reset(
            ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600));
        if (!log.file_) {
            return fail_errno("cannot write events to '{}'", path);
        }
    }
    return log;
}

rpc::Json EventLog::write(const std::string& sensor, const net::Event& event) {
    rpc::Json json{{"datetime", utc_time_us()},
                   {"timestamp_desc", "Network event"},
                   {"eventid", fmt::format("ivmm.switch.{}", event.name)},
                   {"sensor", sensor},
                   {"port", event.port},
                   {"message", fmt::format("{} {}: {}", event.port, event.name, event.detail)}};
    if (event.suppressed > 0) {
        json["suppressed"] = event.suppressed;
    }
    if (file_) {
        const std::string line = json.dump() + "\n";
        // Whole lines: the file is opened for appending.
        if (::write(file_.get(), line.data(), line.size()) != std::ssize(line)) {
            static log::Throttle throttle;
            throttle.warning("events are lost: {}", error_text(errno));
        }
    }
    return json;
}

}  // namespace ivmm
