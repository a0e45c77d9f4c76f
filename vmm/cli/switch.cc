#include "vmm/cli/switch.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "vmm/control/metrics.h"
#include "vmm/switch/running_switches.h"
#include "vmm/switch/switch_process.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

struct SwitchRunOptions {
    SwitchOptions net;
    std::vector<std::string> uplinks;
    std::vector<std::string> sinks;
    std::vector<std::string> mirrors;
    std::vector<std::string> never;
};

Result<void> read_taps(const std::vector<std::string>& texts,
                       std::vector<SwitchOptions::TapSpec>& specs) {
    for (const auto& text : texts) {
        IVMM_ASSIGN(auto spec, parse_tap_spec(text));
        specs.push_back(std::move(spec));
    }
    return {};
}

Result<void> read(SwitchRunOptions& options) {
    IVMM_TRY(read_taps(options.uplinks, options.net.uplinks));
    IVMM_TRY(read_taps(options.sinks, options.net.sinks));
    IVMM_TRY(read_taps(options.mirrors, options.net.mirrors));
    for (const auto& text : options.never) {
        IVMM_ASSIGN(const auto prefix, net::parse_prefix(text));
        options.net.limits.diversions.never.push_back(prefix);
    }
    return {};
}

void add_switch_run(CLI::App& parent, Action& action) {
    auto* const command =
        parent.add_subcommand("run", "Run a switch in the foreground, until it is told to end");
    const auto options = std::make_shared<SwitchRunOptions>();
    command->add_option("NAME", options->net.name, "Name of the switch")->required();
    const auto taps = [&](const char* flag, std::vector<std::string>& into, const char* help) {
        command->add_option(flag, into, help)->allow_extra_args(false);
    };
    taps("--uplink", options->uplinks,
         "TAP that leads outside: NAME[,existing][,host=ADDRESS/PREFIX]; may be repeated");
    taps("--sink", options->sinks, "TAP to which a policy may redirect what clones begin");
    taps("--mirror", options->mirrors, "TAP that gets a copy of all, whole and with checksums");
    command->add_option("--policy", options->net.policy,
                        "What clones may begin: strict, honeywall, research, or a file "
                        "(docs/containment.md); default: strict");
    command->add_option("--capture", options->net.capture_dir,
                        "Folder for what clones send and get, as pcapng");
    command->add_option("--events", options->net.events_file, "File for events, one JSON a line");
    taps("--never-divert", options->never, "Network of peers who stay with the guest");
    command->add_option("--flows", options->net.limits.flows, "Flows to remember for each guest")
        ->check(CLI::Range(1024, 16 << 20));
    command->footer(
        "Example:\n  ivmm switch run lan --uplink up0,host=192.0.2.1/24 --policy honeywall");
    command->callback([&action, options] {
        action = [options] {
            const auto understood = read(*options);
            // Whoever asks the switch where they are is in another folder.
            for (std::string* const path : {&options->net.capture_dir, &options->net.events_file}) {
                *path = path->empty() ? *path : std::filesystem::absolute(*path).string();
            }
            return understood ? run_switch(options->net) : report(understood.error());
        };
    });
}

struct StatusOptions {
    std::string name;
    bool as_json = false;
};

void show_switch(const Json& status) {
    print("switch {} (process {})\n", status.value("name", ""), status.value("pid", 0));
    for (const auto& port : status["ports"]) {
        uint64_t drops = 0;
        for (const auto& [reason, count] : port["drops"].items()) {
            drops += count.get<uint64_t>();
        }
        print("{:<16} {:<7} {} {:<8} in {} out {} dropped {}{}\n", port.value("name", ""),
              port.value("role", ""), port.value("mac", ""),
              port.value("attached", false) ? "up" : "down", port.value("frames_in", uint64_t{0}),
              port.value("frames_out", uint64_t{0}), drops,
              port.contains("guest")
                  ? fmt::format("  clone of {}, policy {}", port.value("guest", ""),
                                port.value("policy", ""))
                  : "");
    }
    for (const auto& one : status["diversions"]) {
        const std::string clone = one.value("clone", "");
        print("diverted {} ({}) to {}\n", one.value("remote", ""), one.value("scope", ""),
              clone.empty() ? "nobody" : clone);
    }
}

void add_switch_status(CLI::App& parent, Action& action) {
    auto* const command = parent.add_subcommand("status", "Ports, counters, diversions");
    const auto options = std::make_shared<StatusOptions>();
    command->add_option("NAME", options->name, "Name of the switch; default: the only one");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm switch status lan");
    command->callback([&action, options] {
        action = [options] {
            const auto found = find_switch(options->name);
            if (!found) {
                return report(found.error());
            }
            if (options->as_json) {
                print("{}\n", found->status.dump(2));
            } else {
                show_switch(found->status);
            }
            return 0;
        };
    });
}

void add_switch_metrics(CLI::App& parent, Action& action) {
    auto* const command =
        parent.add_subcommand("metrics", "Counters in the text format of Prometheus");
    const auto name = std::make_shared<std::string>();
    command->add_option("NAME", *name, "Name of the switch; default: the only one");
    command->footer("Example:\n  ivmm switch metrics lan");
    command->callback([&action, name] {
        action = [name] {
            auto found = find_switch(*name);
            if (!found) {
                return report(found.error());
            }
            const auto answer = found->client.call("metrics");
            const auto metrics =
                answer ? Metrics::from_json(*answer) : Result<Metrics>(Unexpected{answer.error()});
            if (!metrics) {
                return report(metrics.error());
            }
            Metrics named;
            named.add(*metrics, {{"switch", found->name}});
            print("{}", named.to_text());
            return 0;
        };
    });
}

struct CloneOptions {
    std::string guest;
    std::string name;
    std::string policy;
};

void add_switch_clone(CLI::App& parent, Action& action) {
    auto* const command =
        parent.add_subcommand("add-clone", "Make a port for a clone of a guest, before it starts");
    const auto options = std::make_shared<CloneOptions>();
    command->add_option("GUEST", options->guest, "The guest's port")->required();
    command->add_option("NAME", options->name, "Name of the clone and of its port")->required();
    command->add_option("--policy", options->policy,
                        "What it may begin: a preset or a file; default: the switch's");
    command->footer("Example:\n  ivmm switch add-clone web trap --policy honeywall");
    command->callback([&action, options] {
        action = [options] {
            auto found = find_switch_port(options->guest);
            if (!found) {
                return report(found.error());
            }
            Json params{{"guest", options->guest}, {"name", options->name}};
            if (!options->policy.empty()) {
                params["policy"] = policy_parameter(options->policy);
            }
            const auto answer = found->owner.client.call("add_clone", params);
            return answer ? 0 : report(answer.error());
        };
    });
}

void add_switch_remove(CLI::App& parent, Action& action) {
    auto* const command =
        parent.add_subcommand("remove-port", "Remove the port of a guest or clone");
    const auto name = std::make_shared<std::string>();
    command->add_option("PORT", *name, "Name of the port")->required();
    command->footer("Example:\n  ivmm switch remove-port trap");
    command->callback([&action, name] {
        action = [name] {
            auto found = find_switch_port(*name);
            if (!found) {
                return report(found.error());
            }
            const auto answer = found->owner.client.call("remove_port", {{"port", *name}});
            return answer ? 0 : report(answer.error());
        };
    });
}

}  // namespace

std::string policy_parameter(const std::string& policy) {
    return net::preset_policy(policy) ? policy : std::filesystem::absolute(policy).string();
}

void add_switch(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "switch", "A network for guests that hands flows from a guest to its clone");
    command->require_subcommand(1);
    command->footer(
        "Examples:\n"
        "  ivmm switch run lan --uplink up0,host=192.0.2.1/24\n"
        "  ivmm run -d guest.toml --net switch=lan\n"
        "  ivmm switch status");
    add_switch_run(*command, action);
    add_switch_status(*command, action);
    add_switch_metrics(*command, action);
    add_switch_clone(*command, action);
    add_switch_remove(*command, action);
}

}  // namespace ivmm::cli
