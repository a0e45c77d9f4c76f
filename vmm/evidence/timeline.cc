#include "vmm/evidence/timeline.h"

#include <algorithm>
#include <string_view>

#include "base/printable.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;

constexpr size_t kMostInputs = 10'000;

/// Always with microseconds, so that the order of the texts is that of the times.
std::string exact(std::string time) {
    if (time.size() == std::string_view("2026-01-31T12:00:00Z").size()) {
        time.insert(time.size() - 1, ".000000");
    }
    return time;
}

class Timeline {
 public:
    explicit Timeline(std::string sensor) : sensor_(std::move(sensor)) {}

    void add(const std::string& time, const char* about, const char* event, std::string message,
             Json more = Json::object()) {
        if (time.empty()) {
            return;
        }
        more["datetime"] = exact(time);
        more["timestamp_desc"] = about;
        more["eventid"] = event;
        more["sensor"] = sensor_;
        more["message"] = std::move(message);
        events_.push_back(std::move(more));
    }
    void add(Json event) {
        event["datetime"] = exact(event.value("datetime", ""));
        events_.push_back(std::move(event));
    }
    std::vector<Json> take() {
        std::ranges::stable_sort(events_, {}, [](const Json& event) -> const std::string& {
            return event["datetime"].get_ref<const std::string&>();
        });
        return std::move(events_);
    }

 private:
    const std::string sensor_;
    std::vector<Json> events_;
};

void add_fork(const Findings& findings, Timeline& timeline) {
    const std::string attacker = findings.cause.value(
        "attacker", findings.cause.value("divert", Json::object()).value("remote", ""));
    const std::string reason = printable(findings.cause.value("reason", ""));
    timeline.add(findings.about.value("forked", ""), "Fork", "ivmm.clone.forked",
                 fmt::format("forked from {}{}{}", findings.about.value("primary", ""),
                             attacker.empty() ? "" : " for " + attacker,
                             reason.empty() ? "" : ": " + reason),
                 {{"cause", findings.cause}});
}

/// Addresses and ports as Cowrie names them: from who has opened it to the other.
Json ends_of(const Json& session) {
    const bool by_clone = session.value("opened_by", "") == "clone";
    const char* const source = by_clone ? "local" : "remote";
    const char* const target = by_clone ? "remote" : "local";
    return {{"src_ip", session.value(source, "")},
            {"src_port", session.value(std::string(source) + "_port", 0)},
            {"dst_ip", session.value(target, "")},
            {"dst_port", session.value(std::string(target) + "_port", 0)},
            {"protocol", session.value("protocol", "")}};
}

void add_session(size_t number, const Json& session, Timeline& timeline, size_t* inputs) {
    Json more = ends_of(session);
    more["session"] = number;
    const std::string who =
        fmt::format("{} {}:{} to {}:{}", more.value("protocol", ""), more.value("src_ip", ""),
                    more.value("src_port", 0), more.value("dst_ip", ""), more.value("dst_port", 0));
    const bool blocked =
        session.value("opened_by", "") == "clone" && session.value("frames_in", uint64_t{0}) == 0;
    const std::string verdict = printable(session.value("verdict", ""));
    if (blocked) {
        more["verdict"] = verdict;
        timeline.add(session.value("first", ""), "First frame", "ivmm.session.blocked",
                     fmt::format("{}: no answer ({})", who, verdict), std::move(more));
        return;
    }
    timeline.add(
        session.value("first", ""), "First frame", "ivmm.session.connect",
        session.value("opened_by", "") == "before" ? who + ", which was open at the fork" : who,
        more);
    // What the clone has fetched itself is no input of anybody's.
    const bool asked_for = session.value("opened_by", "") == "clone";
    std::string line;
    for (const auto& words : session.value("words", Json::array())) {
        if (asked_for || words.value("from", "") == "clone") {
            continue;
        }
        for (const char c : words.value("text", "")) {
            if (c != '\n') {
                line += c;
            } else if (!line.empty() && *inputs < kMostInputs) {
                ++*inputs;
                Json input = more;
                input["input"] = line;
                timeline.add(words.value("time", ""), "Said by the far end", "ivmm.session.input",
                             printable(fmt::format("{}: {}", session.value("remote", ""),
                                                   std::exchange(line, {}))),
                             std::move(input));
            } else {
                line.clear();
            }
        }
    }
    more["duration"] = session.value("seconds", 0.0);
    timeline.add(session.value("last", ""), "Last frame", "ivmm.session.closed",
                 fmt::format("{}: {} bytes in, {} out", who, session.value("bytes_in", uint64_t{0}),
                             session.value("bytes_out", uint64_t{0})),
                 std::move(more));
}

void add_file(const std::string& disk, const Json& file, Timeline& timeline) {
    const std::string kind = file.value("kind", "");
    const std::string path = file.value("path", "");
    Json more{{"disk", disk}, {"path", path}};
    for (const char* const name : {"sha256", "sha256_before", "bytes", "renamed_from"}) {
        if (file.contains(name)) {
            more[name] = file[name];
        }
    }
    const bool removed = kind == "removed";
    timeline.add(removed ? file.value("folder_modified", "") : file.value("changed", ""),
                 removed ? "Last change of the folder, at the earliest the removal (the clone's "
                           "clock)"
                         : "Inode change time (the clone's clock)",
                 kind == "added"     ? "ivmm.file.added"
                 : kind == "changed" ? "ivmm.file.changed"
                                     : "ivmm.file.removed",
                 fmt::format("{}: {} {}", disk, kind, printable(path)), std::move(more));
}

}  // namespace

std::vector<Json> make_timeline(const Findings& findings) {
    Timeline timeline(findings.about.value("clone", ""));
    add_fork(findings, timeline);
    for (const auto& event : findings.events) {
        timeline.add(event);
    }
    size_t inputs = 0;
    for (size_t i = 0; i < findings.sessions.size(); ++i) {
        add_session(i, findings.sessions[i], timeline, &inputs);
    }
    for (const auto& disk : findings.disks) {
        for (const auto& file : disk.files) {
            add_file(disk.name, file, timeline);
        }
    }
    timeline.add(findings.about.value("exported", ""), "Export", "ivmm.evidence.exported",
                 "the evidence was collected");
    return timeline.take();
}

}  // namespace ivmm::evidence
