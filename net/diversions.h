#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "net/flow_table.h"

namespace ivmm::net {

/// What is diverted of an address.
enum class Scope : uint8_t {
    kFlow,           ///< one flow
    kIp,             ///< the flows that an address has at that time
    kIpAndNewFlows,  ///< these, and those that it will open
};
/// "flow", "ip", "ip+new-flows".
const char* to_string(Scope scope);
Result<Scope> parse_scope(std::string_view text);

struct Selector {
    Scope scope = Scope::kIpAndNewFlows;
    IpAddress remote;  ///< of a flow: its key's
    FlowKey flow;      ///< of kFlow

    bool operator==(const Selector&) const = default;
};
std::string to_string(const Selector& selector);

struct DiversionLimits {
    size_t most = 4096;              ///< diversions at a time
    uint32_t most_per_minute = 120;  ///< new ones
    std::vector<Prefix> never;       ///< addresses that are not to be diverted
};

/// Which flows do not belong to the primary. One thread.
class Diversions {
 public:
    struct Diversion {
        Selector selector;
        Member owner = kPrimary;
        uint32_t serial = 0;  ///< older flows existed when this began
        uint32_t since_s = 0;
        uint32_t expires_s = 0;  ///< 0: never
    };

    explicit Diversions(DiversionLimits limits) : limits_(std::move(limits)) {}

    /// Why it may not be diverted, if so. Errors: kUsage for what is never diverted.
    Result<void> check(const Selector& selector, uint32_t now_s) const;
    /// Adds a diversion, or makes one that is there already last longer. Errors: as check(); it
    /// belongs to somebody else already. True: it is new.
    Result<bool> add(const Diversion& diversion, uint32_t now_s);
    /// Gives a diversion to somebody else.
    bool give(const Selector& selector, Member owner, uint32_t expires_s);
    bool remove(const Selector& selector);
    /// Removes those whose time is over, and tells of each.
    std::vector<Diversion> expire(uint32_t now_s);

    bool empty() const { return flows_.empty() && addresses_.empty(); }
    size_t size() const { return flows_.size() + addresses_.size(); }
    /// Changes with every change of the diversions.
    uint32_t generation() const { return generation_; }

    const Diversion* find(const Selector& selector) const;
    /// Whether anything of an address is diverted.
    bool concerns(const IpAddress& remote) const {
        return addresses_.contains(remote) || flow_remotes_.contains(remote);
    }
    /// Who owns a flow that is in the table.
    Member owner_of(const Flow& flow) const;
    /// Who owns what an address sends that belongs to no flow, or to a new one.
    Member owner_of_new(const FlowKey& key) const;
    /// Whether the flow must not be forgotten: that it is an old one could not be found out again.
    bool depends_on(const Flow& flow) const;
    std::vector<Diversion> list() const;

 private:
    struct KeyHash {
        size_t operator()(const FlowKey& key) const;
        size_t operator()(const IpAddress& address) const;
    };
    Diversion* find_mutable(const Selector& selector);
    void forget_flow(const FlowKey& key);

    DiversionLimits limits_;
    std::unordered_map<FlowKey, Diversion, KeyHash> flows_;
    std::unordered_map<IpAddress, Diversion, KeyHash> addresses_;
    std::unordered_map<IpAddress, size_t, KeyHash> flow_remotes_;  // how many of flows_
    uint32_t generation_ = 1;
    uint32_t minute_ = 0;  // of the counter
    uint32_t in_minute_ = 0;
};

}  // namespace ivmm::net
