#include "net/diversions.h"

#include <xxhash.h>

#include <algorithm>

namespace ivmm::net {

const char* to_string(Scope scope) {
    switch (scope) {
        case Scope::kFlow:
            return "flow";
        case Scope::kIp:
            return "ip";
        default:
            return "ip+new-flows";
    }
}

Result<Scope> parse_scope(std::string_view text) {
    for (const Scope scope : {Scope::kFlow, Scope::kIp, Scope::kIpAndNewFlows}) {
        if (text == to_string(scope)) {
            return scope;
        }
    }
    return fail_as(ErrorKind::kUsage, "'{}' is not a scope; write flow, ip or ip+new-flows", text);
}

std::string to_string(const Selector& selector) {
    return selector.scope == Scope::kFlow
               ? to_string(selector.flow)
               : fmt::format("{} ({})", to_string(selector.remote), to_string(selector.scope));
}

size_t Diversions::KeyHash::operator()(const FlowKey& key) const {
    return XXH3_64bits(&key, sizeof(key));
}

size_t Diversions::KeyHash::operator()(const IpAddress& address) const {
    return XXH3_64bits(&address, sizeof(address));
}

const Diversions::Diversion* Diversions::find(const Selector& selector) const {
    if (selector.scope == Scope::kFlow) {
        const auto found = flows_.find(selector.flow);
        return found == flows_.end() ? nullptr : &found->second;
    }
    const auto found = addresses_.find(selector.remote);
    return found == addresses_.end() ? nullptr : &found->second;
}

Diversions::Diversion* Diversions::find_mutable(const Selector& selector) {
    return const_cast<Diversion*>(find(selector));  // NOLINT(*-const-cast): of a mutable object
}

Result<void> Diversions::check(const Selector& selector, uint32_t now_s) const {
    const IpAddress& remote =
        selector.scope == Scope::kFlow ? selector.flow.remote : selector.remote;
    if (any_contains(limits_.never, remote)) {
        return fail_as(ErrorKind::kUsage, "{} is on the list of those that are never diverted",
                       to_string(remote));
    }
    if (find(selector) == nullptr) {
        if (size() >= limits_.most) {
            return fail("there are {} diversions, and no more are allowed", size());
        }
        if (minute_ == now_s / 60 && in_minute_ >= limits_.most_per_minute) {
            return fail("{} diversions began within this minute, and no more are allowed",
                        in_minute_);
        }
    }
    return {};
}

Result<bool> Diversions::add(const Diversion& diversion, uint32_t now_s) {
    IVMM_TRY(check(diversion.selector, now_s));
    if (Diversion* const known = find_mutable(diversion.selector)) {
        if (known->owner != diversion.owner || known->selector.scope != diversion.selector.scope) {
            return fail("{} is diverted already", to_string(known->selector));
        }
        known->expires_s = diversion.expires_s;
        return false;
    }
    if (minute_ != now_s / 60) {
        minute_ = now_s / 60;
        in_minute_ = 0;
    }
    ++in_minute_;
    ++generation_;
    if (diversion.selector.scope == Scope::kFlow) {
        flows_.emplace(diversion.selector.flow, diversion);
        ++flow_remotes_[diversion.selector.flow.remote];
    } else {
        addresses_.emplace(diversion.selector.remote, diversion);
    }
    return true;
}

bool Diversions::give(const Selector& selector, Member owner, uint32_t expires_s) {
    Diversion* const known = find_mutable(selector);
    if (known == nullptr) {
        return false;
    }
    known->owner = owner;
    known->expires_s = expires_s;
    ++generation_;
    return true;
}

void Diversions::forget_flow(const FlowKey& key) {
    const auto remote = flow_remotes_.find(key.remote);
    if (--remote->second == 0) {
        flow_remotes_.erase(remote);
    }
}

bool Diversions::remove(const Selector& selector) {
    if (selector.scope == Scope::kFlow) {
        if (flows_.erase(selector.flow) == 0) {
            return false;
        }
        forget_flow(selector.flow);
    } else if (addresses_.erase(selector.remote) == 0) {
        return false;
    }
    ++generation_;
    return true;
}

std::vector<Diversions::Diversion> Diversions::expire(uint32_t now_s) {
    std::vector<Diversion> over;
    const auto sweep = [&](const auto& entry) {
        const Diversion& diversion = entry.second;
        if (diversion.expires_s == 0 || now_s < diversion.expires_s) {
            return false;
        }
        over.push_back(diversion);
        if (diversion.selector.scope == Scope::kFlow) {
            forget_flow(diversion.selector.flow);
        }
        return true;
    };
    std::erase_if(flows_, sweep);
    std::erase_if(addresses_, sweep);
    generation_ += over.empty() ? 0 : 1;
    return over;
}

Member Diversions::owner_of(const Flow& flow) const {
    const bool by_member = flow.opener != kRemote;
    const Member otherwise = by_member ? flow.opener : kPrimary;
    if (empty()) {
        return otherwise;
    }
    if (const auto found = flows_.find(flow.key); found != flows_.end()) {
        return found->second.owner;
    }
    const auto found = addresses_.find(flow.key.remote);
    if (found == addresses_.end()) {
        return otherwise;
    }
    const Diversion& diversion = found->second;
    const bool was_there = flow.serial < diversion.serial;
    const bool new_too = diversion.selector.scope == Scope::kIpAndNewFlows && !by_member;
    // What a clone has opened was never the primary's.
    const bool of_clone = by_member && flow.opener != kPrimary;
    return (was_there && !of_clone) || new_too ? diversion.owner : otherwise;
}

Member Diversions::owner_of_new(const FlowKey& key) const {
    if (empty()) {
        return kPrimary;
    }
    if (const auto found = flows_.find(key); found != flows_.end()) {
        return found->second.owner;
    }
    const auto found = addresses_.find(key.remote);
    return found != addresses_.end() && found->second.selector.scope == Scope::kIpAndNewFlows
               ? found->second.owner
               : kPrimary;
}

bool Diversions::depends_on(const Flow& flow) const {
    const auto found = addresses_.find(flow.key.remote);
    return found != addresses_.end() && found->second.selector.scope == Scope::kIp &&
           flow.serial < found->second.serial;
}

std::vector<Diversions::Diversion> Diversions::list() const {
    std::vector<Diversion> all;
    for (const auto& [key, diversion] : flows_) {
        all.push_back(diversion);
    }
    for (const auto& [address, diversion] : addresses_) {
        all.push_back(diversion);
    }
    std::sort(all.begin(), all.end(), [](const Diversion& a, const Diversion& b) {
        return a.serial != b.serial ? a.serial < b.serial
                                    : to_string(a.selector) < to_string(b.selector);
    });
    return all;
}

}  // namespace ivmm::net
