#include "vmm/switch/switch_json.h"

#include "vmm/control/parameters.h"

namespace ivmm {
namespace {

using rpc::Json;

Result<uint8_t> protocol_from(const Json& params) {
    IVMM_ASSIGN(const auto name, rpc::text_parameter(params, "protocol"));
    for (const uint8_t protocol : {net::kTcp, net::kUdp, net::kIcmp, net::kIcmpV6}) {
        if (name == net::protocol_name(protocol)) {
            return protocol;
        }
    }
    return fail_as(ErrorKind::kUsage, "protocol '{}': write tcp, udp, icmp or icmp6", name);
}

Result<net::FlowKey> flow_from(const Json& params) {
    if (!params.is_object()) {
        return fail_as(ErrorKind::kUsage, "flow must be an object");
    }
    IVMM_TRY(rpc::check_parameters(params, {"protocol", "remote", "local", "remote_port",
                                            "local_port", "vlan", "inner_vlan"}));
    net::FlowKey key;
    IVMM_ASSIGN(key.protocol, protocol_from(params));
    IVMM_ASSIGN(const auto remote, rpc::text_parameter(params, "remote"));
    IVMM_ASSIGN(const auto local, rpc::text_parameter(params, "local"));
    IVMM_ASSIGN(key.remote, net::parse_ip(remote));
    IVMM_ASSIGN(key.local, net::parse_ip(local));
    const auto number = [&](const char* name, uint32_t most) {
        return rpc::number_parameter(params, name, 0, most, 0);
    };
    IVMM_ASSIGN(const auto remote_port, number("remote_port", 65535));
    IVMM_ASSIGN(const auto local_port, number("local_port", 65535));
    IVMM_ASSIGN(const auto outer, number("vlan", 4095));
    IVMM_ASSIGN(const auto inner, number("inner_vlan", 4095));
    key.remote_port = static_cast<uint16_t>(remote_port);
    key.local_port = static_cast<uint16_t>(local_port);
    key.outer_vlan = static_cast<uint16_t>(outer);
    key.inner_vlan = static_cast<uint16_t>(inner);
    return key;
}

/// The only flow of the guest with this far end.
Result<net::FlowKey> find_flow(const net::Switch& net, net::PortId guest,
                               const net::IpAddress& remote, uint16_t port) {
    const auto found = net.flows(guest, 2, [&](const net::Flow& flow) {
        return flow.key.remote == remote && flow.key.remote_port == port && !flow.is_closed();
    });
    if (found.size() != 1) {
        return fail("there is {} flow with {} port {}; see `ivmm flows`",
                    found.empty() ? "no" : "more than one", to_string(remote), port);
    }
    return found[0].flow.key;
}

}  // namespace

Result<net::Selector> selector_from(const Json& params, const net::Switch& net, net::PortId guest) {
    net::Selector selector;
    if (params.contains("flow")) {
        selector.scope = net::Scope::kFlow;
        IVMM_ASSIGN(selector.flow, flow_from(params["flow"]));
        selector.remote = selector.flow.remote;
        return selector;
    }
    IVMM_ASSIGN(const auto remote, rpc::text_parameter(params, "remote"));
    IVMM_ASSIGN(selector.remote, net::parse_ip(remote));
    IVMM_ASSIGN(const auto port, rpc::number_parameter(params, "remote_port", 0, 65535, 0));
    if (port != 0) {
        selector.scope = net::Scope::kFlow;
        IVMM_ASSIGN(selector.flow,
                    find_flow(net, guest, selector.remote, static_cast<uint16_t>(port)));
        return selector;
    }
    if (params.contains("scope")) {
        IVMM_ASSIGN(const auto scope, rpc::text_parameter(params, "scope"));
        IVMM_ASSIGN(selector.scope, net::parse_scope(scope));
        if (selector.scope == net::Scope::kFlow) {
            return fail_as(ErrorKind::kUsage, "scope flow needs a flow, or a remote_port");
        }
    }
    return selector;
}

Json to_json(const net::FlowKey& key) {
    return {{"protocol", net::protocol_name(key.protocol)},
            {"remote", to_string(key.remote)},
            {"remote_port", key.remote_port},
            {"local", to_string(key.local)},
            {"local_port", key.local_port},
            {"vlan", key.outer_vlan},
            {"inner_vlan", key.inner_vlan}};
}

Json to_json(const net::Switch::PortInfo& port) {
    Json drops = Json::object();
    for (size_t i = 0; i < port.counters.drops.size(); ++i) {
        drops[to_string(static_cast<net::Drop>(i))] = port.counters.drops[i];
    }
    Json json{{"name", port.name},
              {"role", to_string(port.role)},
              {"mac", net::to_string(port.mac)},
              {"attached", port.attached},
              {"frames_in", port.counters.frames_in},
              {"bytes_in", port.counters.bytes_in},
              {"frames_out", port.counters.frames_out},
              {"bytes_out", port.counters.bytes_out},
              {"drops", std::move(drops)}};
    if (port.role == net::Role::kClone) {
        json["guest"] = port.guest;
        json["policy"] = port.policy;
        json["waiting_frames"] = port.waiting;
    }
    return json;
}

Json to_json(const net::Switch::DiversionInfo& diversion) {
    Json json{{"guest", diversion.guest},
              {"clone", diversion.clone},
              {"scope", to_string(diversion.selector.scope)},
              {"remote", to_string(diversion.selector.remote)},
              {"left_s", diversion.left_s}};
    if (diversion.selector.scope == net::Scope::kFlow) {
        json["flow"] = to_json(diversion.selector.flow);
    }
    return json;
}

Json to_json(const net::Switch::FlowInfo& info, uint32_t now_s) {
    const net::Flow& flow = info.flow;
    Json json = to_json(flow.key);
    json["serial"] = flow.serial;
    json["owner"] = info.owner;
    json["opened_by"] = info.opener;
    json["verdict"] = to_string(flow.verdict);
    json["frames_in"] = flow.frames_in;
    json["bytes_in"] = flow.bytes_in;
    json["frames_out"] = flow.frames_out;
    json["bytes_out"] = flow.bytes_out;
    json["idle_s"] = now_s - flow.last_seen_s;
    json["closed"] = flow.is_closed();
    return json;
}

Json to_json(const net::Switch::CloneFlows& clone, uint32_t now_s) {
    Json newest = Json::array();
    for (const auto& flow : clone.newest) {
        newest.push_back(to_json(flow, now_s));
    }
    return {{"clone", clone.clone},
            {"guest", clone.guest},
            {"flows", clone.flows},
            {"newest", std::move(newest)}};
}

Json to_json(const net::Switch::TableInfo& table) {
    return {{"guest", table.guest},
            {"flows", table.flows},
            {"pinned", table.pinned},
            {"evicted", table.evicted},
            {"memory_bytes", table.memory_bytes}};
}

}  // namespace ivmm
