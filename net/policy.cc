#include "net/policy.h"

#include <algorithm>

namespace ivmm::net {
namespace {

constexpr uint32_t kHour = 3600;

const std::vector<Prefix>& unreachable_prefixes() {
    static const std::vector<Prefix> prefixes = [] {
        std::vector<Prefix> all;
        for (const char* const text : {
                 "0.0.0.0/8",       "10.0.0.0/8",    "100.64.0.0/10",  "127.0.0.0/8",
                 "169.254.0.0/16",  "172.16.0.0/12", "192.0.0.0/24",   "192.168.0.0/16",
                 "198.18.0.0/15",   "224.0.0.0/3",   "168.63.129.16",  "::/96",
                 "::ffff:0:0:0/96", "64:ff9b::/96",  "64:ff9b:1::/48", "100::/64",
                 "2001::/32",       "2002::/16",     "fc00::/7",       "fe80::/9",
                 "ff00::/8",
             }) {
            all.push_back(*parse_prefix(text));
        }
        return all;
    }();
    return prefixes;
}

bool is_icmp(uint8_t protocol) {
    return protocol == kIcmp || protocol == kIcmpV6;
}

Policy limiting(std::string name, uint32_t tcp, uint32_t udp, uint32_t icmp, uint32_t other) {
    const auto rule = [](std::optional<uint8_t> protocol, uint32_t limit) {
        Policy::Rule limited;
        limited.protocol = protocol;
        limited.other = !protocol;
        limited.verdict = Verdict::kLimit;
        limited.flows_per_hour = limit;
        return limited;
    };
    Policy policy;
    policy.name = std::move(name);
    policy.rules = {rule(kTcp, tcp), rule(kUdp, udp), rule(kIcmp, icmp), rule({}, other)};
    return policy;
}

}  // namespace

const char* to_string(Verdict verdict) {
    switch (verdict) {
        case Verdict::kForward:
            return "forward";
        case Verdict::kLimit:
            return "limit";
        case Verdict::kReflect:
            return "reflect";
        case Verdict::kRedirect:
            return "redirect";
        case Verdict::kAnswer:
            return "answer";
        default:
            return "drop";
    }
}

bool Policy::Rule::fits(const FlowKey& key) const {
    if (protocol) {
        // "icmp" is that of either family.
        if (*protocol != key.protocol && !(is_icmp(*protocol) && is_icmp(key.protocol))) {
            return false;
        }
    } else if (other && (key.protocol == kTcp || key.protocol == kUdp || is_icmp(key.protocol))) {
        return false;
    }
    if (!to.empty() && !any_contains(to, key.remote)) {
        return false;
    }
    return ports.empty() || std::any_of(ports.begin(), ports.end(), [&](const Ports& range) {
               return key.remote_port >= range.first && key.remote_port <= range.last;
           });
}

std::optional<Policy> preset_policy(std::string_view name) {
    if (name == "strict") {
        return Policy{};
    }
    if (name == "honeywall") {
        return limiting("honeywall", 20, 20, 50, 10);
    }
    if (name == "research") {
        Policy policy = limiting("research", 500, 1000, 500, 50);
        Policy::Rule mail;  // nobody wants to have sent spam
        mail.protocol = kTcp;
        mail.ports = {{25, 25}, {465, 465}, {587, 587}};
        policy.rules.insert(policy.rules.begin(), mail);
        return policy;
    }
    return std::nullopt;
}

bool always_unreachable(const IpAddress& address) {
    return any_contains(unreachable_prefixes(), address);
}

Containment::Decision Containment::decide(const FlowKey& key, uint32_t now_s) {
    for (size_t i = 0; i < policy_.rules.size(); ++i) {
        const Policy::Rule& rule = policy_.rules[i];
        if (!rule.fits(key)) {
            continue;
        }
        const bool leaves = rule.verdict == Verdict::kForward || rule.verdict == Verdict::kLimit;
        if (leaves &&
            (always_unreachable(key.remote) || any_contains(policy_.unreachable, key.remote))) {
            return {Verdict::kDrop, nullptr, "out of reach"};
        }
        if (rule.verdict == Verdict::kLimit) {
            Window& window = used_[i];
            if (window.flows == 0 || now_s - window.start_s >= kHour) {
                window = {now_s, 0};
            }
            if (window.flows >= rule.flows_per_hour) {
                return {Verdict::kDrop, nullptr, "limit reached"};
            }
            ++window.flows;
        }
        return {rule.verdict, &rule.via, "rule of the policy"};
    }
    return {Verdict::kDrop, nullptr, "no rule allows it"};
}

}  // namespace ivmm::net
