#include "vmm/live/top_picture.h"

#include <algorithm>

#include "vmm/cli/guest_command.h"
#include "vmm/config/size.h"

namespace ivmm::live {
namespace {

using rpc::Json;
using Style = PictureLine::Style;

constexpr double kUsPerMs = 1000;
constexpr size_t kMostFlows = 10;

/// One '?' for each character that is not ASCII.
std::string plain(const std::string& text) {
    std::string ascii;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x80) {
            if ((byte & 0xc0U) != 0x80) {
                ascii += '?';
            }
        } else {
            ascii += byte < ' ' || byte == 0x7f ? '?' : c;
        }
    }
    return ascii;
}

std::string text_of(const Json& from, const char* key) {
    return plain(from.value(key, ""));
}

std::string size(const Json& from, const char* key) {
    const uint64_t bytes = from.value(key, uint64_t{0});
    return bytes == 0 ? "-" : format_size(bytes);
}

/// In their order: a guest, or a clone that has ended.
struct Row {
    const Json* guest;
    bool has_ended;
    bool is_clone;
};

std::vector<Row> rows_of(const Json& state) {
    const Json& guests = state.at("guests");
    const Json& ended = state.at("ended_clones");
    const auto there = [&](const std::string& name) {
        return std::ranges::any_of(
            guests, [&](const Json& guest) { return guest.value("name", "") == name; });
    };
    std::vector<Row> rows;
    const auto add_clones = [&](const auto& is_wanted) {
        for (const auto& guest : guests) {
            const std::string primary = guest.value("primary", "");
            if (!primary.empty() && is_wanted(primary)) {
                rows.push_back({&guest, false, true});
            }
        }
        for (const auto& clone : ended) {
            // One that was killed is among the guests.
            if (is_wanted(clone.value("primary", "")) && !there(clone.value("name", ""))) {
                rows.push_back({&clone, true, true});
            }
        }
    };
    const auto is_root = [](const Json& guest) { return guest.value("primary", "").empty(); };
    for (const auto& guest : guests) {
        if (is_root(guest)) {
            rows.push_back({&guest, false, false});
            add_clones(
                [&](const std::string& primary) { return primary == guest.value("name", ""); });
        }
    }
    // Whose primary is not here, or is a clone itself.
    add_clones([&](const std::string& primary) {
        return std::ranges::none_of(guests, [&](const Json& guest) {
            return is_root(guest) && guest.value("name", "") == primary;
        });
    });
    return rows;
}

std::string diverted(const Json& guest) {
    const Json& all = guest.at("diverted");
    if (all.empty()) {
        return "-";
    }
    const std::string first = text_of(all.front(), "remote");
    return all.size() == 1 ? first : fmt::format("{} +{}", first, all.size() - 1);
}

std::string last_pause(const Json& forks) {
    const Json& recent = forks.at("recent");
    return recent.empty()
               ? "-"
               : fmt::format("{:.2f} ms", recent.back().value("pause_us", 0.0) / kUsPerMs);
}

std::string guest_line(std::string_view name, std::string_view state, std::string_view up,
                       std::string_view left, std::string_view own, std::string_view shared,
                       std::string_view flows, std::string_view attacker, std::string_view standby,
                       std::string_view behind, std::string_view forks, std::string_view pause) {
    return fmt::format(
        "{:<20} {:<9} {:>8} {:>8} {:>11} {:>8} {:>6} {:<20} {:<8} {:>8} {:>5} {:>10}", name, state,
        up, left, own, shared, flows, attacker, standby, behind, forks, pause);
}

/// "12M", or "12M/64M" where there is a limit.
std::string own_memory(const Json& guest) {
    const std::string own = size(guest, "memory_private_bytes");
    return guest.value("memory_limit_bytes", uint64_t{0}) == 0
               ? own
               : own + "/" + size(guest, "memory_limit_bytes");
}

PictureLine draw_row(const Row& row, const std::string& selected) {
    const std::string name = row.guest->value("name", "");
    const std::string shown = (row.is_clone ? "  " : "") + plain(name);
    PictureLine line;
    if (row.has_ended) {
        line.text = guest_line(shown, "ended", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-");
        line.style = Style::kDim;
    } else {
        const Json& guest = *row.guest;
        const Json& standby = guest.at("standby");
        const Json& forks = guest.at("forks");
        const std::string phase = text_of(standby, "phase");
        const bool has_standby = !phase.empty() && phase != "none";
        const bool up = guest.value("up", false);
        line.text = guest_line(
            shown, text_of(guest, "state"),
            up ? cli::format_duration(guest.value("uptime_s", 0.0)) : "-",
            guest.at("ends_in_s").is_number()
                ? cli::format_duration(guest["ends_in_s"].get<double>())
                : "-",
            own_memory(guest), size(guest, "memory_shared_bytes"),
            row.is_clone ? std::to_string(guest.value("flows", uint64_t{0})) : "-", diverted(guest),
            has_standby ? phase : "-", has_standby ? size(standby, "behind_bytes") : "-",
            up ? std::to_string(forks.value("done", uint64_t{0})) : "-", last_pause(forks));
        line.style = up && phase != "failed" ? Style::kPlain : Style::kAlarm;
    }
    if (name == selected) {
        line.style = Style::kSelected;
    }
    return line;
}

const Json* find(const Json& list, const char* key, const std::string& value) {
    const auto found =
        std::ranges::find_if(list, [&](const Json& one) { return one.value(key, "") == value; });
    return found == list.end() ? nullptr : &*found;
}

/// "5", "31/s": what there was in all, or in a second since the picture before.
std::string rate(const TopView& view, const Json& now, const char* key) {
    const auto total = now.value(key, uint64_t{0});
    const Json* const before =
        view.before == nullptr ? nullptr
                               : find(view.before->at("switches"), "name", now.value("name", ""));
    if (before == nullptr || view.seconds <= 0 || before->value(key, uint64_t{0}) > total) {
        return std::to_string(total);
    }
    return fmt::format("{:.0f}/s",
                       static_cast<double>(total - before->value(key, uint64_t{0})) / view.seconds);
}

std::string reasons(const Json& drops) {
    std::string all;
    for (const auto& [reason, dropped] : drops.items()) {
        if (dropped != 0) {
            all += fmt::format("{}{} {}", all.empty() ? "" : ", ", plain(reason),
                               dropped.get<uint64_t>());
        }
    }
    return all.empty() ? "-" : all;
}

void begin_table(std::string title, std::vector<PictureLine>& lines) {
    lines.push_back({"", Style::kPlain});
    lines.push_back({std::move(title), Style::kTitle});
}

void draw_switches(const TopView& view, std::vector<PictureLine>& lines) {
    constexpr const char* kFormat = "{:<20} {:>8} {:>9} {:>10} {:>10}  {}";
    const Json& switches = view.state->at("switches");
    if (switches.empty()) {
        return;
    }
    begin_table(fmt::format(kFormat, "SWITCH", "FLOWS", "DIVERTED", "FORWARDED", "DROPPED", "WHY"),
                lines);
    for (const auto& one : switches) {
        const bool up = one.value("up", false);
        lines.push_back({up ? fmt::format(kFormat, text_of(one, "name"), one.value("flows", 0),
                                          one.at("diversions").size(), rate(view, one, "forwarded"),
                                          rate(view, one, "dropped"), reasons(one.at("drops")))
                            : fmt::format("{:<20} no answer", text_of(one, "name")),
                         up ? Style::kPlain : Style::kAlarm});
    }
}

void draw_overlays(const TopView& view, std::vector<PictureLine>& lines) {
    constexpr const char* kFormat = "{:<20} {:>8} {:>9} {:>10}  {}";
    const Json& overlays = view.state->at("overlays");
    if (overlays.empty()) {
        return;
    }
    begin_table(fmt::format(kFormat, "VIEW", "LAYERS", "OPEN", "FORKS", "MOUNTED AT"), lines);
    for (const auto& server : overlays) {
        if (!server.value("up", false)) {
            lines.push_back(
                {fmt::format("server {}: no answer", text_of(server, "pid")), Style::kAlarm});
        }
        for (const auto& mount : server.at("mounts")) {
            const std::string error = text_of(mount, "error");
            lines.push_back({fmt::format(kFormat, text_of(mount, "view"), mount.value("depth", 0),
                                         mount.value("open_files", 0), mount.value("forks", 0),
                                         text_of(mount, "mountpoint") +
                                             (error.empty() ? "" : "  not durable: " + error)),
                             error.empty() ? Style::kPlain : Style::kAlarm});
        }
    }
}

void draw_watches(const TopView& view, std::vector<PictureLine>& lines) {
    constexpr const char* kFormat = "{:<20} {:>8} {:>9} {:>10} {:>10} {:>10}";
    const Json& watches = view.state->at("watches");
    if (watches.empty()) {
        return;
    }
    begin_table(
        fmt::format(kFormat, "WATCH OF", "ALERTS", "FORKS", "DIVERTS", "WITHHELD", "FAILED"),
        lines);
    for (const auto& one : watches) {
        const Json& done = one.at("done");
        const auto failed = one.value("failed", uint64_t{0});
        const bool up = one.value("up", false);
        lines.push_back({up ? fmt::format(kFormat, text_of(one, "guest"), one.value("alerts", 0),
                                          done.value("fork", 0), done.value("divert", 0),
                                          one.value("withheld", 0), failed)
                            : fmt::format("{:<20} no answer", text_of(one, "guest")),
                         up && failed == 0 ? Style::kPlain : Style::kAlarm});
    }
}

void draw_flows(const TopView& view, std::vector<PictureLine>& lines) {
    for (const auto& one : view.state->at("switches")) {
        const Json* const clone = find(one.at("clones"), "clone", view.selected);
        if (clone == nullptr || view.selected.empty()) {
            continue;
        }
        begin_table(fmt::format("FLOWS OF {} ({})", plain(view.selected),
                                clone->value("flows", uint64_t{0})),
                    lines);
        size_t shown = 0;
        for (const auto& flow : clone->at("newest")) {
            if (++shown > kMostFlows) {
                break;
            }
            const bool is_clones = !text_of(flow, "opened_by").empty();
            lines.push_back(
                {fmt::format("{:<5} {}:{} {} :{}  in {} out {}{}{}", text_of(flow, "protocol"),
                             text_of(flow, "remote"), flow.value("remote_port", 0),
                             is_clones ? "<-" : "->", flow.value("local_port", 0),
                             flow.value("bytes_in", uint64_t{0}),
                             flow.value("bytes_out", uint64_t{0}),
                             is_clones ? "  " + text_of(flow, "verdict") : "",
                             flow.value("closed", false) ? "  closed" : ""),
                 Style::kPlain});
        }
    }
}

}  // namespace

std::vector<std::string> top_names(const Json& state) {
    std::vector<std::string> names;
    for (const auto& row : rows_of(state)) {
        names.push_back(row.guest->value("name", ""));
    }
    return names;
}

std::vector<PictureLine> draw_top(const TopView& view) {
    std::vector<PictureLine> lines;
    lines.push_back({guest_line("GUEST", "STATE", "UP", "ENDS IN", "PRIVATE", "SHARED", "FLOWS",
                                "DIVERTED", "STANDBY", "BEHIND", "FORKS", "LAST PAUSE"),
                     Style::kTitle});
    const auto rows = rows_of(*view.state);
    for (const auto& row : rows) {
        lines.push_back(draw_row(row, view.selected));
    }
    if (rows.empty()) {
        lines.push_back({"no guest runs; `ivmm run` starts one", Style::kDim});
    }
    draw_switches(view, lines);
    draw_overlays(view, lines);
    draw_watches(view, lines);
    draw_flows(view, lines);
    return lines;
}

std::vector<PictureLine> fit(std::vector<PictureLine> lines, size_t width, size_t height) {
    const auto selected = std::ranges::find(lines, Style::kSelected, &PictureLine::style);
    const auto place = static_cast<size_t>(selected - lines.begin());
    if (selected != lines.end() && place >= height && height > 0) {
        lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(place - height + 1));
    }
    if (lines.size() > height) {
        lines.resize(height);
    }
    for (auto& line : lines) {
        line.text.resize(std::min(line.text.size(), width));
    }
    return lines;
}

}  // namespace ivmm::live
