// `ivmm divert`, `ivmm undivert` and `ivmm flows`: who owns which flow.

#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/selector.h"
#include "vmm/cli/switch.h"
#include "vmm/switch/running_switches.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

struct DivertOptions {
    std::string port;
    SelectorOptions flows;
    uint32_t ttl_s = 0;
    bool dry_run = false;
    bool as_json = false;
};

Result<Json> ask(const char* method, const char* port_name, const DivertOptions& options) {
    Json params = Json::object();
    if (options.flows.given() || std::string_view(method) != "flows") {
        IVMM_ASSIGN(params, selector_parameters(options.flows));
    }
    params[port_name] = options.port;
    if (options.ttl_s > 0) {
        params["ttl_s"] = options.ttl_s;
    }
    if (options.dry_run) {
        params["dry_run"] = true;
    }
    IVMM_ASSIGN(auto found, find_switch_port(options.port));
    return found.owner.client.call(method, params);
}

int divert(const DivertOptions& options) {
    const auto answer = ask("divert", "clone", options);
    if (!answer) {
        return report(answer.error());
    }
    if (options.as_json) {
        print("{}\n", answer->dump(2));
    } else {
        print("{} {} to {}\n", answer->value("diverted", ""),
              options.dry_run              ? "would be diverted"
              : answer->value("new", true) ? "is diverted"
                                           : "was diverted already",
              options.port);
    }
    return 0;
}

int undivert(const DivertOptions& options) {
    const auto answer = ask("undivert", "guest", options);
    if (!answer) {
        return report(answer.error());
    }
    print("{}{} {}\n", options.flows.attacker, options.flows.flow,
          answer->value("was_diverted", false) ? "goes to the guest again" : "was not diverted");
    return 0;
}

int flows(const DivertOptions& options) {
    const auto answer = ask("flows", "guest", options);
    if (!answer) {
        return report(answer.error());
    }
    if (options.as_json) {
        print("{}\n", answer->dump(2));
        return 0;
    }
    for (const auto& flow : (*answer)["flows"]) {
        print("{:<5} {}:{} {}:{}  {}  in {} out {}{}\n", flow.value("protocol", ""),
              flow.value("remote", ""), flow.value("remote_port", 0), flow.value("local", ""),
              flow.value("local_port", 0), flow.value("owner", ""),
              flow.value("bytes_in", uint64_t{0}), flow.value("bytes_out", uint64_t{0}),
              flow.value("closed", false) ? "  closed" : "");
    }
    return 0;
}

}  // namespace

void add_divert(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("divert", "Hand an attacker's flows from a guest to its clone");
    const auto options = std::make_shared<DivertOptions>();
    command->add_option("CLONE", options->port, "The clone's port of the switch")->required();
    add_selector(*command, options->flows);
    command->add_option("--ttl", options->ttl_s, "Seconds until it ends by itself");
    command->add_flag("--dry-run", options->dry_run, "Only say what would be done");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm divert trap --attacker 198.51.100.7 --ttl 3600");
    command->callback([&action, options] { action = [options] { return divert(*options); }; });
}

void add_undivert(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand("undivert", "Give a peer's flows back to the guest");
    const auto options = std::make_shared<DivertOptions>();
    command->add_option("GUEST", options->port, "The guest's port of the switch")->required();
    add_selector(*command, options->flows);
    command->footer("Example:\n  ivmm undivert web --attacker 198.51.100.7");
    command->callback([&action, options] { action = [options] { return undivert(*options); }; });
}

void add_flows(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand("flows", "The flows of a guest and its clones");
    const auto options = std::make_shared<DivertOptions>();
    command->add_option("GUEST", options->port, "The guest's port of the switch")->required();
    command->add_option("--peer", options->flows.attacker, "Only those of this address");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm flows web --peer 198.51.100.7");
    command->callback([&action, options] { action = [options] { return flows(*options); }; });
}

}  // namespace ivmm::cli
