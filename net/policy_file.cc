#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "base/ascii.h"
#include "base/toml.h"
#include "base/unique_fd.h"
#include "net/policy.h"

namespace ivmm::net {
namespace {

constexpr size_t kMaxFileSize = size_t{1} << 20;
constexpr size_t kMaxRules = 256;
constexpr size_t kMaxList = 1024;

template <class... Args>
Unexpected refuse(const std::string& path, const toml::node& where,
                  fmt::format_string<Args...> format, Args&&... args) {
    return fail_as(ErrorKind::kUsage, "{}:{}: {}", path, where.source().begin.line,
                   fmt::format(format, std::forward<Args>(args)...));
}

Result<void> check_keys(const toml::table& table, const std::string& path,
                        std::initializer_list<std::string_view> known) {
    for (const auto& [key, value] : table) {
        if (std::find(known.begin(), known.end(), key.str()) == known.end()) {
            return refuse(path, value, "unknown key '{}'", key.str());
        }
    }
    return {};
}

Result<std::string> text(const toml::table& table, std::string_view key, const std::string& path) {
    const toml::node* const node = table.get(key);
    if (node == nullptr) {
        return std::string();
    }
    if (const auto* const value = node->as_string()) {
        return value->get();
    }
    return refuse(path, *node, "{} must be a text in quotes", key);
}

Result<const toml::array*> list(const toml::table& table, std::string_view key,
                                const std::string& path) {
    const toml::node* const node = table.get(key);
    if (node == nullptr) {
        return static_cast<const toml::array*>(nullptr);
    }
    const auto* const array = node->as_array();
    if (array == nullptr || array->size() > kMaxList) {
        return refuse(path, *node, "{} must be a list in [ ] of at most {}", key, kMaxList);
    }
    return array;
}

Result<std::vector<Prefix>> prefixes(const toml::table& table, std::string_view key,
                                     const std::string& path) {
    std::vector<Prefix> result;
    IVMM_ASSIGN(const auto* const array, list(table, key, path));
    if (array == nullptr) {
        return result;
    }
    if (array->empty()) {
        return refuse(path, *array, "{} is empty; to mean all, leave it out", key);
    }
    for (const toml::node& node : *array) {
        const auto* const value = node.as_string();
        const auto prefix = value == nullptr ? fail("not a text") : parse_prefix(value->get());
        if (!prefix) {
            return refuse(path, node, "{}: {}", key, prefix.error().message);
        }
        result.push_back(*prefix);
    }
    return result;
}

std::optional<Policy::Ports> parse_ports(const toml::node& node) {
    if (const auto* const number = node.as_integer()) {
        if (number->get() < 0 || number->get() > 65535) {
            return std::nullopt;
        }
        const auto port = static_cast<uint16_t>(number->get());
        return Policy::Ports{port, port};
    }
    const auto* const range = node.as_string();
    if (range == nullptr) {
        return std::nullopt;
    }
    Policy::Ports ports;
    const char* const end = range->get().data() + range->get().size();
    const auto first = std::from_chars(range->get().data(), end, ports.first);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') {
        return std::nullopt;
    }
    const auto last = std::from_chars(first.ptr + 1, end, ports.last);
    if (last.ec != std::errc() || last.ptr != end || ports.last < ports.first) {
        return std::nullopt;
    }
    return ports;
}

Result<void> read_protocol(const toml::table& table, const std::string& path, Policy::Rule& rule) {
    IVMM_ASSIGN(const auto name, text(table, "protocol", path));
    if (name == "tcp") {
        rule.protocol = kTcp;
    } else if (name == "udp") {
        rule.protocol = kUdp;
    } else if (name == "icmp") {
        rule.protocol = kIcmp;
    } else if (name == "other") {
        rule.other = true;
    } else if (!name.empty() && name != "any") {
        return refuse(path, table, "protocol '{}': write tcp, udp, icmp, other or any", name);
    }
    return {};
}

Result<void> read_verdict(const toml::table& table, const std::string& path, Policy::Rule& rule) {
    IVMM_ASSIGN(const auto name, text(table, "verdict", path));
    const auto all = {Verdict::kForward, Verdict::kDrop,     Verdict::kLimit,
                      Verdict::kReflect, Verdict::kRedirect, Verdict::kAnswer};
    const auto* const found = std::find_if(
        all.begin(), all.end(), [&](Verdict verdict) { return name == to_string(verdict); });
    if (found == all.end()) {
        return refuse(path, table,
                      "verdict '{}': write forward, drop, limit, reflect, redirect or answer",
                      name);
    }
    rule.verdict = *found;
    IVMM_ASSIGN(rule.via, text(table, "via", path));
    const bool has_way = rule.verdict == Verdict::kReflect || rule.verdict == Verdict::kRedirect;
    if (has_way == rule.via.empty()) {
        return refuse(path, table,
                      "via is for reflect (a clone, or \"self\") and redirect (a port)");
    }
    const toml::node* const limit = table.get("flows_per_hour");
    if ((limit != nullptr) != (rule.verdict == Verdict::kLimit)) {
        return refuse(path, table, "flows_per_hour is for limit, and limit needs it");
    }
    if (limit != nullptr) {
        const auto* const number = limit->as_integer();
        if (number == nullptr || number->get() < 0 || number->get() > 1'000'000) {
            return refuse(path, *limit, "flows_per_hour must be a number up to 1000000");
        }
        rule.flows_per_hour = static_cast<uint32_t>(number->get());
    }
    return {};
}

Result<Policy::Rule> read_rule(const toml::table& table, const std::string& path) {
    IVMM_TRY(
        check_keys(table, path, {"protocol", "to", "ports", "verdict", "via", "flows_per_hour"}));
    Policy::Rule rule;
    IVMM_TRY(read_protocol(table, path, rule));
    IVMM_TRY(read_verdict(table, path, rule));
    IVMM_ASSIGN(rule.to, prefixes(table, "to", path));
    IVMM_ASSIGN(const auto* const ports, list(table, "ports", path));
    if (ports != nullptr) {
        if (ports->empty() || (rule.protocol != kTcp && rule.protocol != kUdp)) {
            return refuse(path, *ports, "ports is a list of some, for tcp or udp");
        }
        for (const toml::node& node : *ports) {
            const auto range = parse_ports(node);
            if (!range) {
                return refuse(path, node, "ports: write 443 or \"1000-2000\"");
            }
            rule.ports.push_back(*range);
        }
    }
    const auto is_answered = [](const Policy::Ports& range) {
        return range.first == range.last && (range.first == kDnsPort || range.first == kNtpPort);
    };
    if (rule.verdict == Verdict::kAnswer &&
        (rule.protocol != kUdp || rule.ports.empty() ||
         !std::all_of(rule.ports.begin(), rule.ports.end(), is_answered))) {
        return refuse(path, table, "answer is for protocol udp with ports {} (DNS) and {} (NTP)",
                      kDnsPort, kNtpPort);
    }
    return rule;
}

/// As it is looked for: small letters, no dot at the end. None: no domain name.
std::optional<std::string> domain_name(std::string_view text) {
    std::string name;
    size_t label = 0;
    for (const char c : text) {
        const char small = lower(c);
        const bool ends = c == '.';
        const bool fits = ends ? label > 0
                               : (small >= 'a' && small <= 'z') || (c >= '0' && c <= '9') ||
                                     c == '-' || c == '_' || (c == '*' && name.empty());
        label = ends ? 0 : label + 1;
        if (!fits || label > 63 || (name == "*" && !ends)) {
            return std::nullopt;
        }
        name += small;
    }
    if (!name.empty() && name.back() == '.') {
        name.pop_back();
    }
    return name.empty() || name.size() > 253 ? std::nullopt : std::optional(name);
}

Result<Names> read_names(const toml::table& root, const std::string& path) {
    Names names;
    const toml::node* const node = root.get("names");
    if (node == nullptr) {
        return names;
    }
    const auto* const table = node->as_table();
    if (table == nullptr || table->size() > Names::kMost) {
        return refuse(path, *node, "[names] is a table of at most {} names", Names::kMost);
    }
    for (const auto& [key, value] : *table) {
        const auto name = domain_name(key.str());
        const auto* const array = value.as_array();
        if (!name) {
            return refuse(path, value, "'{}' is no domain name, nor one with \"*.\" in front",
                          key.str());
        }
        if (array == nullptr || array->size() > Names::kMostAddresses) {
            return refuse(path, value, "{} must be a list in [ ] of at most {} addresses",
                          key.str(), Names::kMostAddresses);
        }
        auto& addresses = names.addresses[*name];
        for (const toml::node& one : *array) {
            const auto* const text = one.as_string();
            const auto address = text == nullptr ? fail("not a text") : parse_ip(text->get());
            if (!address) {
                return refuse(path, one, "{}: {}", key.str(), address.error().message);
            }
            addresses.push_back(*address);
        }
    }
    return names;
}

}  // namespace

Result<Policy> parse_policy(std::string_view toml, const std::string& path) {
    const toml::parse_result parsed = toml::parse(toml);
    if (!parsed) {
        return fail_as(ErrorKind::kUsage, "{}:{}: {}", path, parsed.error().source().begin.line,
                       parsed.error().description());
    }
    const toml::table& root = parsed.table();
    IVMM_TRY(check_keys(root, path, {"preset", "unreachable", "names", "rule"}));
    IVMM_ASSIGN(const auto preset, text(root, "preset", path));
    auto base = preset_policy(preset.empty() ? "strict" : preset);
    if (!base) {
        return refuse(path, *root.get("preset"),
                      "there is no preset '{}'; write strict, honeywall or research", preset);
    }
    Policy policy = std::move(*base);
    policy.name = path;
    IVMM_ASSIGN(policy.unreachable, prefixes(root, "unreachable", path));
    IVMM_ASSIGN(policy.names, read_names(root, path));
    IVMM_ASSIGN(const auto* const rules, list(root, "rule", path));
    std::vector<Policy::Rule> own;
    if (rules != nullptr) {
        if (rules->size() > kMaxRules) {
            return refuse(path, *rules, "more than {} rules", kMaxRules);
        }
        for (const toml::node& node : *rules) {
            const auto* const table = node.as_table();
            if (table == nullptr) {
                return refuse(path, node, "rules are written as [[rule]]");
            }
            IVMM_ASSIGN(auto rule, read_rule(*table, path));
            own.push_back(std::move(rule));
        }
    }
    policy.rules.insert(policy.rules.begin(), own.begin(), own.end());
    return policy;
}

Result<Policy> load_policy(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (!file) {
        auto error = fail_errno("cannot open the policy '{}'", path);
        error.error.kind = ErrorKind::kUsage;
        return error;
    }
    std::string content(kMaxFileSize + 1, '\0');
    size_t length = 0;
    while (length < content.size()) {
        const ssize_t n = ::read(file.get(), content.data() + length, content.size() - length);
        if (n < 0) {
            return fail_errno("cannot read the policy '{}'", path);
        }
        if (n == 0) {
            break;
        }
        length += static_cast<size_t>(n);
    }
    if (length > kMaxFileSize) {
        return fail_as(ErrorKind::kUsage, "the policy '{}' is longer than {} bytes", path,
                       kMaxFileSize);
    }
    content.resize(length);
    return parse_policy(content, path);
}

}  // namespace ivmm::net
