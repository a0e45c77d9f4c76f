#include "vmm/watch/flow_watcher.h"

#include <algorithm>

#include "base/log.h"
#include "net/flow_key.h"
#include "vmm/switch/running_switches.h"
#include "vmm/watch/clock.h"

namespace ivmm::watch {
namespace {

using rpc::Json;

constexpr std::chrono::milliseconds kPause{500};
constexpr std::chrono::milliseconds kSwitchPatience{5000};
constexpr uint32_t kPage = 1000;
/// At a time. Who opens more flows than that is found by the first of them.
constexpr uint32_t kMostPages = 8;
constexpr size_t kMostAlerts = 256;

uint16_t port_in(const Json& json, const char* name) {
    return static_cast<uint16_t>(json.value(name, uint64_t{0}));
}

std::optional<uint8_t> protocol_in(const Json& json) {
    const std::string name = json.value("protocol", "");
    for (const uint8_t protocol : {net::kTcp, net::kUdp, net::kIcmp, net::kIcmpV6}) {
        if (name == net::protocol_name(protocol)) {
            return protocol;
        }
    }
    return std::nullopt;
}

std::vector<SeenFlow> flows_in(const Json& answer) {
    std::vector<SeenFlow> flows;
    for (const auto& json : answer.value("flows", Json::array())) {
        const auto protocol = protocol_in(json);
        const auto remote = net::parse_ip(json.value("remote", ""));
        const auto local = net::parse_ip(json.value("local", ""));
        if (protocol && remote && local) {
            flows.push_back({json.value("serial", uint32_t{0}),
                             *protocol,
                             {*remote, port_in(json, "remote_port")},
                             {*local, port_in(json, "local_port")},
                             json.value("opened_by", "").empty(),
                             json.value("closed", false),
                             json.value("idle_s", uint32_t{0})});
        }
    }
    return flows;
}

}  // namespace

FlowWatcher::FlowWatcher(std::string guest, const Detect& detect, Report report)
    : guest_(std::move(guest)),
      login_ports_(detect.login_ports),
      report_(std::move(report)),
      detectors_(detect),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void FlowWatcher::run(const std::stop_token& stop) {
    log::Throttle throttle;
    while (!stop.stop_requested()) {
        if (const auto looked = look(monotonic_ms()); !looked) {
            throttle.warning("the flows of '{}' cannot be watched: {}", guest_,
                             looked.error().message);
            client_.reset();
        }
        std::unique_lock lock(mutex_);
        stopped_.wait_for(lock, stop, kPause, [] { return false; });
    }
}

Result<void> FlowWatcher::look(uint64_t now_ms) {
    if (!client_) {
        IVMM_ASSIGN(auto found, find_switch_port(guest_));
        client_.emplace(std::move(found.owner.client));
        after_ = 0;
        detectors_.forget_flows();
    }
    IVMM_TRY(look_at_fresh(now_ms));
    return look_at_logins(now_ms);
}

Result<void> FlowWatcher::look_at_fresh(uint64_t now_ms) {
    for (uint32_t page = 0; page < kMostPages; ++page) {
        IVMM_ASSIGN(const auto answer,
                    client_->call("flows", {{"guest", guest_}, {"after", after_}, {"limit", kPage}},
                                  kSwitchPatience));
        report(detectors_.look_at(flows_in(answer), now_ms));
        const auto newest = answer.value("newest", uint32_t{0});
        if (newest <= after_) {
            after_ = newest;
            return {};
        }
        after_ += std::min(kPage, newest - after_);
        // What was opened and forgotten again meanwhile is passed over.
        after_ = std::max(after_, newest - std::min(newest, kMostPages * kPage));
    }
    return {};
}

Result<void> FlowWatcher::look_at_logins(uint64_t now_ms) {
    std::vector<SeenFlow> all;
    for (const uint16_t port : login_ports_) {
        IVMM_ASSIGN(
            const auto answer,
            client_->call("flows", {{"guest", guest_}, {"local_port", port}, {"limit", kPage}},
                          kSwitchPatience));
        const auto flows = flows_in(answer);
        all.insert(all.end(), flows.begin(), flows.end());
    }
    report(detectors_.look_at_logins(all, now_ms));
    return {};
}

void FlowWatcher::report(std::vector<Alert> alerts) {
    alerts.resize(std::min(alerts.size(), kMostAlerts));
    if (!alerts.empty()) {
        report_(std::move(alerts));
    }
}

}  // namespace ivmm::watch
