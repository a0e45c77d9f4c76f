#include <algorithm>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>

#include "base/toml.h"
#include "net/policy.h"
#include "vmm/config/clone_settings.h"
#include "vmm/config/validate.h"
#include "vmm/watch/rules.h"

namespace ivmm::watch {
namespace {

constexpr size_t kMaxFileSize = size_t{1} << 20;
constexpr size_t kMaxRules = 64;
constexpr size_t kMaxList = 1024;
constexpr size_t kMaxPayload = 256;
constexpr int64_t kDay = 86'400;  // seconds

/// A table of the file, and how to refuse what is in it.
struct Table {
    const toml::table& table;
    const std::string& path;

    template <class... Args>
    Unexpected refuse(const toml::node& where, fmt::format_string<Args...> format,
                      Args&&... args) const {
        return fail_as(ErrorKind::kUsage, "{}:{}: {}", path, where.source().begin.line,
                       fmt::format(format, std::forward<Args>(args)...));
    }

    Result<void> check_keys(std::initializer_list<std::string_view> known) const {
        for (const auto& [key, value] : table) {
            if (std::find(known.begin(), known.end(), key.str()) == known.end()) {
                return refuse(value, "unknown key '{}'", key.str());
            }
        }
        return {};
    }
    Result<void> text(std::string_view key, std::string& out) const {
        if (const toml::node* const node = table.get(key)) {
            const auto* const value = node->as_string();
            if (value == nullptr || value->get().empty() || value->get().size() > Alert::kMaxText) {
                return refuse(*node, "{} must be a text in quotes, of 1 to {} bytes", key,
                              Alert::kMaxText);
            }
            out = value->get();
        }
        return {};
    }
    Result<void> flag(std::string_view key, bool& out) const {
        if (const toml::node* const node = table.get(key)) {
            const auto* const value = node->as_boolean();
            if (value == nullptr) {
                return refuse(*node, "{} must be true or false", key);
            }
            out = value->get();
        }
        return {};
    }
    template <class Number>
    Result<void> number(std::string_view key, Number& out, int64_t least, int64_t most) const {
        if (const toml::node* const node = table.get(key)) {
            IVMM_ASSIGN(out, number_of<Number>(key, *node, least, most));
        }
        return {};
    }
    template <class Number>
    Result<Number> number_of(std::string_view key, const toml::node& node, int64_t least,
                             int64_t most) const {
        const auto* const value = node.as_integer();
        if (value == nullptr || value->get() < least || value->get() > most) {
            return refuse(node, "{} must be a number from {} to {}", key, least, most);
        }
        return static_cast<Number>(value->get());
    }
    /// Calls `read` for each entry of a list that must not be empty.
    template <class Read>
    Result<void> list(std::string_view key, Read read) const {
        if (const toml::node* const node = table.get(key)) {
            const auto* const array = node->as_array();
            if (array == nullptr || array->empty() || array->size() > kMaxList) {
                return refuse(*node, "{} must be a list in [ ] of 1 to {}", key, kMaxList);
            }
            for (const toml::node& entry : *array) {
                IVMM_TRY(read(entry));
            }
        }
        return {};
    }
    Result<void> texts(std::string_view key, std::vector<std::string>& out) const {
        return list(key, [&](const toml::node& node) -> Result<void> {
            const auto* const value = node.as_string();
            if (value == nullptr || value->get().empty() || value->get().size() > kMaxPayload) {
                return refuse(node, "{}: write texts in quotes, of 1 to {} bytes", key,
                              kMaxPayload);
            }
            out.push_back(value->get());
            return {};
        });
    }
    Result<void> prefixes(std::string_view key, std::vector<net::Prefix>& out) const {
        return list(key, [&](const toml::node& node) -> Result<void> {
            const auto* const value = node.as_string();
            const auto prefix =
                value == nullptr ? fail("not a text") : net::parse_prefix(value->get());
            if (!prefix) {
                return refuse(node, "{}: {}", key, prefix.error().message);
            }
            out.push_back(*prefix);
            return {};
        });
    }
    Result<void> ports(std::string_view key, std::vector<uint16_t>& out) const {
        return list(key, [&](const toml::node& node) -> Result<void> {
            IVMM_ASSIGN(const auto port, number_of<uint16_t>(key, node, 1, 65535));
            out.push_back(port);
            return {};
        });
    }
    /// A table in this one; `read` is called if it is there.
    template <class Read>
    Result<void> inner(std::string_view key, Read read) const {
        if (const toml::node* const node = table.get(key)) {
            const auto* const found = node->as_table();
            if (found == nullptr) {
                return refuse(*node, "{} is written as a table", key);
            }
            return read(Table{*found, path});
        }
        return {};
    }
};

/// 2018358, or "2000000-2009999".
Result<Rule::Range> signature_range(const Table& rule, const toml::node& node) {
    if (const auto* const text = node.as_string()) {
        std::istringstream stream(text->get());
        Rule::Range range;
        char dash = 0;
        if (stream >> range.first >> dash >> range.second && dash == '-' &&
            stream.peek() == std::istringstream::traits_type::eof() &&
            range.first <= range.second) {
            return range;
        }
        return rule.refuse(node, "signature_id: write 2018358 or \"2000000-2009999\"");
    }
    IVMM_ASSIGN(const auto id, rule.number_of<uint32_t>("signature_id", node, 1, UINT32_MAX));
    return Rule::Range{id, id};
}

/// What is said of the clone that a fork makes.
Result<void> read_clone(const Table& table, Rule& rule) {
    IVMM_TRY(table.text("policy", rule.policy));
    IVMM_TRY(table.number("lifetime_s", rule.lifetime_s, 1, CloneLimits::kMostSeconds));
    if (rule.action != Action::kFork && (!rule.policy.empty() || rule.lifetime_s > 0)) {
        return table.refuse(table.table, "policy and lifetime_s are for fork");
    }
    if (!rule.policy.empty() && !net::preset_policy(rule.policy)) {
        const auto folder = std::filesystem::absolute(table.path).parent_path();
        rule.policy = (folder / rule.policy).lexically_normal().string();
        if (const auto policy = net::load_policy(rule.policy); !policy) {
            return table.refuse(*table.table.get("policy"), "policy: {}", policy.error().message);
        }
    }
    return {};
}

Result<void> read_action(const Table& table, Rule& rule) {
    std::string name;
    IVMM_TRY(table.text("action", name));
    const auto all = {Action::kLog, Action::kDivert, Action::kFork};
    const auto* const found = std::find_if(
        all.begin(), all.end(), [&](Action action) { return name == to_string(action); });
    if (found == all.end()) {
        return table.refuse(table.table, "a rule needs an action: fork, divert or log");
    }
    rule.action = *found;
    IVMM_TRY(table.text("clone", rule.clone));
    if (rule.clone.empty() == (rule.action == Action::kDivert)) {
        return table.refuse(table.table, "clone is for divert, and divert needs it");
    }
    if (!rule.clone.empty() && !is_guest_name(rule.clone)) {
        return table.refuse(table.table, "clone '{}' is not a name", rule.clone);
    }
    IVMM_TRY(table.text("scope", rule.scope));
    if (rule.scope != "flow" && rule.scope != "ip" && rule.scope != "ip+new-flows") {
        return table.refuse(table.table, "scope '{}': write flow, ip or ip+new-flows", rule.scope);
    }
    IVMM_TRY(table.number("ttl_s", rule.ttl_s, 0, 366 * kDay));
    IVMM_TRY(read_clone(table, rule));
    return table.number("cooldown_s", rule.cooldown_s, 0, kDay);
}

Result<Rule> read_rule(const Table& table) {
    IVMM_TRY(table.check_keys({"name", "source", "signature_id", "signature", "category",
                               "severity", "count", "within_s", "action", "clone", "scope", "ttl_s",
                               "policy", "lifetime_s", "cooldown_s"}));
    Rule rule;
    IVMM_TRY(table.text("name", rule.name));
    if (rule.name.empty()) {
        return table.refuse(table.table, "a rule needs a name");
    }
    IVMM_TRY(table.texts("source", rule.sources));
    IVMM_TRY(table.list("signature_id", [&](const toml::node& node) -> Result<void> {
        IVMM_ASSIGN(const auto range, signature_range(table, node));
        rule.signature_ids.push_back(range);
        return {};
    }));
    IVMM_TRY(table.text("signature", rule.signature));
    IVMM_TRY(table.text("category", rule.category));
    IVMM_TRY(table.number("severity", rule.severity, 1, 255));
    IVMM_TRY(table.number("count", rule.count, 1, 1000));
    IVMM_TRY(table.number("within_s", rule.within_s, 1, kDay));
    IVMM_TRY(read_action(table, rule));
    return rule;
}

Result<void> read_scan(const Table& scan, Detect& detect) {
    IVMM_TRY(scan.check_keys({"ports", "within_s"}));
    detect.scan_ports = 20;
    IVMM_TRY(scan.number("ports", detect.scan_ports, 2, 1000));
    return scan.number("within_s", detect.scan_within_s, 1, 3600);
}

Result<void> read_logins(const Table& logins, Detect& detect) {
    IVMM_TRY(logins.check_keys({"ports", "count", "within_s", "short_s"}));
    IVMM_TRY(logins.ports("ports", detect.login_ports));
    if (detect.login_ports.empty()) {
        detect.login_ports = {22, 23};
    }
    detect.login_count = 6;
    IVMM_TRY(logins.number("count", detect.login_count, 2, 1000));
    IVMM_TRY(logins.number("within_s", detect.login_within_s, 1, 3600));
    return logins.number("short_s", detect.login_short_s, 1, 3600);
}

Result<void> read_detect(const Table& table, Detect& detect) {
    IVMM_TRY(table.check_keys({"addresses", "address_files", "decoy_ports", "decoy_addresses",
                               "scan", "logins", "payloads"}));
    std::vector<net::Prefix> addresses;
    IVMM_TRY(table.prefixes("addresses", addresses));
    std::ranges::for_each(addresses, [&](const auto& prefix) { detect.addresses.add(prefix); });
    std::vector<std::string> files;
    IVMM_TRY(table.texts("address_files", files));
    for (const auto& file : files) {
        IVMM_TRY(detect.addresses.load(
            (std::filesystem::path(table.path).parent_path() / file).string()));
    }
    IVMM_TRY(table.ports("decoy_ports", detect.decoy_ports));
    IVMM_TRY(table.prefixes("decoy_addresses", detect.decoy_addresses));
    IVMM_TRY(table.inner("scan", [&](const Table& scan) { return read_scan(scan, detect); }));
    IVMM_TRY(
        table.inner("logins", [&](const Table& logins) { return read_logins(logins, detect); }));
    return table.texts("payloads", detect.payloads);
}

}  // namespace

Result<Rules> parse_rules(std::string_view toml, const std::string& path) {
    const toml::parse_result parsed = toml::parse(toml);
    if (!parsed) {
        return fail_as(ErrorKind::kUsage, "{}:{}: {}", path, parsed.error().source().begin.line,
                       parsed.error().description());
    }
    const Table root{parsed.table(), path};
    IVMM_TRY(root.check_keys(
        {"home", "allow", "forks_per_hour", "diverts_per_hour", "dry_run", "rule", "detect"}));
    Rules rules;
    IVMM_TRY(root.prefixes("home", rules.home));
    IVMM_TRY(root.prefixes("allow", rules.allow));
    IVMM_TRY(root.number("forks_per_hour", rules.forks_per_hour, 0, 1000));
    IVMM_TRY(root.number("diverts_per_hour", rules.diverts_per_hour, 0, 1000));
    IVMM_TRY(root.flag("dry_run", rules.dry_run));
    IVMM_TRY(root.list("rule", [&](const toml::node& node) -> Result<void> {
        const auto* const table = node.as_table();
        if (table == nullptr) {
            return root.refuse(node, "rules are written as [[rule]]");
        }
        IVMM_ASSIGN(auto rule, read_rule({*table, path}));
        if (std::ranges::count(rules.rules, rule.name, &Rule::name) > 0) {
            return root.refuse(node, "there are two rules '{}'", rule.name);
        }
        if (rules.rules.size() == kMaxRules) {
            return root.refuse(node, "more than {} rules", kMaxRules);
        }
        rules.rules.push_back(std::move(rule));
        return {};
    }));
    if (rules.rules.empty()) {
        return fail_as(ErrorKind::kUsage, "{}: there is no [[rule]]: nothing would be done", path);
    }
    IVMM_TRY(
        root.inner("detect", [&](const Table& table) { return read_detect(table, rules.detect); }));
    return rules;
}

Result<Rules> load_rules(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string content(kMaxFileSize + 1, '\0');
    if (!file || (!file.read(content.data(), std::ssize(content)) && !file.eof())) {
        return fail_as(ErrorKind::kUsage, "cannot read the rules '{}'", path);
    }
    content.resize(static_cast<size_t>(file.gcount()));
    if (content.size() > kMaxFileSize) {
        return fail_as(ErrorKind::kUsage, "the rules '{}' are longer than {} bytes", path,
                       kMaxFileSize);
    }
    return parse_rules(content, path);
}

}  // namespace ivmm::watch
