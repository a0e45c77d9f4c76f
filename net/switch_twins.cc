// A switch's guests and their clones: who owns a flow, and how that changes.

#include <algorithm>

#include "net/switch_parts.h"

namespace ivmm::net {
namespace {

constexpr int kMaxPollsAtCommit = 64;

}  // namespace

std::string Switch::name_of(const Twins& twins, Member member) const {
    if (member >= twins.members.size() || twins.members[member] == kNoPort) {
        return "";
    }
    return slot(twins.members[member])->name;
}

Member Switch::known_owner_of(const Twins& twins, const Flow& flow) {
    return flow.generation == twins.diversions.generation() ? flow.owner
                                                            : twins.diversions.owner_of(flow);
}

Member Switch::owner_of(Twins& twins, Flow& flow) {
    if (flow.generation != twins.diversions.generation()) {
        flow.owner = twins.diversions.owner_of(flow);
        flow.generation = twins.diversions.generation();
    }
    return flow.owner;
}

Flow* Switch::track(Twins& twins, const FlowKey& key, Direction direction, Member opener,
                    size_t frame_size, uint8_t tcp_flags) {
    Flow* flow = twins.flows.find(key);
    if (flow != nullptr && flow->is_closed() && (tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn) {
        twins.flows.remove(*flow);  // the same ports, and another connection
        flow = nullptr;
    }
    if (flow == nullptr) {
        flow = twins.flows.add(key, now_s());
        if (flow == nullptr) {
            return nullptr;
        }
        flow->opener = opener;
    }
    twins.flows.touch(*flow, direction, frame_size, tcp_flags, now_s());
    return flow;
}

Member Switch::owner_of_earlier(Twins& twins, const Headers& headers) {
    if (!headers.is_ip() || headers.is_neighbour_discovery()) {
        return kPrimary;
    }
    if (headers.fragment == Headers::Fragment::kLater) {
        return twins.fragments.find(Fragments::key(headers, kRemote), now_s()).value_or(kPrimary);
    }
    const FlowKey key = headers.embedded ? embedded_flow_key(headers, Direction::kIn)
                                         : flow_key(headers, Direction::kIn);
    Flow* const flow = headers.no_ports ? nullptr : twins.flows.find(key);
    return flow == nullptr ? twins.diversions.owner_of_new(key) : owner_of(twins, *flow);
}

size_t Switch::pass_on_unread(Twins& twins, Member clone) {
    Slot& guest = *slot(twins.members[kPrimary]);
    if (!guest.endpoint) {
        return 0;
    }
    auto unread = guest.endpoint->take_back([&](const Frame& frame) {
        return owner_of_earlier(twins, parse_headers(frame.head, frame.size())) == clone;
    });
    for (StoredFrame& one : unread) {
        Frame frame = one.frame();
        send_to_owner(twins, clone, frame, parse_headers(frame.head, frame.size()));
    }
    return unread.size();
}

std::optional<Member> Switch::owner_in(Twins& twins, const Frame& frame, const Headers& headers) {
    // One of all answers those who look for the address: the primary.
    if (!headers.is_ip() || headers.is_neighbour_discovery()) {
        return kPrimary;
    }
    const FlowKey key = flow_key(headers, Direction::kIn);
    const Diversions& diversions = twins.diversions;
    if (is_multicast(headers.destination) || headers.tuple.destination.is_multicast()) {
        return diversions.owner_of_new(key);
    }
    if (headers.fragment == Headers::Fragment::kLater) {
        if (!diversions.concerns(key.remote)) {
            return kPrimary;
        }
        const auto fragment = Fragments::key(headers, kRemote);
        if (const auto owner = twins.fragments.find(fragment, now_s())) {
            return owner;
        }
        if (!twins.fragments.wait(fragment, frame, now_s())) {
            drop(*slot(twins.members[kPrimary]), Drop::kFragment, frame);
        }
        return std::nullopt;
    }
    if (headers.embedded) {
        const FlowKey embedded = embedded_flow_key(headers, Direction::kIn);
        Flow* const flow = twins.flows.find(embedded);
        return flow == nullptr ? diversions.owner_of_new(embedded) : owner_of(twins, *flow);
    }
    Member owner = diversions.owner_of_new(key);
    if (!headers.no_ports) {
        if (Flow* const flow =
                track(twins, key, Direction::kIn, kRemote, frame.size(), headers.tcp_flags)) {
            owner = owner_of(twins, *flow);
        }
    }
    if (headers.fragment == Headers::Fragment::kFirst && !diversions.empty()) {
        twins.fragments.decide(Fragments::key(headers, kRemote), owner, now_s());
    }
    return owner;
}

void Switch::send_to_owner(Twins& twins, Member owner, Frame& frame, const Headers& headers) {
    if (owner >= kFirstHold) {
        for (const auto& hold : holds_) {
            if (hold->twins == &twins && hold->owner == owner) {
                if (!hold->queue.push(frame)) {
                    ++hold->refused;
                    drop(*slot(twins.members[kPrimary]), Drop::kHoldFull, frame);
                }
                return;
            }
        }
        owner = kPrimary;  // a fragment's decision from a hold that is over
    }
    Slot* const to = owner < twins.members.size() ? slot(twins.members[owner]) : nullptr;
    if (to == nullptr) {
        // The clone is gone: whom it had stays cut off.
        drop(*slot(twins.members[kPrimary]), Drop::kNoPort, frame);
        return;
    }
    if (to->recorder) {
        to->recorder->record(Place::kUplink, Direction::kIn, frame, "forward");
    }
    deliver(*to, frame, headers);
}

void Switch::deliver_in(Twins& twins, Frame& frame, const Headers& headers) {
    twins.lease.learn(headers, frame);
    const auto owner = owner_in(twins, frame, headers);
    if (!owner) {
        return;
    }
    send_to_owner(twins, *owner, frame, headers);
    if (headers.fragment == Headers::Fragment::kFirst) {
        twins.fragments.release(Fragments::key(headers, kRemote), [&](Frame later) {
            send_to_owner(twins, *owner, later, parse_headers(later.head, later.size()));
        });
    }
}

void Switch::learn_local(Twins& twins, const Headers& headers) {
    const Twins::Local local{headers.tuple.source, headers.outer_vlan, headers.inner_vlan};
    if (local.address.is_unspecified() || local.address.is_multicast() ||
        std::find(twins.locals.begin(), twins.locals.end(), local) != twins.locals.end()) {
        return;
    }
    if (twins.locals.size() < Twins::kMaxLocals) {
        twins.locals.push_back(local);
    }
}

bool Switch::may_send(Twins& twins, const Frame& frame, const Headers& headers) {
    Slot& from = *slot(twins.members[kPrimary]);
    if (!headers.is_ip() || headers.is_neighbour_discovery()) {
        return true;
    }
    if (headers.source == from.mac) {
        learn_local(twins, headers);
    }
    if (is_multicast(headers.destination) || headers.tuple.destination.is_multicast()) {
        return true;
    }
    const auto cut = [&](Member owner) {
        drop(from, Drop::kCut, frame);
        Slot* const clone = owner < twins.members.size() ? slot(twins.members[owner]) : nullptr;
        if (clone != nullptr && clone->recorder) {
            clone->recorder->record(Place::kGuest, Direction::kOut, frame, "cut");
        }
        return false;
    };
    const auto allowed = [](Member owner) { return owner == kPrimary || owner >= kFirstHold; };
    const Diversions& diversions = twins.diversions;
    const FlowKey key = flow_key(headers, Direction::kOut);
    if (headers.fragment == Headers::Fragment::kLater) {
        if (!diversions.concerns(key.remote)) {
            return true;
        }
        const auto owner = twins.fragments.find(Fragments::key(headers, kPrimary), now_s());
        return owner && allowed(*owner) ? true : cut(owner.value_or(kPrimary));
    }
    if (headers.embedded) {
        const FlowKey embedded = embedded_flow_key(headers, Direction::kOut);
        Flow* const flow = twins.flows.find(embedded);
        const Member owner =
            flow == nullptr ? diversions.owner_of_new(embedded) : owner_of(twins, *flow);
        return allowed(owner) ? true : cut(owner);
    }
    Member owner = diversions.owner_of_new(key);
    if (!headers.no_ports) {
        // Who begins a connection owns it. Of what else comes out of nowhere nobody knows, so where
        // an address is diverted as a whole, it is the address's.
        const bool opens = (headers.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
        const bool own = headers.is_tcp() ? opens : owner == kPrimary;
        Flow* const flow = track(twins, key, Direction::kOut, own ? kPrimary : kRemote,
                                 frame.size(), headers.tcp_flags);
        if (flow != nullptr) {
            owner = owner_of(twins, *flow);
            if (!allowed(owner) && flow->opener == owner) {
                // A clone has taken ports that the primary wants: the primary comes first.
                flow->opener = kPrimary;
                flow->verdict = Verdict::kForward;
                flow->generation = 0;
                owner = owner_of(twins, *flow);
            }
        }
    }
    if (headers.fragment == Headers::Fragment::kFirst && !diversions.empty()) {
        twins.fragments.decide(Fragments::key(headers, kPrimary), owner, now_s());
    }
    return allowed(owner) ? true : cut(owner);
}

Result<bool> Switch::divert(PortId clone, const Selector& selector, uint32_t ttl_s, bool dry_run) {
    Slot& to = *slot(clone);
    Twins& twins = *to.twins;
    if (dry_run) {
        IVMM_TRY(twins.diversions.check(selector, now_s()));
        return twins.diversions.find(selector) == nullptr;
    }
    Diversions::Diversion diversion;
    diversion.selector = selector;
    diversion.owner = to.member;
    diversion.serial = twins.flows.next_serial();
    diversion.since_s = now_s();
    diversion.expires_s = ttl_s == 0 ? 0 : now_s() + ttl_s;
    IVMM_ASSIGN(const bool is_new, twins.diversions.add(diversion, now_s()));
    if (is_new) {
        tell("divert", to.name, to_string(selector));
    }
    return is_new;
}

Result<bool> Switch::undivert(PortId guest, const Selector& selector) {
    Twins& twins = *slot(guest)->twins;
    const auto* const known = twins.diversions.find(selector);
    if (known == nullptr) {
        return false;
    }
    if (known->owner >= kFirstHold) {
        return fail("{} is held for a fork at the moment", to_string(selector));
    }
    tell("undivert", slot(guest)->name, to_string(known->selector));
    twins.diversions.remove(selector);
    twins.flows.unpin_all();
    return true;
}

Result<Switch::HoldId> Switch::begin_hold(PortId guest, const Selector& selector,
                                          HoldLimits limits) {
    Twins& twins = *slot(guest)->twins;
    if (twins.diversions.find(selector) != nullptr) {
        return fail("{} is diverted already", to_string(selector));
    }
    Member owner = kFirstHold;
    while (std::any_of(holds_.begin(), holds_.end(), [&](const auto& hold) {
        return hold->twins == &twins && hold->owner == owner;
    })) {
        ++owner;
    }
    if (owner >= kFirstHold + kMaxHolds) {
        return fail("{} forks of '{}' hold frames already", kMaxHolds, slot(guest)->name);
    }
    Diversions::Diversion diversion;
    diversion.selector = selector;
    diversion.owner = owner;
    diversion.serial = twins.flows.next_serial();
    diversion.since_s = now_s();
    IVMM_TRY(twins.diversions.add(diversion, now_s()));
    holds_.push_back(
        std::make_unique<Hold>(Hold{next_hold_, &twins, selector, owner, FrameQueue(limits.queue),
                                    now_ns_, now_ns_ + limits.most_ms * uint64_t{1'000'000}, 0}));
    tell("hold", slot(guest)->name, to_string(selector));
    return next_hold_++;
}

Result<Switch::Committed> Switch::commit_hold(HoldId hold, PortId clone, uint32_t ttl_s) {
    const auto found = std::find_if(holds_.begin(), holds_.end(),
                                    [&](const auto& one) { return one->id == hold; });
    if (found == holds_.end()) {
        return fail("hold {} is over", hold);
    }
    Slot& to = *slot(clone);
    if (to.twins != (*found)->twins) {
        return fail_as(ErrorKind::kUsage, "'{}' is not a clone of '{}'", to.name,
                       name_of(*(*found)->twins, kPrimary));
    }
    // What the guest sent while it was still one machine is on its way, and goes.
    const PortId guest = to.twins->members[kPrimary];
    for (int i = 0; i < kMaxPollsAtCommit && poll(guest, now_ns_) > 0; ++i) {
    }
    Committed report;
    report.held_frames = (*found)->queue.size();
    report.held_bytes = (*found)->queue.bytes();
    report.refused = (*found)->refused;
    report.hold_ns = now_ns_ - (*found)->began_ns;
    to.twins->diversions.give((*found)->selector, to.member, ttl_s == 0 ? 0 : now_s() + ttl_s);
    tell("divert", to.name, to_string((*found)->selector));
    report.unread_frames = pass_on_unread(*to.twins, to.member);
    const auto ended = std::move(*found);
    holds_.erase(found);
    end_hold(*ended, to.member);
    return report;
}

bool Switch::roll_back_hold(HoldId hold) {
    const auto found = std::find_if(holds_.begin(), holds_.end(),
                                    [&](const auto& one) { return one->id == hold; });
    if (found == holds_.end()) {
        return false;
    }
    const auto ended = std::move(*found);
    holds_.erase(found);
    ended->twins->diversions.remove(ended->selector);
    ended->twins->flows.unpin_all();
    end_hold(*ended, kPrimary);
    return true;
}

void Switch::end_hold(Hold& hold, Member owner) {
    for (; !hold.queue.empty(); hold.queue.pop()) {
        Frame frame = hold.queue.front().frame();
        send_to_owner(*hold.twins, owner, frame, parse_headers(frame.head, frame.size()));
    }
    flush();
}

std::vector<Switch::DiversionInfo> Switch::diversions() const {
    std::vector<DiversionInfo> all;
    for (const auto& twins : twins_) {
        for (const auto& one : twins->diversions.list()) {
            all.push_back({name_of(*twins, kPrimary), name_of(*twins, one.owner), one.selector,
                           one.since_s, one.expires_s == 0 ? 0 : one.expires_s - now_s()});
        }
    }
    return all;
}

std::vector<Switch::TableInfo> Switch::tables() const {
    std::vector<TableInfo> all;
    for (const auto& twins : twins_) {
        all.push_back({name_of(*twins, kPrimary), twins->flows.size(), twins->flows.pinned(),
                       twins->flows.evicted(), twins->flows.memory_bytes(),
                       twins->flows.next_serial() - 1});
    }
    return all;
}

Switch::FlowInfo Switch::info_of(const Twins& twins, const Flow& flow, Member owner) const {
    return {flow, name_of(twins, owner), flow.opener == kRemote ? "" : name_of(twins, flow.opener)};
}

std::vector<Switch::FlowInfo> Switch::flows(PortId guest, size_t most,
                                            const std::function<bool(const Flow&)>& wanted) const {
    const Twins& twins = *slot(guest)->twins;
    std::vector<FlowInfo> all;
    twins.flows.for_each([&](const Flow& flow) {
        if (wanted(flow)) {
            all.push_back(info_of(twins, flow, known_owner_of(twins, flow)));
        }
        return all.size() < most;
    });
    return all;
}

std::vector<Switch::CloneFlows> Switch::clone_flows(size_t most) const {
    std::vector<CloneFlows> all;
    for (const auto& twins : twins_) {
        const size_t members = twins->members.size();
        if (members <= 1) {
            continue;
        }
        std::vector<size_t> counts(members);
        std::vector<std::vector<const Flow*>> newest(members);  // first the oldest of them
        const auto newer = [](const Flow* a, const Flow* b) { return a->serial > b->serial; };
        twins->flows.for_each([&](const Flow& flow) {
            const Member owner = known_owner_of(*twins, flow);
            if (owner == kPrimary || owner >= members) {
                return true;
            }
            ++counts[owner];
            auto& heap = newest[owner];
            if (most > 0 && (heap.size() < most || newer(&flow, heap.front()))) {
                if (heap.size() == most) {
                    std::pop_heap(heap.begin(), heap.end(), newer);
                    heap.pop_back();
                }
                heap.push_back(&flow);
                std::push_heap(heap.begin(), heap.end(), newer);
            }
            return true;
        });
        for (size_t i = 1; i < members; ++i) {
            const auto member = static_cast<Member>(i);
            if (twins->members[i] == kNoPort) {
                continue;
            }
            CloneFlows clone{name_of(*twins, member), name_of(*twins, kPrimary), counts[i], {}};
            std::sort_heap(newest[i].begin(), newest[i].end(), newer);
            for (const Flow* const flow : newest[i]) {
                clone.newest.push_back(info_of(*twins, *flow, member));
            }
            all.push_back(std::move(clone));
        }
    }
    return all;
}

}  // namespace ivmm::net
