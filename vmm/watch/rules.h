#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/address.h"
#include "vmm/watch/address_set.h"
#include "vmm/watch/alert.h"

namespace ivmm::watch {

enum class Action : uint8_t { kLog, kDivert, kFork };
/// "log", "divert", "fork".
const char* to_string(Action action);

/// Which alerts lead to what. All that is said must hold.
struct Rule {
    using Range = std::pair<uint32_t, uint32_t>;

    std::string name;
    std::vector<std::string> sources;  ///< empty: all
    std::vector<Range> signature_ids;  ///< from and to; empty: all
    std::string signature;             ///< a part of it, in whatever case
    std::string category;              ///< the same
    uint32_t severity = 0;             ///< this or worse, that is, lower; 0: all
    uint32_t count = 1;                ///< so many alerts of one attacker …
    uint32_t within_s = 60;            ///< … in this time

    Action action = Action::kLog;
    std::string scope = "ip+new-flows";  ///< what goes to the clone
    std::string clone;                   ///< of kDivert
    std::string policy;                  ///< of kFork: the clone's; empty: the switch's
    uint32_t lifetime_s = 0;             ///< of kFork: the clone's; 0: as the guest has it
    uint32_t ttl_s = 0;                  ///< of the diversion; 0: for ever
    uint32_t cooldown_s = 600;           ///< after an action, none for the same attacker

    bool fits(const Alert& alert) const;
};

/// What the built-in detectors look for; nothing unless it is said.
struct Detect {
    AddressSet addresses;               ///< peers who are attackers, whatever they do
    std::vector<uint16_t> decoy_ports;  ///< that nobody has a reason to open
    std::vector<net::Prefix> decoy_addresses;
    uint32_t scan_ports = 0;  ///< so many ports opened by one peer …
    uint32_t scan_within_s = 10;
    std::vector<uint16_t> login_ports;
    uint32_t login_count = 0;  ///< so many short connections of one peer …
    uint32_t login_within_s = 60;
    uint32_t login_short_s = 20;        ///< … that ended within this time
    std::vector<std::string> payloads;  ///< bytes in a packet to the guest

    bool looks_at_flows() const {
        return !addresses.empty() || !decoy_ports.empty() || !decoy_addresses.empty() ||
               scan_ports > 0 || login_count > 0;
    }
};

struct Rules {
    std::vector<Rule> rules;
    std::vector<net::Prefix> home;   ///< the guest's own addresses; empty: not said
    std::vector<net::Prefix> allow;  ///< nothing is done about these
    uint32_t forks_per_hour = 6;
    uint32_t diverts_per_hour = 60;
    bool dry_run = false;
    Detect detect;
};

/// Reads rules (docs/watch.md). Errors (kUsage) name the place. `path` is that of the file: files
/// that it names are looked for beside it.
Result<Rules> parse_rules(std::string_view toml, const std::string& path);
Result<Rules> load_rules(const std::string& path);

}  // namespace ivmm::watch
