#include "vmm/evidence/collect.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "vmm/control/base64.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/evidence/capture_reader.h"
#include "vmm/evidence/report.h"
#include "vmm/evidence/sessions.h"
#include "vmm/evidence/timeline.h"
#include "vmm/switch/running_switches.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;

namespace fs = std::filesystem;

Result<void> copy_file(const std::string& from, const std::string& to) {
    std::error_code error;
    if (!fs::copy_file(from, to, error)) {
        return fail("cannot copy '{}' to '{}': {}", from, to, error.message());
    }
    return {};
}

Result<void> add_lines(Bundle& bundle, const std::string& name, const std::string& what,
                       const std::vector<Json>& lines) {
    std::string text;
    for (const auto& line : lines) {
        // In ASCII, so that nothing in it is taken for a control character by anybody.
        text += line.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
    }
    return bundle.add_text(name, what, text);
}

Result<void> add_sessions(Bundle& bundle, const std::vector<std::string>& captures,
                          Findings& findings) {
    Sessions sessions;
    for (const auto& path : captures) {
        const auto read =
            read_capture(path, [&](const CapturedFrame& frame) { sessions.take(frame); });
        if (!read) {
            bundle.add_missing("sessions: " + read.error().message);
        }
    }
    if (sessions.left_out() > 0) {
        bundle.add_missing(
            fmt::format("sessions: {} frames of more than {} are in the captures alone",
                        sessions.left_out(), Sessions::kMost));
    }
    findings.sessions = sessions.describe();
    return add_lines(bundle, "sessions.jsonl", "the conversations in the captures, a line each",
                     findings.sessions);
}

/// The files CLONE.NNNN.pcapng.
Result<void> add_captures(Bundle& bundle, const std::string& clone, const std::string& folder,
                          Findings& findings) {
    std::vector<std::string> captures;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        if (!name.starts_with(clone + ".") || !name.ends_with(".pcapng") ||
            name.find_first_not_of("0123456789", clone.size() + 1) != name.size() - 7) {
            continue;
        }
        IVMM_ASSIGN(const auto path,
                    bundle.add("captures/" + name, "what the clone has sent and got (pcapng)"));
        IVMM_TRY(copy_file(entry->path().string(), path));
        captures.push_back(path);
    }
    if (error) {
        return fail("cannot read the folder '{}': {}", folder, error.message());
    }
    if (captures.empty()) {
        bundle.add_missing(fmt::format("captures: there is none of the clone in '{}'", folder));
        return {};
    }
    std::ranges::sort(captures);
    return add_sessions(bundle, captures, findings);
}

/// The lines that are about the clone's port.
Result<void> add_events(Bundle& bundle, const std::string& clone, const std::string& path,
                        Findings& findings) {
    std::ifstream file(path);
    if (!file) {
        return fail("cannot read the events '{}'", path);
    }
    for (std::string line; std::getline(file, line);) {
        Json event = Json::parse(line, nullptr, false);
        if (event.is_object() && event.value("port", Json()) == clone) {
            findings.events.push_back(std::move(event));
        }
    }
    return add_lines(bundle, "events.jsonl", "what the switch has told of the clone, a line each",
                     findings.events);
}

/// The flows that are the clone's, the latest ones if there are very many.
Result<Json> flows_of(FoundPort& found, const std::string& clone) {
    constexpr uint32_t kAtOnce = 1000;
    constexpr uint32_t kMost = 200'000;  // numbers of flows of the guest
    const auto ask = [&](uint32_t after, uint32_t limit) {
        return found.owner.client.call(
            "flows",
            {{"guest", found.port.value("guest", "")}, {"after", after}, {"limit", limit}});
    };
    IVMM_ASSIGN(const Json first, ask(0, 1));
    const auto newest = first.value("newest", uint32_t{0});
    Json flows = Json::array();
    for (uint32_t after = newest > kMost ? newest - kMost : 0; after < newest; after += kAtOnce) {
        IVMM_ASSIGN(const Json answer, ask(after, kAtOnce));
        for (const auto& flow : answer.value("flows", Json::array())) {
            if (flow.value("owner", "") == clone) {
                flows.push_back(flow);
            }
        }
    }
    return flows;
}

Result<void> add_flows(Bundle& bundle, FoundPort& found, const std::string& clone) {
    IVMM_ASSIGN(const auto flows, flows_of(found, clone));
    return bundle.add_text("flows.json", "the clone's port, and its flows with their counters",
                           to_text({{"port", found.port}, {"flows", flows}}));
}

}  // namespace

std::string to_text(const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<void> add_record(Bundle& bundle, const CloneRecord& record, const Json& status) {
    Json clone = to_json(record);
    clone["status"] = status;
    return bundle.add_text("clone.json", "whose clone it is, its disks, and how it was found",
                           to_text(clone));
}

Result<void> add_network(Bundle& bundle, const std::string& clone, Findings& findings) {
    auto found = find_switch_port(clone);
    if (!found) {
        bundle.add_missing("captures, flows, events: no switch has a port of the clone");
        return {};
    }
    IVMM_TRY(add_flows(bundle, *found, clone));
    const std::string captures = found->owner.status.value("captures", "");
    if (captures.empty()) {
        bundle.add_missing("captures: the switch makes none");
    } else {
        IVMM_TRY(add_captures(bundle, clone, captures, findings));
    }
    const std::string events = found->owner.status.value("events", "");
    if (events.empty()) {
        bundle.add_missing("events: the switch writes none to a file");
        return {};
    }
    return add_events(bundle, clone, events, findings);
}

Result<void> add_log(Bundle& bundle, const std::string& clone) {
    const std::string log = RuntimeDir::find().log_path(clone);
    if (!fs::exists(log)) {
        bundle.add_missing("log: the clone's process has said nothing");
        return {};
    }
    IVMM_ASSIGN(const auto path, bundle.add("log.txt", "what the clone's process has said"));
    return copy_file(log, path);
}

Result<void> add_testimony(Bundle& bundle, const Json& testimony, Findings& findings) {
    if (!testimony.is_object()) {
        bundle.add_missing(
            "console, memory and disks over time: the clone's process has left none");
        return {};
    }
    findings.history = testimony.value("history", Json::array());
    findings.console = decode_base64(testimony.value("console", "")).value_or("");
    IVMM_TRY(
        bundle.add_text("console.txt", "the last 64 KiB that it has printed", findings.console));
    return bundle.add_text("history.json",
                           "memory of its own and bytes written to its disks, over time (ms since "
                           "1970, bytes, bytes)",
                           findings.history.dump() + "\n");
}

Result<void> add_report(Bundle& bundle, const Findings& findings) {
    const auto timeline = make_timeline(findings);
    IVMM_TRY(
        add_lines(bundle, "timeline.jsonl", "everything that has a time, a line each", timeline));
    return bundle.add_text("report.html", "all of this for people",
                           make_report(findings, timeline, bundle.missing()));
}

}  // namespace ivmm::evidence
