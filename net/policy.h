#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/dns_answer.h"
#include "net/flow_table.h"

namespace ivmm::net {

/// "forward", "drop", "limit", "reflect", "redirect", "answer".
const char* to_string(Verdict verdict);

/// What a clone may begin of its own accord (docs/containment.md). The first rule that fits
/// decides; where none fits, the answer is no.
struct Policy {
    struct Ports {
        uint16_t first = 0;
        uint16_t last = 65535;
    };
    struct Rule {
        std::optional<uint8_t> protocol;  ///< none: all
        bool other = false;               ///< neither TCP nor UDP nor ICMP
        std::vector<Prefix> to;           ///< empty: everybody
        std::vector<Ports> ports;         ///< empty: all
        Verdict verdict = Verdict::kDrop;
        uint32_t flows_per_hour = 0;  ///< of kLimit
        std::string via;              ///< of kReflect a clone or "self", of kRedirect a port

        bool fits(const FlowKey& key) const;
    };

    std::string name = "strict";
    std::vector<Rule> rules;
    /// Out of reach besides what always is.
    std::vector<Prefix> unreachable;
    /// What kAnswer says to DNS queries.
    Names names;
};

/// "strict", "honeywall", "research".
std::optional<Policy> preset_policy(std::string_view name);
/// Reads a policy file. Errors (kUsage) name the place.
Result<Policy> parse_policy(std::string_view toml, const std::string& path);
Result<Policy> load_policy(const std::string& path);

/// Where no clone ever gets by itself: private, local and shared networks, those that lead into
/// such, and the addresses at which clouds tell secrets.
bool always_unreachable(const IpAddress& address);

/// Applies a policy to one clone: counts what is limited. One thread.
class Containment {
 public:
    struct Decision {
        Verdict verdict = Verdict::kDrop;
        const std::string* via = nullptr;
        const char* reason = "";
    };

    explicit Containment(Policy policy) : policy_(std::move(policy)), used_(policy_.rules.size()) {}

    /// What becomes of a new flow. A limit that allows it counts it.
    Decision decide(const FlowKey& key, uint32_t now_s);
    const Policy& policy() const { return policy_; }

 private:
    struct Window {
        uint32_t start_s = 0;
        uint32_t flows = 0;
    };
    Policy policy_;
    std::vector<Window> used_;  // by rule
};

}  // namespace ivmm::net
