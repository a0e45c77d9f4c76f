#include "vmm/live/host_state.h"

#include <algorithm>

#include "base/printable.h"
#include "base/utc_time.h"
#include "vmm/control/version.h"
#include "vmm/fork/clone_record.h"

namespace ivmm::live {
namespace {

using rpc::Json;

/// Of a list that a process has sent, at most so many are shown.
constexpr size_t kMost = 1000;

/// A member, of whatever type; null: it is not there, or `from` is no object.
const Json& member(const Json& from, const char* key) {
    static const Json nothing;
    const auto found = from.is_object() ? from.find(key) : from.end();
    return found == from.end() ? nothing : *found;
}

std::string text(const Json& from, const char* key) {
    const Json& value = member(from, key);
    return value.is_string() ? printable(value.get<std::string>()) : std::string();
}

double number(const Json& from, const char* key) {
    const Json& value = member(from, key);
    return value.is_number() ? value.get<double>() : 0;
}

uint64_t count(const Json& from, const char* key) {
    constexpr double kMostExact = 9e15;  // that a double and JavaScript hold
    return static_cast<uint64_t>(std::clamp(number(from, key), 0.0, kMostExact));
}

bool is_true(const Json& from, const char* key) {
    return member(from, key) == true;
}

/// The objects of a list.
std::vector<Json> list(const Json& from, const char* key) {
    std::vector<Json> objects;
    const Json& items = member(from, key);
    for (size_t i = 0; items.is_array() && i < items.size() && objects.size() < kMost; ++i) {
        if (items[i].is_object()) {
            objects.push_back(items[i]);
        }
    }
    return objects;
}

Json result(const ProcessAnswers& process, const char* method) {
    const auto found = process.results.find(method);
    return found == process.results.end() ? Json() : found->second;
}

/// The counts in an object of that name, by what they count.
Json counts(const Json& from, const char* key) {
    const Json& object = member(from, key);
    Json all = Json::object();
    if (object.is_object()) {
        for (const auto& [what, value] : object.items()) {
            all[printable(what)] = count(object, what.c_str());
        }
    }
    return all;
}

uint64_t sum(const Json& counted) {
    uint64_t all = 0;
    for (const auto& value : counted) {
        all += value.get<uint64_t>();
    }
    return all;
}

Json standby_of(const Json& status) {
    return {{"phase", text(status, "phase")},
            {"where", text(status, "where")},
            {"error", text(status, "error")},
            {"behind_bytes", count(status, "behind_bytes")},
            {"replica_bytes", count(status, "replica_bytes")},
            {"interval_ms", number(status, "interval_ms")}};
}

Json forks_of(const Json& status) {
    Json recent = Json::array();
    for (const auto& fork : list(status, "recent_forks")) {
        recent.push_back({{"clone", text(fork, "clone")},
                          {"time", text(fork, "time")},
                          {"pause_us", number(fork, "pause_us")},
                          {"trigger_to_run_us", number(fork, "trigger_to_run_us")}});
    }
    return {{"done", count(status, "forks")},
            {"failed", count(status, "failed_forks")},
            {"clones", count(status, "clones")},
            {"recent", std::move(recent)}};
}

Json guest_from(const ProcessAnswers& process) {
    const Json status = result(process, "status");
    const Json standby = result(process, "standby.status");
    const auto record = read_clone_record(process.name);
    return {{"name", process.name},
            {"up", process.up},
            {"state", process.up ? text(status, "state") : "no answer"},
            {"pid", count(status, "pid")},
            {"uptime_s", number(status, "uptime_s")},
            {"primary", record ? printable(record->primary) : ""},
            {"ends_in_s",
             member(status, "ends_in_s").is_number() ? Json(number(status, "ends_in_s")) : Json()},
            {"memory_limit_bytes", count(status, "memory_limit_bytes")},
            {"memory_bytes", count(status, "memory_bytes")},
            {"memory_private_bytes", count(status, "memory_resident_bytes")},
            {"memory_shared_bytes", count(status, "memory_shared_bytes")},
            {"flows", 0},
            {"diverted", Json::array()},
            {"standby", standby_of(standby)},
            {"forks", forks_of(standby)}};
}

Json clones_of(const Json& answer) {
    Json clones = Json::array();
    for (const auto& clone : list(answer, "clones")) {
        Json flows = Json::array();
        for (const auto& flow : list(clone, "newest")) {
            flows.push_back({{"protocol", text(flow, "protocol")},
                             {"remote", text(flow, "remote")},
                             {"remote_port", count(flow, "remote_port")},
                             {"local_port", count(flow, "local_port")},
                             {"opened_by", text(flow, "opened_by")},
                             {"verdict", text(flow, "verdict")},
                             {"bytes_in", count(flow, "bytes_in")},
                             {"bytes_out", count(flow, "bytes_out")},
                             {"closed", is_true(flow, "closed")}});
        }
        clones.push_back({{"clone", text(clone, "clone")},
                          {"guest", text(clone, "guest")},
                          {"flows", count(clone, "flows")},
                          {"newest", std::move(flows)}});
    }
    return clones;
}

Json switch_from(const ProcessAnswers& process) {
    const Json status = result(process, "status");
    uint64_t forwarded = 0;
    Json drops = Json::object();
    size_t ports = 0;
    for (const auto& port : list(status, "ports")) {
        ++ports;
        forwarded += count(port, "frames_out");
        const Json of_port = counts(port, "drops");
        for (const auto& [reason, dropped] : of_port.items()) {
            drops[reason] = drops.value(reason, uint64_t{0}) + dropped.get<uint64_t>();
        }
    }
    uint64_t flows = 0;
    for (const auto& table : list(status, "tables")) {
        flows += count(table, "flows");
    }
    Json diversions = Json::array();
    for (const auto& one : list(status, "diversions")) {
        diversions.push_back({{"guest", text(one, "guest")},
                              {"clone", text(one, "clone")},
                              {"scope", text(one, "scope")},
                              {"remote", text(one, "remote")},
                              {"left_s", count(one, "left_s")}});
    }
    const uint64_t dropped = sum(drops);
    return {{"name", process.name},
            {"up", process.up},
            {"pid", count(status, "pid")},
            {"uptime_s", number(status, "uptime_s")},
            {"ports", ports},
            {"flows", flows},
            {"diversions", std::move(diversions)},
            {"forwarded", forwarded},
            {"dropped", dropped},
            {"drops", std::move(drops)},
            {"clones", clones_of(result(process, "clones"))}};
}

Json overlay_from(const ProcessAnswers& process) {
    const Json status = result(process, "status");
    Json mounts = Json::array();
    for (const auto& mount : list(status, "mounts")) {
        mounts.push_back({{"view", text(mount, "view")},
                          {"mountpoint", text(mount, "mountpoint")},
                          {"depth", count(mount, "depth")},
                          {"open_files", count(mount, "open_files")},
                          {"forks", count(mount, "forks")},
                          {"error", text(mount, "error")}});
    }
    return {{"pid", process.name},
            {"up", process.up},
            {"store", text(status, "store")},
            {"uptime_s", number(status, "uptime_s")},
            {"mounts", std::move(mounts)}};
}

Json watch_from(const ProcessAnswers& process) {
    const Json status = result(process, "status");
    return {{"guest", process.name},
            {"up", process.up},
            {"dry_run", is_true(status, "dry_run")},
            {"alerts", count(status, "alerts")},
            {"done", counts(status, "done")},
            {"failed", sum(counts(status, "failed"))},
            {"withheld", sum(counts(status, "withheld"))}};
}

/// Tells each guest what its switch knows of it.
void join(Json& guests, const Json& switches) {
    for (auto& guest : guests) {
        const auto& name = guest["name"];
        for (const auto& one : switches) {
            for (const auto& clone : one["clones"]) {
                if (clone["clone"] == name) {
                    guest["flows"] = clone["flows"];
                }
            }
            for (const auto& diversion : one["diversions"]) {
                if (diversion["clone"] == name) {
                    guest["diverted"].push_back(
                        {{"remote", diversion["remote"]}, {"scope", diversion["scope"]}});
                }
            }
        }
    }
}

/// Clones that have ended, and of which `ivmm rm` has something to remove.
Json ended_clones(const Json& guests) {
    Json ended = Json::array();
    for (const auto& name : clone_names()) {
        const bool runs = std::ranges::any_of(guests, [&](const Json& guest) {
            return guest["name"] == name && guest["up"] == true;
        });
        const auto record = runs ? Result<CloneRecord>(CloneRecord()) : read_clone_record(name);
        if (!runs && record) {
            ended.push_back({{"name", name},
                             {"primary", printable(record->primary)},
                             {"created", printable(record->created)}});
        }
    }
    return ended;
}

}  // namespace

Result<Json> host_state(RunningProcesses& processes) {
    IVMM_ASSIGN(const auto all, processes.ask({{"guest", {"status", "standby.status"}},
                                               {"overlay", {"status"}},
                                               {"switch", {"status", "clones"}},
                                               {"watch", {"status"}}}));
    Json guests = Json::array();
    Json switches = Json::array();
    Json overlays = Json::array();
    Json watches = Json::array();
    for (const auto& process : all) {
        if (process.kind == "guest") {
            guests.push_back(guest_from(process));
        } else if (process.kind == "switch") {
            switches.push_back(switch_from(process));
        } else if (process.kind == "overlay") {
            overlays.push_back(overlay_from(process));
        } else {
            watches.push_back(watch_from(process));
        }
    }
    join(guests, switches);
    Json ended = ended_clones(guests);
    return Json{{"time", utc_time_us()},           {"version", kVersion},
                {"guests", std::move(guests)},     {"ended_clones", std::move(ended)},
                {"switches", std::move(switches)}, {"overlays", std::move(overlays)},
                {"watches", std::move(watches)}};
}

}  // namespace ivmm::live
