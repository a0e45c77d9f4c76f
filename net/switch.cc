#include "net/switch.h"

#include <algorithm>

#include "net/segments.h"
#include "net/switch_parts.h"

namespace ivmm::net {
namespace {

constexpr size_t kBatch = 64;
constexpr size_t kStationsOfUplink = MacTable::kMax;
constexpr size_t kStationsOfGuest = 16;
constexpr uint32_t kEventsPerSecond = 10;  // of one name and port
constexpr size_t kMaxTold = 4096;

}  // namespace

const char* to_string(Drop drop) {
    switch (drop) {
        case Drop::kMalformed:
            return "malformed";
        case Drop::kNoPort:
            return "no_port";
        case Drop::kNoRoom:
            return "no_room";
        case Drop::kCut:
            return "cut";
        case Drop::kContained:
            return "contained";
        case Drop::kSpoofed:
            return "spoofed";
        case Drop::kSuppressed:
            return "suppressed";
        case Drop::kStale:
            return "stale";
        case Drop::kHoldFull:
            return "hold_full";
        default:
            return "fragment";
    }
}

const char* to_string(Role role) {
    switch (role) {
        case Role::kUplink:
            return "uplink";
        case Role::kGuest:
            return "guest";
        case Role::kClone:
            return "clone";
        case Role::kSink:
            return "sink";
        default:
            return "mirror";
    }
}

Switch::Switch(Options options, EventSink events)
    : options_(std::move(options)), events_(std::move(events)) {}

Switch::~Switch() = default;

Switch::Slot* Switch::slot(PortId id) const {
    return id < slots_.size() ? slots_[id].get() : nullptr;
}

Result<Switch::Slot*> Switch::add_port(const std::string& name, Role role) {
    if (find_port(name)) {
        return fail_as(ErrorKind::kUsage, "there is a port '{}' already", name);
    }
    auto free = std::find(slots_.begin(), slots_.end(), nullptr);
    if (free == slots_.end()) {
        if (slots_.size() >= kMaxPorts) {
            return fail_as(ErrorKind::kUsage, "the switch has {} ports, and no more are possible",
                           kMaxPorts);
        }
        free = slots_.insert(free, nullptr);
    }
    *free = std::make_unique<Slot>();
    (*free)->id = static_cast<PortId>(free - slots_.begin());
    (*free)->name = name;
    (*free)->role = role;
    return free->get();
}

Result<PortId> Switch::add_uplink(const std::string& name) {
    IVMM_ASSIGN(const auto* const added, add_port(name, Role::kUplink));
    return added->id;
}

Result<PortId> Switch::add_mirror(const std::string& name) {
    IVMM_ASSIGN(const auto* const added, add_port(name, Role::kMirror));
    ++mirrors_;
    return added->id;
}

Result<PortId> Switch::add_sink(const std::string& name, const MacAddress& mac) {
    IVMM_ASSIGN(auto* const added, add_port(name, Role::kSink));
    added->mac = mac;
    return added->id;
}

Result<PortId> Switch::add_guest(const std::string& name, const MacAddress& mac) {
    if (is_multicast(mac) || guests_by_mac_.contains(mac_number(mac))) {
        return fail_as(ErrorKind::kUsage, "{} is not an address for guest '{}': {}", to_string(mac),
                       name, is_multicast(mac) ? "it is a group's" : "another guest has it");
    }
    IVMM_ASSIGN(auto* const added, add_port(name, Role::kGuest));
    added->mac = mac;
    added->twins = twins_.emplace_back(std::make_unique<Twins>(options_)).get();
    added->twins->members = {added->id};
    guests_by_mac_[mac_number(mac)] = added->twins;
    return added->id;
}

Result<PortId> Switch::add_clone(const std::string& name, PortId guest, Policy policy) {
    Twins& twins = *slot(guest)->twins;
    const auto diverted = twins.diversions.list();
    Member member = 1;
    while (member < twins.members.size() &&
           (twins.members[member] != kNoPort ||
            std::any_of(diverted.begin(), diverted.end(),
                        [&](const auto& one) { return one.owner == member; }))) {
        ++member;
    }
    if (member >= kMaxMembers) {
        return fail_as(ErrorKind::kUsage, "'{}' has {} clones, and no more are possible",
                       slot(guest)->name, kMaxMembers - 1);
    }
    IVMM_ASSIGN(auto* const added, add_port(name, Role::kClone));
    added->mac = slot(guest)->mac;
    added->twins = &twins;
    added->member = member;
    added->containment.emplace(std::move(policy));
    if (member == twins.members.size()) {
        twins.members.push_back(kNoPort);
    }
    twins.members[member] = added->id;
    return added->id;
}

void Switch::remove_port(PortId id) {
    Slot& gone = *slot(id);
    detach(id);
    stations_.forget_port(id);
    mirrors_ -= gone.role == Role::kMirror ? 1 : 0;
    if (gone.role == Role::kClone) {
        Twins& twins = *gone.twins;
        twins.members[gone.member] = kNoPort;
        std::vector<FlowKey> own;
        twins.flows.for_each([&](const Flow& flow) {
            if (flow.opener == gone.member) {
                own.push_back(flow.key);
            }
            return true;
        });
        for (const FlowKey& key : own) {
            twins.flows.remove(*twins.flows.find(key));
        }
    } else if (gone.role == Role::kGuest) {
        Twins* const twins = gone.twins;
        for (size_t member = 1; member < twins->members.size(); ++member) {
            if (twins->members[member] != kNoPort) {
                remove_port(twins->members[member]);
            }
        }
        std::erase_if(holds_, [&](const auto& hold) { return hold->twins == twins; });
        guests_by_mac_.erase(mac_number(gone.mac));
        std::erase_if(twins_, [&](const auto& one) { return one.get() == twins; });
    }
    slots_[id].reset();
}

std::optional<PortId> Switch::find_port(std::string_view name) const {
    for (const auto& one : slots_) {
        if (one && one->name == name) {
            return one->id;
        }
    }
    return std::nullopt;
}

void Switch::attach(PortId id, std::unique_ptr<Port> endpoint) {
    detach(id);
    Slot& to = *slot(id);
    to.endpoint = std::move(endpoint);
    drain(to);
    flush();
}

void Switch::detach(PortId id) {
    Slot& from = *slot(id);
    std::erase(dirty_, &from);
    from.dirty = false;
    from.endpoint.reset();
}

bool Switch::is_attached(PortId id) const {
    return slot(id)->endpoint != nullptr;
}

void Switch::set_recorder(PortId clone, std::unique_ptr<Recorder> recorder) {
    slot(clone)->recorder = std::move(recorder);
}

size_t Switch::poll(PortId id, uint64_t now_ns) {
    now_ns_ = now_ns;
    Slot* const from = slot(id);
    if (from == nullptr || !from->endpoint) {
        return 0;
    }
    drain(*from);
    std::array<Frame, kBatch> frames;
    const size_t count = from->endpoint->receive(frames);
    for (Frame& frame : std::span(frames).first(count)) {
        handle(*from, frame);
    }
    if (count > 0 && !from->dirty) {
        from->dirty = true;
        dirty_.push_back(from);  // its peer has room again
    }
    flush();
    return count;
}

void Switch::handle(Slot& from, Frame& frame) {
    ++from.counters.frames_in;
    from.counters.bytes_in += frame.size();
    const Headers headers = parse_headers(frame.head, frame.size());
    const bool valid = (frame.vnet.flags & VnetHeader::kDataValid) != 0;
    if (frame.size() < kMinFrameLength || frame.size() > kMaxFrameLength ||
        !make_honest(frame.vnet, headers) || is_multicast(headers.source)) {
        drop(from, Drop::kMalformed, frame,
             from.role == Role::kClone ? "not a frame, or a virtio-net header that lies" : nullptr);
        return;
    }
    switch (from.role) {
        case Role::kUplink:
            // The host's kernel has checked it; nobody else is believed.
            frame.vnet.flags |= valid ? VnetHeader::kDataValid : uint8_t{0};
            if (guests_by_mac_.contains(mac_number(headers.source))) {
                drop(from, Drop::kSpoofed, frame);  // a loop, or somebody who plays the guest
                return;
            }
            stations_.learn(headers.source, from.id, kStationsOfUplink, now_s());
            neighbours_.learn(headers, frame.head);
            forward(from, frame, headers);
            break;
        case Role::kGuest:
            from_guest(from, frame, headers);
            break;
        case Role::kClone:
            from_clone(from, frame, headers);
            break;
        case Role::kSink:
            from_sink(from, frame, headers);
            break;
        case Role::kMirror:
            drop(from, Drop::kNoPort, frame);  // it only listens
    }
}

void Switch::from_guest(Slot& from, Frame& frame, const Headers& headers) {
    if (headers.source != from.mac) {
        if (guests_by_mac_.contains(mac_number(headers.source))) {
            drop(from, Drop::kSpoofed, frame, "the address of another guest");
            return;
        }
        stations_.learn(headers.source, from.id, kStationsOfGuest, now_s());
    }
    if (may_send(*from.twins, frame, headers)) {
        forward(from, frame, headers);
    }
}

void Switch::forward(Slot& from, Frame& frame, const Headers& headers) {
    if (mirrors_ > 0) {
        mirror(frame, headers);
    }
    if (is_multicast(headers.destination)) {
        flood(from, frame, headers);
        return;
    }
    const auto guest = guests_by_mac_.find(mac_number(headers.destination));
    if (guest != guests_by_mac_.end()) {
        if (guest->second != from.twins) {
            deliver_in(*guest->second, frame, headers);
        }
        return;
    }
    const auto station = stations_.find(headers.destination, now_s());
    Slot* const to = station ? slot(*station) : nullptr;
    if (to == nullptr) {
        flood(from, frame, headers);
    } else if (to != &from) {
        if (to->twins != nullptr) {
            deliver_in(*to->twins, frame, headers);
        } else {
            deliver(*to, frame, headers);
        }
    }
}

void Switch::flood(Slot& from, Frame& frame, const Headers& headers) {
    for (const auto& to : slots_) {
        if (to && to.get() != &from && to->role == Role::kUplink) {
            deliver(*to, frame, headers);
        }
    }
    // The guests' own addresses are known, so what is for nobody known is not for them.
    if (is_multicast(headers.destination)) {
        for (const auto& twins : twins_) {
            if (twins.get() != from.twins) {
                deliver_in(*twins, frame, headers);
            }
        }
    }
}

void Switch::deliver(Slot& to, const Frame& frame, const Headers& headers) {
    const bool waits = to.role == Role::kClone && (!to.endpoint || !to.backlog.empty());
    if (waits) {
        if (!to.backlog.push(frame)) {
            drop(to, Drop::kNoRoom, frame);
        }
        return;
    }
    if (!to.endpoint) {
        drop(to, Drop::kNoRoom, frame);
        return;
    }
    const auto send = [&](const Frame& one) {
        if (!to.endpoint->send(one)) {
            if (to.role != Role::kClone || !to.backlog.push(one)) {
                drop(to, Drop::kNoRoom, one);
                return false;
            }
            return true;
        }
        ++to.counters.frames_out;
        to.counters.bytes_out += one.size();
        return true;
    };
    if (takes(to.endpoint->offloads(), frame.vnet)) {
        send(frame);
    } else {
        complete(frame, headers, send);
    }
    if (!to.dirty) {
        to.dirty = true;
        dirty_.push_back(&to);
    }
}

void Switch::drain(Slot& to) {
    while (to.endpoint && !to.backlog.empty()) {
        const Frame frame = to.backlog.front().frame();
        bool sent = true;
        const auto send = [&](const Frame& one) {
            sent = to.endpoint->send(one);
            to.counters.frames_out += sent ? 1 : 0;
            to.counters.bytes_out += sent ? one.size() : 0;
            return sent;
        };
        if (takes(to.endpoint->offloads(), frame.vnet)) {
            send(frame);
        } else {
            complete(frame, parse_headers(frame.head, frame.size()), send);
        }
        if (!sent) {
            break;
        }
        to.backlog.pop();
        if (!to.dirty) {
            to.dirty = true;
            dirty_.push_back(&to);
        }
    }
}

void Switch::mirror(const Frame& frame, const Headers& headers) {
    for (const auto& to : slots_) {
        if (to && to->role == Role::kMirror) {
            deliver(*to, frame, headers);
        }
    }
}

void Switch::flush() {
    for (Slot* const one : dirty_) {
        one->dirty = false;
        if (one->endpoint) {
            one->endpoint->flush();
        }
    }
    dirty_.clear();
}

void Switch::drop(Slot& from, Drop why, const Frame& frame, const char* detail,
                  const FlowKey* key) {
    ++from.counters.drops[static_cast<size_t>(why)];
    if (from.role == Role::kClone && from.recorder) {
        from.recorder->record(Place::kDropped, Direction::kOut, frame,
                              detail == nullptr ? to_string(why) : detail);
    }
    // Only what a clone or a guest has tried is worth telling.
    if (detail != nullptr) {
        tell(to_string(why), from.name,
             key == nullptr ? detail : fmt::format("{}: {}", to_string(*key), detail));
    }
}

void Switch::tell(const char* name, const std::string& port, std::string detail) {
    if (!events_) {
        return;
    }
    if (told_.size() >= kMaxTold) {
        told_.clear();
    }
    Told& told = told_[fmt::format("{} {}", name, port)];
    if (told.second != now_s()) {
        told.second = now_s();
        told.count = 0;
    }
    if (++told.count > kEventsPerSecond) {
        ++told.suppressed;
        return;
    }
    events_({name, port, std::move(detail), std::exchange(told.suppressed, 0)});
}

void Switch::tick(uint64_t now_ns) {
    now_ns_ = now_ns;
    for (size_t i = 0; i < holds_.size();) {
        Hold& hold = *holds_[i];
        if (now_ns_ < hold.ends_ns) {
            ++i;
            continue;
        }
        tell("hold.expired", name_of(*hold.twins, kPrimary), to_string(hold.selector));
        roll_back_hold(hold.id);
    }
    if (ticked_s_ == now_s()) {
        flush();
        return;
    }
    ticked_s_ = now_s();
    stations_.expire(now_s());
    for (const auto& twins : twins_) {
        const auto over = twins->diversions.expire(now_s());
        for (const auto& diversion : over) {
            tell("diversion.expired", name_of(*twins, kPrimary), to_string(diversion.selector));
        }
        if (!over.empty()) {
            twins->flows.unpin_all();
        }
        twins->flows.expire(now_s());
        slot(twins->members[kPrimary])->counters.drops[static_cast<size_t>(Drop::kFragment)] +=
            twins->fragments.expire(now_s());
    }
    flush();
}

std::vector<Switch::PortInfo> Switch::ports() const {
    std::vector<PortInfo> all;
    for (const auto& one : slots_) {
        if (one) {
            all.push_back({one->id, one->name, one->role, one->mac,
                           one->role == Role::kClone ? name_of(*one->twins, kPrimary) : "",
                           one->containment ? one->containment->policy().name : "",
                           one->endpoint != nullptr, one->backlog.size(), one->counters});
        }
    }
    return all;
}

}  // namespace ivmm::net
