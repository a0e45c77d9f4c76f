// What a clone sends: nothing gets out that its policy does not allow.

#include <algorithm>

#include "base/clock.h"
#include "base/printable.h"
#include "net/ntp_answer.h"
#include "net/reply.h"
#include "net/switch_parts.h"
#include "net/wire.h"

namespace ivmm::net {
namespace {

constexpr uint8_t kIgmp = 2;
constexpr const char* kGuestsAlone = "what only the guest may ask or tell its network";

/// What a machine tells its network of itself, and what its network would ask.
bool is_announcement(const Headers& headers) {
    if (headers.tuple.protocol == kIgmp) {
        return true;
    }
    // Multicast listener messages.
    return headers.is_icmp_v6() && !headers.no_ports &&
           ((headers.icmp_type >= 130 && headers.icmp_type <= 132) || headers.icmp_type == 143);
}

/// Turns a packet round: from whom it was for, to who has sent it. The checksums stay right, as a
/// sum does not know an order.
void swap_addresses(Frame& frame, const Headers& headers) {
    const auto swap = [&](size_t first, size_t length) {
        std::byte* const from = frame.head.data() + first;
        std::swap_ranges(from, from + length, from + length);
    };
    swap(0, 6);
    if (headers.tuple.source.is_v4()) {
        swap(headers.network_offset + size_t{12}, 4);
    } else {
        swap(headers.network_offset + size_t{8}, 16);
    }
}

}  // namespace

void Switch::from_clone(Slot& from, Frame& frame, const Headers& headers) {
    Twins& twins = *from.twins;
    if (headers.source != from.mac) {
        drop(from, Drop::kSpoofed, frame, "another link address than the clone's");
        return;
    }
    if (headers.kind == Headers::Kind::kArp || headers.is_neighbour_discovery()) {
        answer_clone(from, neighbours_.answer(headers, frame.head), frame, Drop::kSuppressed,
                     kGuestsAlone);
        return;
    }
    if (!headers.is_ip()) {
        drop(from, Drop::kContained, frame,
             headers.kind == Headers::Kind::kMalformed ? "headers that cannot be understood"
                                                       : "a protocol other than IP");
        return;
    }
    if (DhcpLease::is_request(headers)) {
        answer_clone(from, twins.lease.answer(headers, frame.head), frame, Drop::kSuppressed,
                     kGuestsAlone);
        return;
    }
    const FlowKey key = flow_key(headers, Direction::kOut);
    if (is_announcement(headers)) {
        drop(from, Drop::kSuppressed, frame, "an announcement", &key);
        return;
    }
    if (is_multicast(headers.destination) || headers.tuple.destination.is_multicast()) {
        drop(from, Drop::kContained, frame, "to a group", &key);
        return;
    }
    if (headers.has_options) {
        drop(from, Drop::kContained, frame, "IP options or extension headers", &key);
        return;
    }
    if (headers.fragment == Headers::Fragment::kLater) {
        const auto fragment = Fragments::key(headers, from.member);
        if (!twins.fragments.find(fragment, now_s())) {
            drop(from, Drop::kContained, frame, "a fragment of nothing that is allowed", &key);
            return;
        }
        send_out(from, frame, headers);
        return;
    }
    if (headers.no_ports) {
        drop(from, Drop::kContained, frame, "a packet that hides its ports", &key);
        return;
    }
    if (headers.embedded) {
        const FlowKey embedded = embedded_flow_key(headers, Direction::kOut);
        Flow* const flow = twins.flows.find(embedded);
        if (flow == nullptr || owner_of(twins, *flow) != from.member ||
            embedded.remote != key.remote) {
            drop(from, Drop::kContained, frame, "a complaint about a flow that is not its own",
                 &key);
            return;
        }
        carry_out(from, *flow, frame, headers);
        return;
    }
    Flow* flow = twins.flows.find(key);
    const bool opens = (headers.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
    if (flow != nullptr && flow->is_closed() && opens && owner_of(twins, *flow) == from.member) {
        twins.flows.remove(*flow);
        flow = nullptr;
    }
    if (flow == nullptr) {
        if (headers.is_tcp() && !opens) {
            drop(from, Drop::kStale, frame, "of no connection that is its own", &key);
            return;
        }
        flow = open_from_clone(from, key, frame);
        if (flow == nullptr) {
            return;
        }
    } else if (owner_of(twins, *flow) != from.member) {
        drop(from, Drop::kStale, frame, "of somebody else's flow", &key);
        return;
    }
    twins.flows.touch(*flow, Direction::kOut, frame.size(), headers.tcp_flags, now_s());
    carry_out(from, *flow, frame, headers);
}

void Switch::answer_clone(Slot& from, const std::optional<std::vector<std::byte>>& answer,
                          const Frame& frame, Drop otherwise, const char* why) {
    if (!answer) {
        drop(from, otherwise, frame, why);
        return;
    }
    StoredFrame reply(Frame{{}, {}, *answer});
    const Frame sent = reply.frame();
    if (from.recorder) {
        from.recorder->record(Place::kClone, Direction::kOut, frame, "answered by the switch");
        from.recorder->record(Place::kClone, Direction::kIn, sent, "answer of the switch");
    }
    deliver(from, sent, parse_headers(sent.head, sent.size()));
}

void Switch::answer_service(Slot& from, const Frame& frame, const Headers& headers) {
    const ConstByteSpan question = udp_payload(headers, frame.head);
    std::optional<std::vector<std::byte>> answer;
    if (headers.tuple.destination_port == kNtpPort) {
        answer = answer_ntp(question, clock_ns(CLOCK_REALTIME));
    } else if (auto dns = answer_dns(question, from.containment->policy().names)) {
        tell("dns", from.name, printable(std::move(dns->question)));
        answer = std::move(dns->message);
    }
    if (answer) {
        answer = udp_reply(headers, frame.head, *answer);
    }
    answer_clone(from, answer, frame, Drop::kContained, "a question that cannot be answered");
}

std::optional<PortId> Switch::target_of(const Slot& from,
                                        const Containment::Decision& decision) const {
    if (decision.verdict == Verdict::kReflect && *decision.via == "self") {
        return from.id;
    }
    const auto id = find_port(*decision.via);
    if (!id) {
        return std::nullopt;
    }
    const Slot& target = *slot(*id);
    const bool fits = decision.verdict == Verdict::kReflect
                          ? target.role == Role::kClone && target.twins == from.twins
                          : target.role == Role::kSink;
    return fits ? id : std::nullopt;
}

Flow* Switch::open_from_clone(Slot& from, const FlowKey& key, const Frame& frame) {
    Twins& twins = *from.twins;
    const Twins::Local local{key.local, key.outer_vlan, key.inner_vlan};
    if (std::find(twins.locals.begin(), twins.locals.end(), local) == twins.locals.end()) {
        drop(from, Drop::kSpoofed, frame, "an address or a VLAN that is not the guest's", &key);
        return nullptr;
    }
    for (const auto& others : twins_) {
        if (others->has_local(key.remote)) {
            drop(from, Drop::kContained, frame, "to a guest of this switch", &key);
            return nullptr;
        }
    }
    auto decision = from.containment->decide(key, now_s());
    uint8_t target = 0;
    if (decision.verdict == Verdict::kReflect || decision.verdict == Verdict::kRedirect) {
        const auto port = target_of(from, decision);
        if (!port) {
            decision = {Verdict::kDrop, nullptr, "where the policy sends it is not there"};
        }
        target = port.value_or(0);
    }
    if (decision.verdict == Verdict::kDrop) {
        drop(from, Drop::kContained, frame, decision.reason, &key);
        return nullptr;
    }
    const auto add = [&](const FlowKey& wanted, Member opener) -> Flow* {
        Flow* const flow = twins.flows.add(wanted, now_s());
        if (flow != nullptr) {
            flow->opener = opener;
            flow->verdict = decision.verdict;
            flow->target = target;
        }
        return flow;
    };
    if (decision.verdict == Verdict::kReflect) {
        // What the target answers goes back the same way.
        FlowKey back = key;
        std::swap(back.remote_port, back.local_port);
        if (back != key && twins.flows.find(back) == nullptr) {
            if (Flow* const flow = add(back, slot(target)->member)) {
                flow->target = from.id;
            }
        }
    }
    Flow* const flow = add(key, from.member);
    if (flow == nullptr) {
        drop(from, Drop::kContained, frame, "the table of flows is full", &key);
        return nullptr;
    }
    tell(to_string(decision.verdict), from.name, to_string(key));
    return flow;
}

void Switch::carry_out(Slot& from, Flow& flow, Frame& frame, const Headers& headers) {
    Twins& twins = *from.twins;
    const Verdict verdict =
        flow.opener == kRemote || flow.opener == kPrimary ? Verdict::kForward : flow.verdict;
    if (headers.fragment == Headers::Fragment::kFirst) {
        if (verdict != Verdict::kForward && verdict != Verdict::kLimit) {
            drop(from, Drop::kContained, frame, "a fragment that cannot be sent elsewhere");
            return;
        }
        twins.fragments.decide(Fragments::key(headers, from.member), from.member, now_s());
    }
    if (verdict == Verdict::kAnswer) {
        answer_service(from, frame, headers);
        return;
    }
    if (from.recorder) {
        from.recorder->record(Place::kClone, Direction::kOut, frame, to_string(verdict));
    }
    switch (verdict) {
        case Verdict::kReflect:
            reflect(from, flow.target, frame, headers);
            break;
        case Verdict::kRedirect: {
            Slot* const sink = slot(flow.target);
            if (sink == nullptr || sink->role != Role::kSink) {
                drop(from, Drop::kNoPort, frame);
                return;
            }
            store_mac(frame.head, 0, sink->mac);
            deliver(*sink, frame, headers);
            break;
        }
        default:
            send_out(from, frame, headers);
    }
}

void Switch::send_out(Slot& from, Frame& frame, const Headers& headers) {
    const auto guest = guests_by_mac_.find(mac_number(headers.destination));
    if (guest != guests_by_mac_.end() && guest->second != from.twins) {
        deliver_in(*guest->second, frame, headers);  // it is the one whose flow was diverted
        return;
    }
    // To a station that is known, never to all.
    const auto station = stations_.find(headers.destination, now_s());
    Slot* const to = station ? slot(*station) : nullptr;
    if (to == nullptr || to->role != Role::kUplink) {
        drop(from, Drop::kContained, frame, "to a link address that is not known outside");
        return;
    }
    if (mirrors_ > 0) {
        mirror(frame, headers);
    }
    deliver(*to, frame, headers);
}

void Switch::reflect(Slot& from, PortId target, Frame& frame, const Headers& headers) {
    Slot* const to = slot(target);
    if (to == nullptr || to->role != Role::kClone || to->twins != from.twins) {
        drop(from, Drop::kNoPort, frame);
        return;
    }
    swap_addresses(frame, headers);
    const Headers turned = parse_headers(frame.head, frame.size());
    if (to->recorder) {
        to->recorder->record(Place::kClone, Direction::kIn, frame, "reflected");
    }
    deliver(*to, frame, turned);
}

void Switch::from_sink(Slot& from, Frame& frame, const Headers& headers) {
    if (headers.kind == Headers::Kind::kArp && headers.arp_operation == 1) {
        for (const auto& twins : twins_) {
            if (twins->has_local(headers.arp_target_ip)) {
                const auto& guest = *slot(twins->members[kPrimary]);
                StoredFrame reply(Frame{{}, {}, make_arp_reply(headers, frame.head, guest.mac)});
                const Frame sent = reply.frame();
                deliver(from, sent, parse_headers(sent.head, sent.size()));
                return;
            }
        }
    }
    const auto guest = guests_by_mac_.find(mac_number(headers.destination));
    if (guest == guests_by_mac_.end() || !headers.is_ip() || headers.no_ports ||
        headers.fragment != Headers::Fragment::kNone) {
        drop(from, Drop::kNoPort, frame);
        return;
    }
    Twins& twins = *guest->second;
    Flow* const flow = twins.flows.find(flow_key(headers, Direction::kIn));
    const bool redirected =
        flow != nullptr && flow->verdict == Verdict::kRedirect && flow->target == from.id;
    const Member owner = redirected ? owner_of(twins, *flow) : kPrimary;
    if (!redirected || owner == kPrimary || flow->opener != owner ||
        owner >= twins.members.size() || twins.members[owner] == kNoPort) {
        drop(from, Drop::kNoPort, frame);
        return;
    }
    Slot& to = *slot(twins.members[owner]);
    twins.flows.touch(*flow, Direction::kIn, frame.size(), headers.tcp_flags, now_s());
    if (to.recorder) {
        to.recorder->record(Place::kClone, Direction::kIn, frame, "redirected");
    }
    deliver(to, frame, headers);
}

}  // namespace ivmm::net
