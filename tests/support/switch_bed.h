#pragma once

#include <map>
#include <string>
#include <vector>

#include "net/switch.h"
#include "tests/support/frames.h"

namespace ivmm::net::test {

/// A switch with an uplink, the guest "web" and its clone "trap", each with lists as its ends.
class SwitchBed {
 public:
    explicit SwitchBed(Policy policy = {}, Switch::Options options = {})
        : net(std::move(options), [this](const Event& event) { events.push_back(event); }) {
        uplink = *net.add_uplink("up");
        guest = *net.add_guest("web", kGuestMac);
        clone = *net.add_clone("trap", guest, std::move(policy));
        for (const PortId id : {uplink, guest, clone}) {
            attach(id);
        }
        // So that the gateway and the guest are known.
        send(guest, arp({kGuestMac, kEverybody}, 1, "192.0.2.10", "192.0.2.1"));
        send(uplink, arp({kGatewayMac, kGuestMac}, 2, "192.0.2.1", "192.0.2.10"));
        send(guest, udp(Peers{}.back(), 9, 9));
        clear();
    }

    void attach(PortId id) { net.attach(id, std::make_unique<MemoryPort>(ends[id])); }
    void send(PortId from, const Bytes& bytes, const VnetHeader& vnet = {}) {
        ends[from].to_switch.emplace_back(vnet, bytes);
        while (net.poll(from, now_ns) > 0) {
        }
    }
    /// What has come out at a port since the last call.
    std::vector<Bytes> take(PortId at) {
        std::vector<Bytes> all;
        for (auto& [vnet, bytes] : ends[at].from_switch) {
            all.push_back(std::move(bytes));
        }
        ends[at].from_switch.clear();
        return all;
    }
    void clear() {
        for (auto& [id, one] : ends) {
            one.from_switch.clear();
        }
        events.clear();
    }
    void pass(uint64_t ms) {
        now_ns += ms * 1'000'000;
        net.tick(now_ns);
    }
    uint64_t drops(PortId id, Drop why) const {
        for (const auto& port : net.ports()) {
            if (port.id == id) {
                return port.counters.drops[static_cast<size_t>(why)];
            }
        }
        return 0;
    }
    size_t count_events(std::string_view name) const {
        size_t count = 0;
        for (const Event& event : events) {
            count += event.name == name ? 1 : 0;
        }
        return count;
    }

    std::map<PortId, MemoryPort::Ends> ends;
    std::vector<Event> events;
    uint64_t now_ns = 1'000'000'000;
    Switch net;
    PortId uplink = 0;
    PortId guest = 0;
    PortId clone = 0;
};

inline Selector whole(const char* address = "198.51.100.7", Scope scope = Scope::kIpAndNewFlows) {
    Selector selector;
    selector.scope = scope;
    selector.remote = *parse_ip(address);
    return selector;
}

inline Selector one_flow(uint16_t remote_port, uint16_t local_port, uint8_t protocol = kTcp) {
    Selector selector;
    selector.scope = Scope::kFlow;
    selector.flow.remote = selector.remote = *parse_ip("198.51.100.7");
    selector.flow.local = *parse_ip("192.0.2.10");
    selector.flow.remote_port = remote_port;
    selector.flow.local_port = local_port;
    selector.flow.protocol = protocol;
    return selector;
}

}  // namespace ivmm::net::test
