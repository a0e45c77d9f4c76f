#include "vmm/switch/switch_control.h"

#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "net/capture.h"
#include "vmm/config/validate.h"
#include "vmm/control/parameters.h"
#include "vmm/switch/switch_json.h"
#include "vmm/switch/switch_metrics.h"

namespace ivmm {
namespace {

constexpr uint32_t kYear = 366 * 24 * 3600;

Result<net::Policy> policy_named(const std::string& name) {
    if (auto preset = net::preset_policy(name)) {
        return *std::move(preset);
    }
    return net::load_policy(name);
}

}  // namespace

SwitchControl::SwitchControl(Settings settings, net::Switch& net, net::SwitchServer& server,
                             ControlServer& control)
    : settings_(std::move(settings)), net_(net), server_(server) {
    const auto add = [&](const char* name, Method method) {
        control.add_method(name, [this, method](ControlConnection&, const Json& params) {
            return (this->*method)(params);
        });
    };
    add("status", &SwitchControl::status);
    add("metrics", &SwitchControl::metrics);
    add("clones", &SwitchControl::clones);
    add("add_clone", &SwitchControl::add_clone);
    add("remove_port", &SwitchControl::remove_port);
    add("divert", &SwitchControl::divert);
    add("undivert", &SwitchControl::undivert);
    add("flows", &SwitchControl::flows);
    add("hold", &SwitchControl::hold);
    add("commit", &SwitchControl::commit);
    add("roll_back", &SwitchControl::roll_back);
}

Result<net::PortId> SwitchControl::port(const Json& params, const char* name,
                                        net::Role role) const {
    IVMM_ASSIGN(const auto wanted, rpc::text_parameter(params, name));
    for (const auto& one : net_.ports()) {
        if (one.name == wanted && one.role == role) {
            return one.id;
        }
    }
    return fail_as(ErrorKind::kUsage, "the switch has no {} '{}'", to_string(role), wanted);
}

Result<net::PortId> SwitchControl::guest_of(net::PortId clone) const {
    for (const auto& one : net_.ports()) {
        if (one.id == clone) {
            return net_.find_port(one.guest).value();
        }
    }
    return fail("the clone has gone");
}

Result<rpc::Json> SwitchControl::status(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {}));
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started_;
    Json ports = Json::array();
    for (const auto& one : net_.ports()) {
        ports.push_back(to_json(one));
    }
    Json diversions = Json::array();
    for (const auto& one : net_.diversions()) {
        diversions.push_back(to_json(one));
    }
    Json tables = Json::array();
    for (const auto& one : net_.tables()) {
        tables.push_back(to_json(one));
    }
    return Json{{"name", settings_.name},
                {"pid", ::getpid()},
                {"uptime_s", uptime.count()},
                {"captures", settings_.capture_dir},
                {"events", settings_.events_file},
                {"ports", std::move(ports)},
                {"diversions", std::move(diversions)},
                {"tables", std::move(tables)}};
}

Result<rpc::Json> SwitchControl::metrics(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {}));
    return switch_metrics(net_).to_json();
}

Result<rpc::Json> SwitchControl::clones(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"limit"}));
    IVMM_ASSIGN(const auto limit, rpc::number_parameter(params, "limit", 0, 100, 20));
    Json clones = Json::array();
    for (const auto& one : net_.clone_flows(limit)) {
        clones.push_back(to_json(one, net_.now_s()));
    }
    return Json{{"clones", std::move(clones)}};
}

Result<rpc::Json> SwitchControl::add_clone(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"guest", "name", "policy"}));
    IVMM_ASSIGN(const auto guest, port(params, "guest", net::Role::kGuest));
    IVMM_ASSIGN(const auto name, rpc::text_parameter(params, "name"));
    IVMM_TRY(check_guest_name(name));
    net::Policy policy = settings_.policy;
    if (params.contains("policy")) {
        IVMM_ASSIGN(const auto wanted, rpc::text_parameter(params, "policy"));
        IVMM_ASSIGN(policy, policy_named(wanted));
    }
    std::unique_ptr<net::Capture> capture;
    if (!settings_.capture_dir.empty()) {
        IVMM_ASSIGN(capture, net::Capture::create(
                                 {.path = fmt::format("{}/{}", settings_.capture_dir, name)}));
    }
    IVMM_ASSIGN(const auto id, net_.add_clone(name, guest, std::move(policy)));
    if (capture) {
        net_.set_recorder(id, std::move(capture));
    }
    return Json::object();
}

Result<rpc::Json> SwitchControl::remove_port(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"port"}));
    IVMM_ASSIGN(const auto name, rpc::text_parameter(params, "port"));
    const auto ports = net_.ports();
    const auto found =
        std::find_if(ports.begin(), ports.end(), [&](const auto& one) { return one.name == name; });
    if (found == ports.end()) {
        return fail_as(ErrorKind::kUsage, "the switch has no port '{}'", name);
    }
    for (const auto& one : ports) {
        if (one.name == name || one.guest == name) {
            server_.disconnect(one.id);
        }
    }
    net_.remove_port(found->id);
    return Json::object();
}

Result<rpc::Json> SwitchControl::divert(const Json& params) {
    IVMM_TRY(rpc::check_parameters(
        params, {"clone", "scope", "remote", "remote_port", "flow", "ttl_s", "dry_run"}));
    IVMM_ASSIGN(const auto clone, port(params, "clone", net::Role::kClone));
    IVMM_ASSIGN(const auto guest, guest_of(clone));
    IVMM_ASSIGN(const auto selector, selector_from(params, net_, guest));
    IVMM_ASSIGN(const auto ttl, rpc::number_parameter(params, "ttl_s", 0, kYear, 0));
    IVMM_ASSIGN(const bool dry_run, rpc::flag_parameter(params, "dry_run", false));
    IVMM_ASSIGN(const bool is_new, net_.divert(clone, selector, ttl, dry_run));
    return Json{{"diverted", to_string(selector)}, {"new", is_new}, {"dry_run", dry_run}};
}

Result<rpc::Json> SwitchControl::undivert(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"guest", "scope", "remote", "remote_port", "flow"}));
    IVMM_ASSIGN(const auto guest, port(params, "guest", net::Role::kGuest));
    IVMM_ASSIGN(const auto selector, selector_from(params, net_, guest));
    IVMM_ASSIGN(const bool was_there, net_.undivert(guest, selector));
    return Json{{"was_diverted", was_there}};
}

Result<rpc::Json> SwitchControl::flows(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"guest", "remote", "local_port", "after", "limit"}));
    IVMM_ASSIGN(const auto guest, port(params, "guest", net::Role::kGuest));
    IVMM_ASSIGN(const auto limit, rpc::number_parameter(params, "limit", 1, 2000, 1000));
    const bool some_ports = params.contains("local_port");
    IVMM_ASSIGN(const auto local_port, rpc::number_parameter(params, "local_port", 0, 65535, 0));
    // By their numbers, so that a client which asks again and again sees each flow once.
    const bool in_turn = params.contains("after");
    IVMM_ASSIGN(const auto after, rpc::number_parameter(params, "after", 0, UINT32_MAX, 0));
    std::optional<net::IpAddress> remote;
    if (params.contains("remote")) {
        IVMM_ASSIGN(const auto text, rpc::text_parameter(params, "remote"));
        IVMM_ASSIGN(remote, net::parse_ip(text));
    }
    Json list = Json::array();
    for (const auto& one : net_.flows(guest, limit, [&](const net::Flow& flow) {
             return (!remote || flow.key.remote == *remote) &&
                    (!some_ports || flow.key.local_port == local_port) &&
                    (!in_turn || (flow.serial > after && flow.serial - after <= limit));
         })) {
        list.push_back(to_json(one, net_.now_s()));
    }
    uint32_t newest = 0;
    const auto& name = params["guest"].get_ref<const std::string&>();
    for (const auto& table : net_.tables()) {
        newest = table.guest == name ? table.newest : newest;
    }
    return Json{{"flows", std::move(list)}, {"newest", newest}};
}

Result<rpc::Json> SwitchControl::hold(const Json& params) {
    IVMM_TRY(rpc::check_parameters(
        params, {"guest", "scope", "remote", "remote_port", "flow", "frames", "bytes", "ms"}));
    IVMM_ASSIGN(const auto guest, port(params, "guest", net::Role::kGuest));
    IVMM_ASSIGN(const auto selector, selector_from(params, net_, guest));
    net::Switch::HoldLimits limits;
    IVMM_ASSIGN(const auto frames, rpc::number_parameter(params, "frames", 1, 4096, 1024));
    IVMM_ASSIGN(const auto bytes, rpc::number_parameter(params, "bytes", 1, 16U << 20, 4U << 20));
    limits.queue = {frames, bytes};
    IVMM_ASSIGN(limits.most_ms, rpc::number_parameter(params, "ms", 1, 60'000, 2000));
    net_.tick(clock_ns(CLOCK_MONOTONIC));  // so that the time begins now
    IVMM_ASSIGN(const auto id, net_.begin_hold(guest, selector, limits));
    return Json{{"hold", id}};
}

Result<rpc::Json> SwitchControl::commit(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"hold", "clone", "ttl_s"}));
    IVMM_ASSIGN(const auto hold, rpc::number_parameter(params, "hold", 0, UINT32_MAX, 0));
    IVMM_ASSIGN(const auto clone, port(params, "clone", net::Role::kClone));
    IVMM_ASSIGN(const auto ttl, rpc::number_parameter(params, "ttl_s", 0, kYear, 0));
    net_.tick(clock_ns(CLOCK_MONOTONIC));
    IVMM_ASSIGN(const auto report, net_.commit_hold(hold, clone, ttl));
    return Json{{"unread_frames", report.unread_frames},
                {"held_frames", report.held_frames},
                {"held_bytes", report.held_bytes},
                {"refused_frames", report.refused},
                {"hold_us", static_cast<double>(report.hold_ns) / 1000}};
}

Result<rpc::Json> SwitchControl::roll_back(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"hold"}));
    IVMM_ASSIGN(const auto hold, rpc::number_parameter(params, "hold", 0, UINT32_MAX, 0));
    return Json{{"was_held", net_.roll_back_hold(hold)}};
}

}  // namespace ivmm
