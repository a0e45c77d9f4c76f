#pragma once

#include <array>
#include <map>
#include <string>
#include <utility>

#include "vmm/watch/lru_map.h"
#include "vmm/watch/rules.h"
#include "vmm/watch/sliding_count.h"

namespace ivmm::watch {

/// Why nothing was done although a rule says so.
enum class Withheld : uint8_t {
    kNo,         ///< it was done
    kAllowed,    ///< on the allow-list
    kHome,       ///< the attacker would be the guest itself
    kElsewhere,  ///< about another machine than the guest
    kUnderWay,   ///< an action against the attacker is being carried out
    kCoolDown,   ///< there was one a short time ago
    kCap,        ///< so many an hour, and no more
    kBusy,       ///< too many actions are being carried out
    kNoPort,     ///< the rule diverts one flow, and the alert does not say which
    kCount,
};
/// "allow-list", "cool-down", …
const char* to_string(Withheld withheld);

struct Decision {
    const Rule* rule = nullptr;  ///< the decider's; null: none fits, or not often enough yet
    Withheld withheld = Withheld::kNo;
    std::string reason;  ///< for people; what is not printable in the alert is not in it

    /// Whether the rule's action is to be carried out, which finished() is told of.
    bool acts() const {
        return rule != nullptr && rule->action != Action::kLog && withheld == Withheld::kNo;
    }
};

/// What is to be done about an alert. Each rule that fits counts it; the first whose count is
/// reached decides. Knows no clock and does nothing itself. However many alerts there are, from
/// however many attackers, what it remembers and what it lets happen in an hour are bounded.
class Decider {
 public:
    static constexpr size_t kMostCounts = 4096;   ///< attackers that are counted, by rule
    static constexpr size_t kMostUnderWay = 16;   ///< actions at a time
    static constexpr uint64_t kRetryMs = 10'000;  ///< after an action that has failed

    explicit Decider(Rules rules) : rules_(std::move(rules)) {}
    Decider(const Decider&) = delete;
    Decider& operator=(const Decider&) = delete;

    Decision decide(const Alert& alert, uint64_t now_ms);
    /// That an action has ended, or (a dry run) was not begun.
    void finished(const net::IpAddress& attacker, bool ok, uint64_t now_ms);

    const Rules& rules() const { return rules_; }
    size_t under_way() const { return under_way_; }
    size_t remembered() const { return counts_.size() + acted_.size(); }

 private:
    struct Acted {
        uint64_t quiet_until_ms = 0;
        bool under_way = false;
    };
    bool is_reached(const Rule& rule, const Alert& alert, uint64_t now_ms);
    Decision act(const Rule& rule, const Alert& alert, uint64_t now_ms);

    const Rules rules_;
    LruMap<std::pair<net::IpAddress, const Rule*>, SlidingCount> counts_{kMostCounts};
    std::map<net::IpAddress, Acted> acted_;  // bounded by the caps, and by the longest cool-down
    std::array<SlidingCount, 3> done_;       // by action
    size_t under_way_ = 0;
};

}  // namespace ivmm::watch
