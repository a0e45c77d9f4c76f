#include "vmm/watch/watcher.h"

#include <unistd.h>

#include "base/log.h"
#include "base/printable.h"
#include "vmm/control/metrics.h"
#include "vmm/control/parameters.h"
#include "vmm/watch/clock.h"
#include "vmm/watch/eve.h"

namespace ivmm::watch {
namespace {

using rpc::Json;

/// A text that may be missing. Errors: kUsage.
Result<std::string> bounded_text(const Json& params, const char* name) {
    if (!params.contains(name)) {
        return std::string();
    }
    IVMM_ASSIGN(const auto text, rpc::text_parameter(params, name));
    return text.substr(0, Alert::kMaxText);
}

Json by_action(const std::array<uint64_t, 3>& counts) {
    Json json = Json::object();
    for (const auto action : {Action::kLog, Action::kDivert, Action::kFork}) {
        json[to_string(action)] = counts.at(static_cast<size_t>(action));
    }
    return json;
}

/// Whether nobody knows if it was done: then no second attempt is made for a while.
bool is_uncertain(const Error& error) {
    return error.code == ETIMEDOUT || error.code == EPIPE;
}

}  // namespace

Result<std::unique_ptr<Watcher>> Watcher::create(std::string guest, Rules rules, DecisionLog log,
                                                 EventLoop& loop, ControlServer& control) {
    std::unique_ptr<Watcher> made(new Watcher(guest, std::move(rules), std::move(log), control));
    IVMM_ASSIGN(made->actions_, Actions::start(std::move(guest), loop));
    return made;
}

Watcher::Watcher(std::string guest, Rules rules, DecisionLog log, ControlServer& control)
    : guest_(std::move(guest)),
      control_(control),
      decider_(std::move(rules)),
      log_(std::move(log)) {
    control.add_method("status",
                       [this](ControlConnection&, const Json& params) { return status(params); });
    control.add_method("metrics",
                       [this](ControlConnection&, const Json& params) { return metrics(params); });
    control.add_method("alert",
                       [this](ControlConnection&, const Json& params) { return alert(params); });
}

void Watcher::take_eve(std::string_view line, EveLedger::Way way) {
    const auto parsed = parse_eve(line, rules().home);
    if (!parsed) {
        ++counters_.malformed;
        static log::Throttle throttle;
        throttle.warning("skipped a line of EVE: {}", printable(parsed.error().message));
    } else if (!*parsed) {
        ++counters_.other_events;
    } else if (reconciles_ && ledger_.has_come(**parsed, way)) {
        ++counters_.duplicates;
    } else {
        counters_.reconciled += way == EveLedger::Way::kFile ? 1 : 0;
        take(**parsed);
    }
}

Decision Watcher::take(const Alert& alert) {
    const uint64_t now_ms = monotonic_ms();
    ++counters_.alerts;
    Decision decision = decider_.decide(alert, now_ms);
    if (decision.rule == nullptr) {
        ++counters_.unmatched;
        return decision;
    }
    if (decision.withheld != Withheld::kNo) {
        ++counters_.withheld.at(static_cast<size_t>(decision.withheld));
    } else {
        ++counters_.decided.at(static_cast<size_t>(decision.rule->action));
    }
    tell(log_.decided(alert, decision, rules().dry_run, now_ms));
    if (decision.acts()) {
        log::info("{} {}{}: {}", to_string(decision.rule->action),
                  to_string(alert.attacker.address), rules().dry_run ? " (dry run)" : "",
                  decision.reason);
        if (rules().dry_run) {
            decider_.finished(alert.attacker.address, true, now_ms);
        } else {
            const Rule& rule = *decision.rule;
            actions_->carry_out(
                rule, alert.attacker, cause_of(alert, decision),
                [this, alert, &rule](const Result<Json>& outcome) { ended(alert, rule, outcome); });
        }
    }
    return decision;
}

void Watcher::ended(const Alert& alert, const Rule& rule, const Result<Json>& outcome) {
    const uint64_t now_ms = monotonic_ms();
    const auto action = static_cast<size_t>(rule.action);
    if (outcome) {
        ++counters_.done.at(action);
    } else {
        ++counters_.failed.at(action);
        log::warning("{} {} failed: {}", to_string(rule.action), to_string(alert.attacker.address),
                     printable(outcome.error().message));
    }
    decider_.finished(alert.attacker.address, outcome || is_uncertain(outcome.error()), now_ms);
    tell(log_.ended(alert, rule, outcome, now_ms));
}

void Watcher::tell(const Json& line) {
    if (!line.is_null()) {
        control_.broadcast("watch.decision", line);
    }
}

Result<Json> Watcher::status(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {}));
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started_;
    Json withheld = Json::object();
    for (size_t i = 1; i < counters_.withheld.size(); ++i) {
        withheld[to_string(static_cast<Withheld>(i))] = counters_.withheld.at(i);
    }
    return Json{{"guest", guest_},
                {"pid", ::getpid()},
                {"uptime_s", uptime.count()},
                {"dry_run", rules().dry_run},
                {"alerts", counters_.alerts},
                {"other_events", counters_.other_events},
                {"malformed", counters_.malformed},
                {"duplicates", counters_.duplicates},
                {"reconciled", counters_.reconciled},
                {"unmatched", counters_.unmatched},
                {"decided", by_action(counters_.decided)},
                {"done", by_action(counters_.done)},
                {"failed", by_action(counters_.failed)},
                {"withheld", std::move(withheld)},
                {"under_way", decider_.under_way()},
                {"remembered", decider_.remembered()}};
}

Result<Json> Watcher::metrics(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {}));
    Metrics metrics = process_metrics();
    metrics.counter("ivmm_watch_alerts_total", "Alerts that were taken.",
                    static_cast<double>(counters_.alerts));
    const auto skipped = [&](const char* why, uint64_t count) {
        metrics.counter("ivmm_watch_skipped_total", "What came in and was no alert to decide on.",
                        static_cast<double>(count), {{"why", why}});
    };
    skipped("no-alert", counters_.other_events);
    skipped("malformed", counters_.malformed);
    skipped("duplicate", counters_.duplicates);
    metrics.counter("ivmm_watch_unmatched_total", "Alerts that no rule decides.",
                    static_cast<double>(counters_.unmatched));
    for (const auto action : {Action::kLog, Action::kDivert, Action::kFork}) {
        const auto counted = [&](const char* outcome, const std::array<uint64_t, 3>& counts) {
            metrics.counter("ivmm_watch_actions_total", "Actions, by what has become of them.",
                            static_cast<double>(counts.at(static_cast<size_t>(action))),
                            {{"action", to_string(action)}, {"outcome", outcome}});
        };
        counted("decided", counters_.decided);
        counted("done", counters_.done);
        counted("failed", counters_.failed);
    }
    for (size_t i = 1; i < counters_.withheld.size(); ++i) {
        metrics.counter("ivmm_watch_withheld_total", "Actions that were not begun, by reason.",
                        static_cast<double>(counters_.withheld.at(i)),
                        {{"reason", to_string(static_cast<Withheld>(i))}});
    }
    metrics.gauge("ivmm_watch_under_way", "Actions that have begun and not ended.",
                  static_cast<double>(decider_.under_way()));
    return metrics.to_json();
}

Result<Json> Watcher::alert(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"source", "remote", "remote_port", "signature",
                                            "signature_id", "category", "severity"}));
    Alert alert;
    IVMM_TRY(rpc::text_parameter(params, "source"));
    IVMM_ASSIGN(alert.source, bounded_text(params, "source"));
    IVMM_ASSIGN(const auto remote, rpc::text_parameter(params, "remote"));
    IVMM_ASSIGN(alert.attacker.address, net::parse_ip(remote));
    IVMM_ASSIGN(const auto port, rpc::number_parameter(params, "remote_port", 0, 65535, 0));
    alert.attacker.port = static_cast<uint16_t>(port);
    IVMM_ASSIGN(alert.signature, bounded_text(params, "signature"));
    IVMM_ASSIGN(alert.signature_id,
                rpc::number_parameter(params, "signature_id", 0, UINT32_MAX, 0));
    IVMM_ASSIGN(alert.category, bounded_text(params, "category"));
    IVMM_ASSIGN(alert.severity, rpc::number_parameter(params, "severity", 0, UINT8_MAX, 0));
    const Decision decision = take(alert);
    if (decision.rule == nullptr) {
        return Json{{"decision", "none"}, {"reason", "no rule fits, or not often enough yet"}};
    }
    const bool is_withheld = decision.withheld != Withheld::kNo;
    return Json{{"decision", is_withheld ? "withheld" : to_string(decision.rule->action)},
                {"rule", decision.rule->name},
                {"reason", decision.reason}};
}

}  // namespace ivmm::watch
