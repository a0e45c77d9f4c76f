#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "vmm/cli/clone_options.h"
#include "vmm/cli/guest_command.h"
#include "vmm/cli/selector.h"
#include "vmm/cli/switch.h"
#include "vmm/config/device_spec.h"
#include "vmm/config/validate.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

/// Without a standby, the whole memory is copied first.
constexpr std::chrono::minutes kForkPatience{5};

struct ForkOptions {
    std::string guest;
    std::string clone;
    std::vector<std::string> nets;
    uint32_t clones = 1;
    SelectorOptions flows;
    uint32_t ttl_s = 0;
    std::string policy;
    std::string reason;
    CloneOptions life;
    bool as_json = false;
};

void show_fork(const Json& report) {
    const auto ms = [&](const char* key) { return report.value(key, 0.0) / 1000; };
    const std::string clone = report.value("clone", "");
    const std::string where = report.value("where", "");
    if (report.value("waited_for_sync", false)) {
        say(where.empty()
                ? "there was no standby in sync: the memory was copied first (`ivmm standby` keeps "
                  "one)"
                : "the standby there was not in sync: the rest of the memory was copied first");
    }
    print("clone {} runs{} since {:.2f} ms after the call (process {})\n", clone,
          where.empty() ? "" : " at " + where, ms("trigger_to_run_us"),
          report.value("clone_pid", 0));
    print(
        "the guest stood still for {:.3f} ms: {} pages of memory {:.3f}, state {:.3f}, disks "
        "{:.3f}\n",
        ms("pause_us"), report.value("residual_pages", 0), ms("residual_copy_us"), ms("state_us"),
        ms("disk_fork_us"));
    if (report.value("net_hold_us", 0.0) > 0) {
        print(
            "the attacker's frames waited for {:.3f} ms: {} of them, and {} that the guest had "
            "not taken yet\n",
            ms("net_hold_us"), report.value("held_frames", 0), report.value("unread_frames", 0));
    }
    if (const auto lost = report.value("refused_frames", 0); lost > 0) {
        say(fmt::format("{} frames of the attacker came in the fork and had no room", lost));
    }
    if (const double hook_ms = ms("hook_us"); hook_ms > 0) {
        print("its hook took {:.1f} ms\n", hook_ms);
    }
    for (const auto& disk : report.value("disks", Json::array())) {
        print("disk {} ({})\n", disk.value("path", ""), disk.value("method", ""));
    }
    for (const auto& sibling : report.value("siblings", Json::array())) {
        const std::string name = sibling.value("clone", "");
        if (const std::string error = sibling.value("error", ""); !error.empty()) {
            say(fmt::format("clone {} does not run: {}", name, error));
            continue;
        }
        print("clone {} runs since {:.2f} ms after the call (process {})\n", name,
              sibling.value("trigger_to_run_us", 0.0) / 1000, sibling.value("clone_pid", 0));
        for (const auto& disk : sibling.value("disks", Json::array())) {
            print("disk {} ({})\n", disk.value("path", ""), disk.value("method", ""));
        }
    }
    print(
        "{}`ivmm console {}` shows its console, `ivmm stop {}` ends it, `ivmm rm {}` removes its "
        "disks\n",
        where.empty() ? "" : "there, ", clone, clone, clone);
}

/// Checks what can be checked without the guest.
Result<Json> parameters(const ForkOptions& options) {
    Json params = Json::object();
    if (!options.clone.empty()) {
        IVMM_TRY(check_guest_name(options.clone));
        params["name"] = options.clone;
    }
    for (const auto& spec : options.nets) {
        IVMM_TRY(parse_net_spec(spec));
        params["nets"].push_back(spec);
    }
    if (options.clones != 1) {
        params["clones"] = options.clones;
    }
    if (!options.reason.empty()) {
        params["cause"] = {{"reason", options.reason}};
    }
    IVMM_TRY(apply(options.life, params));
    const bool has_details =
        !options.flows.scope.empty() || options.ttl_s > 0 || !options.policy.empty();
    if (options.flows.given() || has_details) {
        IVMM_ASSIGN(Json divert, selector_parameters(options.flows));
        if (options.ttl_s > 0) {
            divert["ttl_s"] = options.ttl_s;
        }
        if (!options.policy.empty()) {
            divert["policy"] = policy_parameter(options.policy);
        }
        params["divert"] = std::move(divert);
    }
    return params;
}

int fork(const ForkOptions& options) {
    const auto params = parameters(options);
    if (!params) {
        return report(params.error());
    }
    auto client = connect_to_guest(options.guest);
    if (!client) {
        return report(client.error());
    }
    const auto answer = client->call("fork", *params, kForkPatience);
    if (!answer) {
        return report(answer.error());
    }
    if (options.as_json) {
        print("{}\n", answer->dump(2));
    } else {
        show_fork(*answer);
    }
    const Json siblings = answer->value("siblings", Json::array());
    const bool all_run = std::ranges::all_of(
        siblings, [](const Json& sibling) { return sibling.value("error", "").empty(); });
    return all_run ? 0 : 1;
}

}  // namespace

void add_fork(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "fork", "Start a clone of a running guest, which goes on as if nothing had happened");
    const auto options = std::make_shared<ForkOptions>();
    command->add_option("NAME", options->guest, "Name of the guest, as `ivmm ls` shows it")
        ->required();
    command->add_option("--name", options->clone, "Name of the clone (default: NAME-clone-N)");
    command
        ->add_option("--net", options->nets,
                     "Network of the clone, as for `ivmm run`; once for each device. Default: no "
                     "cable")
        ->allow_extra_args(false);
    add_selector(*command, options->flows);
    command->add_option("--ttl", options->ttl_s, "Seconds until the flows are the guest's again");
    command->add_option("--policy", options->policy,
                        "What the clone may begin itself: strict, honeywall, research, or a file "
                        "(default: the switch's)");
    command
        ->add_option("--clones", options->clones,
                     "Clones of the same instant: NAME, NAME-2, …; those after the first have no "
                     "cable")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    command->add_option("--reason", options->reason,
                        "Why, for the clone's record and `ivmm evidence`");
    add_clone_life(*command, options->life);
    command->add_flag("--json", options->as_json, "For programs");
    command->footer(
        "The clone has the guest's memory, devices and disks as they were at one instant.\n"
        "Example:\n"
        "  ivmm standby web\n"
        "  ivmm fork web --name trap --attacker 198.51.100.7");
    command->callback([&action, options] { action = [options] { return fork(*options); }; });
}

}  // namespace ivmm::cli
