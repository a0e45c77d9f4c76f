#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/guest_command.h"
#include "vmm/config/size.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

void print_status(const Json& status) {
    const auto line = [](std::string_view key, std::string_view value) {
        print("{:<14}{}\n", key, value);
    };
    const auto size = [&](const char* key) { return format_size(status.value(key, uint64_t{0})); };
    line("name", status.value("name", ""));
    line("state", status.value("state", ""));
    line("pid", fmt::format("{}", status.value("pid", 0)));
    line("uptime", format_duration(status.value("uptime_s", 0.0)));
    line("memory",
         fmt::format("{} ({} resident)", size("memory_bytes"), size("memory_resident_bytes")));
    line("process", fmt::format("{} resident", size("process_resident_bytes")));
    if (const auto left = status.find("ends_in_s"); left != status.end()) {
        line("ends in", format_duration(left->get<double>()));
    }
    if (status.contains("memory_limit_bytes")) {
        line("memory limit",
             fmt::format(
                 "{}{}", size("memory_limit_bytes"),
                 status.value("over_memory", false) ? ": was more, so the clone was paused" : ""));
    }
    size_t number = 0;
    for (const auto& vcpu : status.value("vcpus", Json::array())) {
        line(fmt::format("vcpu{}", number++),
             fmt::format("{} exits", vcpu.value("exits", uint64_t{0})));
    }
    for (const auto& device : status.value("devices", Json::array())) {
        line(device.value("name", ""),
             fmt::format("{} {}", device.value("kind", ""), device.value("detail", "")));
    }
    line("host", status.value("host", ""));
    line("command line", status.value("kernel_command_line", ""));
}

int status_of_guest(const std::string& name, bool as_json) {
    auto client = connect_to_guest(name);
    if (!client) {
        return report(client.error());
    }
    const auto status = client->call("status");
    if (!status) {
        return report(status.error());
    }
    if (as_json) {
        print("{}\n", status->dump(2));
    } else {
        print_status(*status);
    }
    return 0;
}

}  // namespace

void add_status(CLI::App& app, Action& action) {
    const auto as_json = std::make_shared<bool>(false);
    auto* const command = add_guest_command(
        app, action, "status", "Show what a guest is made of and does",
        [as_json](const std::string& name) { return status_of_guest(name, *as_json); });
    command->add_flag("--json", *as_json, "For programs");
}

}  // namespace ivmm::cli
