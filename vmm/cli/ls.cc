#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/guest_command.h"
#include "vmm/config/size.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

/// One guest that does not answer must not make the others wait for long.
constexpr std::chrono::seconds kStatusPatience{2};

Json summary(const std::string& name) {
    Json row = {{"name", name}};
    auto client = connect_to_guest(name);
    const auto status =
        client ? client->call("status", Json::object(), kStatusPatience) : Result<Json>(Json());
    if (!status || !status->is_object()) {
        row["state"] = "no answer";
        return row;
    }
    for (const char* const key : {"state", "pid", "memory_bytes", "uptime_s"}) {
        row[key] = (*status)[key];
    }
    row["cpus"] = status->value("vcpus", Json::array()).size();
    return row;
}

void print_row(std::string_view name, std::string_view state, std::string_view pid,
               std::string_view cpus, std::string_view memory, std::string_view uptime) {
    print("{:<20} {:<10} {:>8} {:>4} {:>8} {:>10}\n", name, state, pid, cpus, memory, uptime);
}

int list(bool as_json) {
    const auto names = RuntimeDir::find().running();
    if (!names) {
        return report(names.error());
    }
    Json rows = Json::array();
    for (const auto& name : *names) {
        rows.push_back(summary(name));
    }
    if (as_json) {
        print("{}\n", rows.dump(2));
        return 0;
    }
    print_row("NAME", "STATE", "PID", "CPUS", "MEMORY", "UPTIME");
    for (const auto& row : rows) {
        const bool known = row.contains("pid");
        print_row(row.value("name", ""), row.value("state", ""),
                  known ? fmt::format("{}", row.value("pid", 0)) : "-",
                  known ? fmt::format("{}", row.value("cpus", 0)) : "-",
                  known ? format_size(row.value("memory_bytes", uint64_t{0})) : "-",
                  known ? format_duration(row.value("uptime_s", 0.0)) : "-");
    }
    return 0;
}

}  // namespace

void add_ls(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand("ls", "List the guests that run");
    const auto as_json = std::make_shared<bool>(false);
    command->add_flag("--json", *as_json, "For programs");
    command->footer("Example:\n  ivmm ls --json");
    command->callback([&action, as_json] { action = [as_json] { return list(*as_json); }; });
}

}  // namespace ivmm::cli
