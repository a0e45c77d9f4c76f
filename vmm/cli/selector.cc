#include "vmm/cli/selector.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

namespace ivmm::cli {
namespace {

using rpc::Json;

struct End {
    std::string address;
    uint16_t port = 0;  // 0: none
};

Result<End> parse_end(const std::string& text) {
    End end{text, 0};
    std::string port;
    if (text.starts_with('[')) {
        const size_t close = text.find(']');
        if (close == std::string::npos) {
            return fail_as(ErrorKind::kUsage, "'{}': no ']'", text);
        }
        end.address = text.substr(1, close - 1);
        port = text.substr(std::min(close + 2, text.size()));
    } else if (const size_t colon = text.find(':');
               colon != std::string::npos && colon == text.rfind(':')) {
        end.address = text.substr(0, colon);
        port = text.substr(colon + 1);
    }
    if (!port.empty()) {
        const char* const last = port.data() + port.size();
        const auto [stop, error] = std::from_chars(port.data(), last, end.port);
        if (error != std::errc() || stop != last || end.port == 0) {
            return fail_as(ErrorKind::kUsage, "'{}' is not a port", port);
        }
    }
    return end;
}

Result<Json> parse_flow(const std::string& text) {
    const size_t first = text.find(',');
    const size_t second = first == std::string::npos ? first : text.find(',', first + 1);
    if (second == std::string::npos) {
        return fail_as(ErrorKind::kUsage,
                       "'{}' is no flow: write PROTOCOL,ADDRESS:PORT,ADDRESS:PORT, the far end "
                       "first",
                       text);
    }
    IVMM_ASSIGN(const auto remote, parse_end(text.substr(first + 1, second - first - 1)));
    IVMM_ASSIGN(const auto local, parse_end(text.substr(second + 1)));
    return Json{{"protocol", text.substr(0, first)},
                {"remote", remote.address},
                {"remote_port", remote.port},
                {"local", local.address},
                {"local_port", local.port}};
}

}  // namespace

void add_selector(CLI::App& command, SelectorOptions& options) {
    command.add_option("--attacker", options.attacker,
                       "ADDRESS[:PORT]: what this address has; with a port: that flow alone");
    command.add_option("--flow", options.flow,
                       "PROTOCOL,ADDRESS:PORT,ADDRESS:PORT: one flow, the far end first");
    command.add_option("--scope", options.scope,
                       "ip (the flows that there are) or ip+new-flows (the default)");
}

Result<Json> selector_parameters(const SelectorOptions& options) {
    Json params = Json::object();
    if (!options.flow.empty()) {
        if (!options.attacker.empty() || !options.scope.empty()) {
            return fail_as(ErrorKind::kUsage, "--flow says it all: no --attacker, no --scope");
        }
        IVMM_ASSIGN(params["flow"], parse_flow(options.flow));
        return params;
    }
    if (options.attacker.empty()) {
        return fail_as(ErrorKind::kUsage, "whose flows? Say --attacker or --flow");
    }
    IVMM_ASSIGN(const auto end, parse_end(options.attacker));
    params["remote"] = end.address;
    if (end.port != 0) {
        params["remote_port"] = end.port;
    }
    if (!options.scope.empty()) {
        params["scope"] = options.scope;
    }
    return params;
}

}  // namespace ivmm::cli
