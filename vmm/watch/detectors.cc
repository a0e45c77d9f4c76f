#include "vmm/watch/detectors.h"

#include <algorithm>

#include "net/headers.h"

namespace ivmm::watch {
namespace {

Alert alert_of(const SeenFlow& flow, const char* source, std::string what) {
    Alert alert;
    alert.source = source;
    alert.attacker = flow.remote;
    alert.victim = flow.local;
    alert.signature = std::move(what);
    alert.category = "ivmm detector";
    alert.severity = 2;
    return alert;
}

bool has_ports(const SeenFlow& flow) {
    return flow.protocol == net::kTcp || flow.protocol == net::kUdp;
}

}  // namespace

bool Detectors::scans(const SeenFlow& flow, uint64_t now_ms) {
    const uint64_t window_ms = uint64_t{detect_.scan_within_s} * 1000;
    const uint64_t idle_ms = uint64_t{flow.idle_s} * 1000;
    if (detect_.scan_ports == 0 || !has_ports(flow) || idle_ms >= window_ms) {
        return false;
    }
    Ports& opened = opened_.at(flow.remote.address);
    std::erase_if(opened, [&](const auto& port) { return now_ms - port.second >= window_ms; });
    opened[{flow.local.address, flow.local.port}] = now_ms;
    if (opened.size() < detect_.scan_ports) {
        return false;
    }
    opened.clear();
    return true;
}

std::vector<Alert> Detectors::look_at(std::span<const SeenFlow> fresh, uint64_t now_ms) {
    std::vector<Alert> alerts;
    for (const SeenFlow& flow : fresh) {
        if (!flow.by_remote) {
            continue;
        }
        if (detect_.addresses.contains(flow.remote.address)) {
            alerts.push_back(alert_of(flow, "address-list", "peer on a list of addresses"));
        }
        if (has_ports(flow) && std::ranges::count(detect_.decoy_ports, flow.local.port) > 0) {
            alerts.push_back(alert_of(flow, "decoy",
                                      fmt::format("contact with decoy port {}", flow.local.port)));
        } else if (net::any_contains(detect_.decoy_addresses, flow.local.address)) {
            alerts.push_back(alert_of(
                flow, "decoy",
                fmt::format("contact with decoy address {}", to_string(flow.local.address))));
        }
        if (scans(flow, now_ms)) {
            alerts.push_back(alert_of(
                flow, "scan",
                fmt::format("{} ports opened in {} s", detect_.scan_ports, detect_.scan_within_s)));
        }
    }
    return alerts;
}

std::vector<Alert> Detectors::look_at_logins(std::span<const SeenFlow> flows, uint64_t now_ms) {
    std::vector<Alert> alerts;
    std::map<uint32_t, Login> now;
    for (const SeenFlow& flow : flows) {
        if (!flow.by_remote || flow.protocol != net::kTcp) {
            continue;
        }
        const auto before = logins_.find(flow.serial);
        Login login = before == logins_.end() ? Login{now_ms, false} : before->second;
        if (flow.is_closed && !login.is_done) {
            login.is_done = true;
            const uint64_t idle_ms = uint64_t{flow.idle_s} * 1000;
            const uint64_t window_ms = uint64_t{detect_.login_within_s} * 1000;
            if (now_ms - login.since_ms <= uint64_t{detect_.login_short_s} * 1000 &&
                idle_ms < window_ms) {
                auto& failed = failed_.at(flow.remote.address);
                failed.add(now_ms);
                if (failed.count(now_ms, window_ms) >= detect_.login_count) {
                    failed.clear();
                    alerts.push_back(alert_of(
                        flow, "logins",
                        fmt::format("{} short connections to port {} in {} s", detect_.login_count,
                                    flow.local.port, detect_.login_within_s)));
                }
            }
        }
        now.emplace(flow.serial, login);
    }
    logins_ = std::move(now);
    return alerts;
}

}  // namespace ivmm::watch
