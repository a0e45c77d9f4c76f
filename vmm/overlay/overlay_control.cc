#include "vmm/overlay/overlay_control.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "vmm/control/parameters.h"
#include "vmm/overlay/overlay_json.h"
#include "vmm/overlay/overlay_metrics.h"

namespace ivmm::overlay {

OverlayControl::OverlayControl(Identity identity, storage::OverlayServer& overlay,
                               EventLoop& control, EventLoop& worker, ControlServer& server,
                               std::function<void()> on_last_gone)
    : identity_(std::move(identity)),
      overlay_(overlay),
      control_(control),
      worker_(worker),
      server_(server),
      on_last_gone_(std::move(on_last_gone)),
      mounts_(present()) {
    add("status", &OverlayControl::status);
    add("metrics", &OverlayControl::metrics);
    add("prepare_fork", &OverlayControl::prepare_fork);
    add("fork", &OverlayControl::fork);
    add("mount", &OverlayControl::mount);
    add("umount", &OverlayControl::unmount);
    add("remove_view", &OverlayControl::remove_view);
    // It takes long, and the others do not wait for it.
    server_.add_deferred_method("flatten",
                                [this](const Json& params, ControlServer::Answer answer) {
                                    flatten(params, std::move(answer));
                                });
}

void OverlayControl::add(const char* name, Work work) {
    server_.add_deferred_method(name,
                                [this, work](const Json& params, ControlServer::Answer answer) {
                                    worker_.post([this, work, params, answer = std::move(answer)] {
                                        answer((this->*work)(params));
                                        compare_mounts();
                                    });
                                });
}

void OverlayControl::mount_has_gone(const std::string& mountpoint) {
    worker_.post([this, mountpoint] {
        // It may be one of unmount()'s, which is in order already.
        const auto view = overlay_.view_at(mountpoint);
        const auto outcome = view ? overlay_.unmount(*view, true) : Result<void>();
        if (!outcome) {
            log::error("{}: {}", mountpoint, outcome.error().message);
        }
        compare_mounts();
    });
}

OverlayControl::Mounts OverlayControl::present() const {
    Mounts mounts;
    for (const auto& mount : overlay_.status()) {
        mounts.emplace_back(mount.view, mount.mountpoint);
    }
    return mounts;
}

void OverlayControl::compare_mounts() {
    Mounts now = present();
    for (const auto& [view, mountpoint] : mounts_) {
        if (std::find(now.begin(), now.end(), std::pair(view, mountpoint)) == now.end()) {
            broadcast("overlay.unmounted", {{"view", view}, {"mountpoint", mountpoint}});
        }
    }
    mounts_ = std::move(now);
    if (mounts_.empty()) {
        control_.post(on_last_gone_);
    }
}

void OverlayControl::broadcast(const char* event, Json params) {
    control_.post([this, event, params = std::move(params)] { server_.broadcast(event, params); });
}

Result<rpc::Json> OverlayControl::status(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {}));
    Json mounts = Json::array();
    for (const auto& mount : overlay_.status()) {
        mounts.push_back(to_json(mount));
    }
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started_;
    Json status{{"pid", ::getpid()},
                {"store", identity_.store},
                {"lower", identity_.lower},
                {"uptime_s", uptime.count()},
                {"mounts", std::move(mounts)}};
    if (const auto flattening = overlay_.flattening()) {
        status["flattening"] = {{"view", flattening->view}, {"done", flattening->done}};
    }
    return status;
}

Result<rpc::Json> OverlayControl::metrics(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {}));
    return overlay_metrics(overlay_.status()).to_json();
}

Result<rpc::Json> OverlayControl::prepare_fork(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"view", "targets"}));
    IVMM_ASSIGN(const auto view, rpc::text_parameter(params, "view"));
    IVMM_ASSIGN(const auto targets, fork_targets_from(params));
    IVMM_TRY(overlay_.prepare_fork(view, targets));
    return Json::object();
}

Result<rpc::Json> OverlayControl::fork(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"view", "targets"}));
    IVMM_ASSIGN(const auto view, rpc::text_parameter(params, "view"));
    IVMM_ASSIGN(const auto targets, fork_targets_from(params));
    IVMM_ASSIGN(const auto report, overlay_.fork(view, targets));
    Json answer = to_json(report, targets);
    broadcast("overlay.forked", answer);
    return answer;
}

Result<rpc::Json> OverlayControl::mount(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"view", "mountpoint", "threads", "read_only"}));
    IVMM_ASSIGN(const auto view, rpc::text_parameter(params, "view"));
    IVMM_ASSIGN(const auto options, mount_options_from(params));
    IVMM_TRY(overlay_.mount(view, options));
    return Json::object();
}

Result<rpc::Json> OverlayControl::unmount(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"view", "force"}));
    IVMM_ASSIGN(const auto view, rpc::text_parameter(params, "view"));
    IVMM_ASSIGN(const bool force, rpc::flag_parameter(params, "force", false));
    IVMM_TRY(overlay_.unmount(view, force));
    return Json{{"remaining", overlay_.status().size()}};
}

void OverlayControl::flatten(const Json& params, ControlServer::Answer answer) {
    const auto view = [&]() -> Result<std::string> {
        IVMM_TRY(rpc::check_parameters(params, {"view"}));
        return rpc::text_parameter(params, "view");
    }();
    if (!view) {
        return answer(Unexpected{view.error()});
    }
    // By then, this may be no more.
    overlay_.flatten(*view, [answer = std::move(answer)](Result<storage::FlattenReport> report) {
        answer(report ? Result<Json>(to_json(*report)) : Unexpected{std::move(report).error()});
    });
}

Result<rpc::Json> OverlayControl::remove_view(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"view"}));
    IVMM_ASSIGN(const auto view, rpc::text_parameter(params, "view"));
    IVMM_TRY(overlay_.remove_view(view));
    return Json::object();
}

}  // namespace ivmm::overlay
