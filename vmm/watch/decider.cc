#include "vmm/watch/decider.h"

#include <algorithm>

#include "base/printable.h"

namespace ivmm::watch {
namespace {

constexpr uint64_t kHourMs = 3'600'000;

std::string describe(const Rule& rule, const Alert& alert) {
    std::string text = fmt::format("rule '{}': {}", rule.name, alert.source);
    if (alert.signature_id != 0) {
        text += fmt::format(" {}", alert.signature_id);
    }
    if (!alert.signature.empty()) {
        text += fmt::format(" '{}'", alert.signature);
    }
    if (alert.severity != 0) {
        text += fmt::format(", severity {}", alert.severity);
    }
    if (rule.count > 1) {
        text += fmt::format(", {} in {} s", rule.count, rule.within_s);
    }
    return printable(std::move(text));
}

}  // namespace

const char* to_string(Withheld withheld) {
    switch (withheld) {
        case Withheld::kNo:
            return "no";
        case Withheld::kAllowed:
            return "allow-list";
        case Withheld::kHome:
            return "own-address";
        case Withheld::kElsewhere:
            return "elsewhere";
        case Withheld::kUnderWay:
            return "under-way";
        case Withheld::kCoolDown:
            return "cool-down";
        case Withheld::kCap:
            return "rate-cap";
        case Withheld::kBusy:
            return "busy";
        case Withheld::kNoPort:
            return "no-port";
        case Withheld::kCount:
            break;
    }
    return "";
}

bool Decider::is_reached(const Rule& rule, const Alert& alert, uint64_t now_ms) {
    if (rule.count <= 1) {
        return true;
    }
    auto& seen = counts_.at({alert.attacker.address, &rule});
    const size_t before = seen.count(now_ms, uint64_t{rule.within_s} * 1000);
    if (before < rule.count) {
        seen.add(now_ms);
    }
    return before + 1 >= rule.count;
}

Decision Decider::decide(const Alert& alert, uint64_t now_ms) {
    const Rule* decisive = nullptr;
    for (const Rule& rule : rules_.rules) {
        if (rule.fits(alert) && is_reached(rule, alert, now_ms) && decisive == nullptr) {
            decisive = &rule;
        }
    }
    if (decisive == nullptr) {
        return {};
    }
    Decision decision = act(*decisive, alert, now_ms);
    decision.rule = decisive;
    const std::string why = describe(*decisive, alert);
    decision.reason = decision.reason.empty() ? why : fmt::format("{}; {}", decision.reason, why);
    return decision;
}

Decision Decider::act(const Rule& rule, const Alert& alert, uint64_t now_ms) {
    const auto withhold = [](Withheld why, std::string reason) {
        return Decision{nullptr, why, std::move(reason)};
    };
    const auto& attacker = alert.attacker.address;
    const std::string name = to_string(attacker);
    if (net::any_contains(rules_.allow, attacker)) {
        return withhold(Withheld::kAllowed, fmt::format("{} is on the allow-list", name));
    }
    if (net::any_contains(rules_.home, attacker)) {
        return withhold(Withheld::kHome, fmt::format("{} is an address of the guest", name));
    }
    if (!rules_.home.empty() && !alert.victim.address.is_unspecified() &&
        !net::any_contains(rules_.home, alert.victim.address)) {
        return withhold(Withheld::kElsewhere,
                        fmt::format("{} is not the guest", to_string(alert.victim.address)));
    }
    if (rule.action == Action::kLog) {
        return {};
    }
    const auto acted = acted_.find(attacker);
    if (acted != acted_.end() && acted->second.under_way) {
        return withhold(Withheld::kUnderWay,
                        fmt::format("an action against {} is under way", name));
    }
    if (acted != acted_.end() && now_ms < acted->second.quiet_until_ms) {
        return withhold(Withheld::kCoolDown,
                        fmt::format("{} was acted on; again in {} s", name,
                                    (acted->second.quiet_until_ms - now_ms + 999) / 1000));
    }
    if (rule.scope == "flow" && alert.attacker.port == 0) {
        return withhold(Withheld::kNoPort, "the alert does not say which flow");
    }
    const bool is_fork = rule.action == Action::kFork;
    const uint32_t most = is_fork ? rules_.forks_per_hour : rules_.diverts_per_hour;
    auto& done = done_.at(static_cast<size_t>(rule.action));
    if (done.count(now_ms, kHourMs) >= most) {
        return withhold(Withheld::kCap,
                        fmt::format("{} {}s in an hour are enough", most, to_string(rule.action)));
    }
    if (under_way_ >= kMostUnderWay) {
        return withhold(Withheld::kBusy, fmt::format("{} actions are under way", under_way_));
    }
    std::erase_if(acted_, [&](const auto& entry) {
        return !entry.second.under_way && entry.second.quiet_until_ms <= now_ms;
    });
    done.add(now_ms);
    acted_[attacker] = {now_ms + uint64_t{rule.cooldown_s} * 1000, true};
    ++under_way_;
    return {};
}

void Decider::finished(const net::IpAddress& attacker, bool ok, uint64_t now_ms) {
    const auto acted = acted_.find(attacker);
    if (acted == acted_.end() || !acted->second.under_way) {
        return;
    }
    --under_way_;
    acted->second.under_way = false;
    if (!ok) {
        acted->second.quiet_until_ms = std::min(acted->second.quiet_until_ms, now_ms + kRetryMs);
    }
}

}  // namespace ivmm::watch
