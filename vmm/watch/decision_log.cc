#include "vmm/watch/decision_log.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/printable.h"
#include "base/utc_time.h"

namespace ivmm::watch {
namespace {

using rpc::Json;

constexpr uint32_t kMostASecond = 10;

Json to_json(const Alert& alert) {
    return {{"source", alert.source},       {"timestamp", alert.timestamp},
            {"flow_id", alert.flow_id},     {"signature_id", alert.signature_id},
            {"signature", alert.signature}, {"category", alert.category},
            {"severity", alert.severity}};
}

}  // namespace

Json cause_of(const Alert& alert, const Decision& decision) {
    return {{"rule", decision.rule->name},
            {"reason", decision.reason},
            {"attacker", to_string(alert.attacker.address)},
            {"alert", to_json(alert)}};
}

Result<DecisionLog> DecisionLog::open(std::string sensor, const std::string& path) {
    DecisionLog log;
    log.sensor_ = std::move(sensor);
    if (!path.empty()) {
        log.file_.reset(
            ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600));
        if (!log.file_) {
            return fail_errno("cannot write decisions to '{}'", path);
        }
    }
    return log;
}

Json DecisionLog::decided(const Alert& alert, const Decision& decision, bool dry_run,
                          uint64_t now_ms) {
    const bool is_withheld = decision.withheld != Withheld::kNo;
    Json more = Json::object();
    if (is_withheld) {
        more["withheld"] = to_string(decision.withheld);
        more["action"] = to_string(decision.rule->action);
    }
    if (dry_run) {
        more["dry_run"] = true;
    }
    return write(alert, *decision.rule, is_withheld ? "withheld" : to_string(decision.rule->action),
                 decision.reason, more, now_ms);
}

Json DecisionLog::ended(const Alert& alert, const Rule& rule, const Result<Json>& outcome,
                        uint64_t now_ms) {
    Json more{{"action", to_string(rule.action)}};
    if (outcome) {
        more["outcome"] = *outcome;
    }
    return write(alert, rule, outcome ? "done" : "failed",
                 outcome ? "the attacker is in the clone" : printable(outcome.error().message),
                 more, now_ms);
}

Json DecisionLog::write(const Alert& alert, const Rule& rule, const char* event, std::string reason,
                        const Json& more, uint64_t now_ms) {
    Told& told = told_[event];
    if (told.second != now_ms / 1000) {
        told.second = now_ms / 1000;
        told.count = 0;
    }
    if (told.count == kMostASecond) {
        ++told.suppressed;
        return {};
    }
    ++told.count;
    const std::string attacker = to_string(alert.attacker.address);
    Json json{{"datetime", utc_time_us()},
              {"timestamp_desc", "Watch decision"},
              {"eventid", fmt::format("ivmm.watch.{}", event)},
              {"sensor", sensor_},
              {"src_ip", attacker},
              {"src_port", alert.attacker.port},
              {"rule", rule.name},
              {"message", fmt::format("{} {}: {}", attacker, event, reason)},
              {"reason", std::move(reason)},
              {"alert", to_json(alert)}};
    json.update(more);
    if (told.suppressed > 0) {
        json["suppressed"] = std::exchange(told.suppressed, 0);
    }
    if (file_) {
        // In ASCII, so that nothing in it is taken for a control character by anybody.
        const std::string line = json.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
        // Whole lines: the file is opened for appending.
        if (::write(file_.get(), line.data(), line.size()) != std::ssize(line)) {
            static log::Throttle throttle;
            throttle.warning("decisions are lost: {}", error_text(errno));
        }
    }
    return json;
}

}  // namespace ivmm::watch
