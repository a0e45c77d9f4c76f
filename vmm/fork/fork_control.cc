#include "vmm/fork/fork_control.h"

#include <algorithm>
#include <array>

#include "memory/guest_memory.h"
#include "vmm/config/device_spec.h"
#include "vmm/config/validate.h"
#include "vmm/control/parameters.h"

namespace ivmm {
namespace {

using rpc::Json;

constexpr uint64_t kMostOfAnInstant = 64;
constexpr uint32_t kMostSeconds = 366 * 24 * 3600;  // of a diversion, as the switch has it

const char* phase_name(StandbyStatus::Phase phase) {
    switch (phase) {
        case StandbyStatus::Phase::kNone:
            return "none";
        case StandbyStatus::Phase::kBuilding:
            return "building";
        case StandbyStatus::Phase::kInSync:
            return "in-sync";
        case StandbyStatus::Phase::kFailed:
            break;
    }
    return "failed";
}

Json to_json(const std::deque<PastFork>& forks) {
    Json json = Json::array();
    for (const auto& fork : forks) {
        json.push_back({{"clone", fork.clone},
                        {"time", fork.time},
                        {"pause_us", fork.pause_us},
                        {"trigger_to_run_us", fork.trigger_to_run_us}});
    }
    return json;
}

Json to_json(const StandbyStatus& status) {
    return {{"phase", phase_name(status.phase)},
            {"error", status.error},
            {"pid", status.pid},
            {"where", status.where},
            {"lag_pages", status.lag_pages},
            {"sent_bytes", status.sent_bytes},
            {"replica_bytes", status.replica_bytes},
            {"rounds", status.rounds},
            {"behind_bytes", status.behind_pages() * kPageSize},
            {"last_dirty_pages", status.last_dirty_pages},
            {"last_round_us", status.last_round_us},
            {"interval_ms", status.interval_ms},
            {"forks", status.forks},
            {"failed_forks", status.history.failed},
            {"recent_forks", to_json(status.history.recent)},
            {"clones", status.clones}};
}

Json to_json(const std::vector<ForkReport::Disk>& disks) {
    Json json = Json::array();
    for (const auto& disk : disks) {
        json.push_back({{"path", disk.path}, {"method", disk.method}});
    }
    return json;
}

Json to_json(const ForkReport& report) {
    Json siblings = Json::array();
    for (const auto& sibling : report.siblings) {
        siblings.push_back({{"clone", sibling.clone},
                            {"error", sibling.error},
                            {"clone_pid", sibling.clone_pid},
                            {"trigger_to_run_us", sibling.trigger_to_run_us},
                            {"clone_private_bytes", sibling.clone_private_bytes},
                            {"hook_us", sibling.hook_us},
                            {"disks", to_json(sibling.disks)}});
    }
    return {{"clone", report.clone},
            {"where", report.where},
            {"clone_pid", report.clone_pid},
            {"fork_point", report.fork_point},
            {"waited_for_sync", report.waited_for_sync},
            {"rounds", report.rounds},
            {"trigger_to_pause_us", report.trigger_to_pause_us},
            {"pause_us", report.pause_us},
            {"stop_us", report.stop_us},
            {"residual_pages", report.residual_pages},
            {"residual_copy_us", report.residual_copy_us},
            {"state_us", report.state_us},
            {"disk_fork_us", report.disk_fork_us},
            {"net_commit_us", report.net_commit_us},
            {"resume_us", report.resume_us},
            {"trigger_to_run_us", report.trigger_to_run_us},
            {"clone_private_bytes", report.clone_private_bytes},
            {"hook_us", report.hook_us},
            {"net_hold_us", report.net.hold_us},
            {"held_frames", report.net.held_frames},
            {"unread_frames", report.net.unread_frames},
            {"refused_frames", report.net.refused_frames},
            {"disks", to_json(report.disks)},
            {"siblings", std::move(siblings)}};
}

Result<DivertRequest> divert_from(const Json& params) {
    if (!params.is_object()) {
        return fail_as(ErrorKind::kUsage, "divert must be an object");
    }
    IVMM_TRY(rpc::check_parameters(params,
                                   {"remote", "remote_port", "scope", "flow", "ttl_s", "policy"}));
    DivertRequest request;
    IVMM_ASSIGN(request.ttl_s, rpc::number_parameter(params, "ttl_s", 0, kMostSeconds, 0));
    if (params.contains("policy")) {
        IVMM_ASSIGN(request.policy, rpc::text_parameter(params, "policy"));
    }
    request.selector = params;
    request.selector.erase("ttl_s");
    request.selector.erase("policy");
    return request;
}

/// What has led to the fork: an object of whoever asks for it, and from whom flows are taken.
Result<Json> cause_from(const Json& params) {
    constexpr size_t kMostBytes = size_t{16} << 10;
    Json cause = params.value("cause", Json::object());
    if (!cause.is_object() ||
        cause.dump(-1, ' ', false, Json::error_handler_t::replace).size() > kMostBytes) {
        return fail_as(ErrorKind::kUsage, "cause must be an object of at most {} bytes",
                       kMostBytes);
    }
    if (params.contains("divert")) {
        cause["divert"] = params["divert"];
    }
    return cause;
}

/// `hook` (which may be empty: none), `hook_timeout_s`, `lifetime_s` and `memory_limit`.
Result<void> read_life(const Json& params, const CloneSettings& settings, ForkRequest& request) {
    request.hook = settings.hook;
    request.limits = settings.limits;
    if (const auto hook = params.find("hook"); hook != params.end()) {
        if (!hook->is_string()) {
            return fail_as(ErrorKind::kUsage, "hook must be a path, or \"\" for none");
        }
        request.hook.program = hook->get<std::string>();
    }
    IVMM_ASSIGN(request.hook.timeout_s,
                rpc::number_parameter(params, "hook_timeout_s", 1, CloneHook::kMostSeconds,
                                      request.hook.timeout_s));
    IVMM_ASSIGN(request.limits.lifetime_s,
                rpc::number_parameter(params, "lifetime_s", 0, CloneLimits::kMostSeconds,
                                      request.limits.lifetime_s));
    if (const auto bytes = params.find("memory_limit"); bytes != params.end()) {
        if (!bytes->is_number_unsigned()) {
            return fail_as(ErrorKind::kUsage, "memory_limit must be a number of bytes");
        }
        request.limits.memory_bytes = bytes->get<uint64_t>();
    }
    constexpr std::array kNames = {"hook", "hook_timeout_s", "lifetime_s", "memory_limit"};
    request.life_is_asked_for =
        std::ranges::any_of(kNames, [&](const char* name) { return params.contains(name); });
    return check_clone_life(request.hook, request.limits);
}

Result<ForkRequest> request_from(const Json& params, const CloneSettings& settings) {
    IVMM_TRY(rpc::check_parameters(params, {"name", "nets", "clones", "divert", "cause", "hook",
                                            "hook_timeout_s", "lifetime_s", "memory_limit"}));
    ForkRequest request;
    IVMM_ASSIGN(request.cause, cause_from(params));
    IVMM_TRY(read_life(params, settings, request));
    if (params.contains("divert")) {
        if (params.contains("nets")) {
            return fail_as(ErrorKind::kUsage,
                           "a clone to which flows are diverted has the guest's switch, not nets");
        }
        IVMM_ASSIGN(request.divert, divert_from(params["divert"]));
    }
    if (params.contains("name")) {
        IVMM_ASSIGN(request.clone, rpc::text_parameter(params, "name"));
        IVMM_TRY(check_guest_name(request.clone));
    }
    if (params.contains("clones")) {
        const auto& clones = params["clones"];
        if (!clones.is_number_unsigned() || clones.get<uint64_t>() < 1 ||
            clones.get<uint64_t>() > kMostOfAnInstant) {
            return fail_as(ErrorKind::kUsage, "clones must be a number from 1 to {}",
                           kMostOfAnInstant);
        }
        request.clones = clones.get<uint32_t>();
    }
    for (const auto& spec : params.value("nets", Json::array())) {
        if (!spec.is_string()) {
            return fail_as(ErrorKind::kUsage,
                           "nets must be a list of texts, as for `ivmm run --net`");
        }
        IVMM_ASSIGN(auto net, parse_net_spec(spec.get<std::string>()));
        request.nets.push_back(std::move(net));
    }
    return request;
}

}  // namespace

ForkControl::ForkControl(StandbyKeeper& keeper, const CloneSettings& settings,
                         ControlServer& server, EventLoop& control) {
    server.add_deferred_method(
        "fork", [&, settings](const Json& params, ControlServer::Answer answer) {
            auto request = request_from(params, settings);
            if (!request) {
                answer(Unexpected{std::move(request).error()});
                return;
            }
            keeper.fork(*std::move(request),
                        [&, answer = std::move(answer)](Result<ForkReport> report) {
                            if (!report) {
                                answer(Unexpected{std::move(report).error()});
                                return;
                            }
                            const Json json = to_json(*report);
                            answer(json);
                            control.post([&server, json] { server.broadcast("fork.done", json); });
                        });
        });
    server.add_deferred_method("standby", [&](const Json& params, ControlServer::Answer answer) {
        if (auto checked = rpc::check_parameters(params, {"keep"}); !checked) {
            answer(Unexpected{std::move(checked).error()});
            return;
        }
        const auto keep = rpc::flag_parameter(params, "keep", true);
        if (!keep) {
            answer(Unexpected{keep.error()});
            return;
        }
        auto done = [&keeper, answer = std::move(answer)](Result<void> outcome) {
            answer(outcome ? Result<Json>(to_json(keeper.status()))
                           : Result<Json>(Unexpected{std::move(outcome).error()}));
        };
        if (*keep) {
            keeper.keep_standby(std::move(done));
        } else {
            keeper.drop_standby(std::move(done));
        }
    });
    server.add_method("standby.status",
                      [&](ControlConnection&, const Json& params) -> Result<Json> {
                          IVMM_TRY(rpc::check_parameters(params, {}));
                          return to_json(keeper.status());
                      });
}

}  // namespace ivmm
