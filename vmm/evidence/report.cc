#include "vmm/evidence/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

#include "vmm/config/size.h"
#include "vmm/evidence/html.h"
#include "vmm/evidence/report_plots.h"

// report_style.s
extern "C" {
extern const char ivmm_report_css;
extern const char ivmm_report_css_end;
}

namespace ivmm::evidence {
namespace {

using rpc::Json;

constexpr size_t kMostRows = 300;
constexpr size_t kMostOfKind = 60;
constexpr size_t kMostFarEnds = 8;
constexpr size_t kMostTalks = 60;
constexpr size_t kMostTalkBytes = size_t{16} << 10;
constexpr size_t kMostPorts = 8;

std::string text_of(const Json& object, const char* name) {
    return escape_html(object.value(name, ""));
}

std::string size_of(const Json& object, const char* name) {
    return format_size(object.value(name, uint64_t{0}));
}

/// "12:00:00" of "2026-01-31T12:00:00.000000Z".
std::string clock_of(const std::string& time) {
    return time.size() >= 19 ? escape_html(time.substr(11, 8)) : std::string();
}

/// "31 flows"; "1 flow".
std::string count_of(uint64_t count, std::string_view what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string note_of_rest(size_t all, std::string_view file) {
    return all > kMostRows
               ? fmt::format("<p class=soft>{} more are in {}.</p>\n", all - kMostRows, file)
               : std::string();
}

std::string attacker_of(const Findings& findings) {
    const Json divert = findings.cause.value("divert", Json::object());
    return findings.cause.value("attacker", divert.value("remote", ""));
}

struct Totals {
    uint64_t sessions = 0;
    uint64_t blocked = 0;
    uint64_t inputs = 0;
    uint64_t files = 0;
};

Totals totals_of(const std::vector<Json>& timeline) {
    Totals totals;
    for (const auto& event : timeline) {
        const std::string id = event.value("eventid", "");
        totals.sessions += id == "ivmm.session.connect" ? 1 : 0;
        totals.blocked += id == "ivmm.session.blocked" ? 1 : 0;
        totals.inputs += id == "ivmm.session.input" ? 1 : 0;
        totals.files += id.starts_with("ivmm.file.") ? 1 : 0;
    }
    return totals;
}

std::string tile(std::string_view value, std::string_view label) {
    return fmt::format("<li><b>{}</b>{}</li>\n", value, label);
}

std::string summary(const Findings& findings, const Totals& totals) {
    const std::string attacker = attacker_of(findings);
    std::string html = fmt::format(
        "<p>On {} ivmm made the clone <b>{}</b> of the running machine <b>{}</b>{}. From then on "
        "everything below happened in the clone, not in <b>{}</b>. The evidence was collected at "
        "{} "
        "(all times are UTC); the clone {} then.</p>\n",
        text_of(findings.about, "forked"), text_of(findings.about, "clone"),
        text_of(findings.about, "primary"),
        attacker.empty()
            ? ""
            : fmt::format(" and moved the connections of <b>{}</b> to it", escape_html(attacker)),
        text_of(findings.about, "primary"), text_of(findings.about, "exported"),
        findings.about.value("running", false) ? "was still running" : "had ended");
    html += "<ul class=tiles>\n";
    html += tile(std::to_string(totals.sessions), "connections");
    html += tile(std::to_string(totals.inputs), "lines of text received");
    html += tile(std::to_string(totals.blocked),
                 "attempts of the clone to reach somebody without "
                 "an answer");
    html += tile(std::to_string(totals.files), "files added, changed or removed");
    if (findings.memory.is_object()) {
        html += tile(std::to_string(findings.memory.value("programs", Json::array()).size()),
                     "programs started");
        html += tile(size_of(findings.memory, "changed_bytes"), "of memory changed");
    }
    return html + "</ul>\n";
}

std::string beginning(const Findings& findings) {
    const auto& cause = findings.cause;
    std::string rows;
    const auto row = [&](std::string_view label, const std::string& value) {
        if (!value.empty()) {
            rows += fmt::format("<tr><td class=t>{}</td><td class=w>{}</td></tr>\n", label, value);
        }
    };
    row("attacker", escape_html(attacker_of(findings)));
    row("rule", text_of(cause, "rule"));
    row("reason", text_of(cause, "reason"));
    const Json alert = cause.value("alert", Json::object());
    row("alert", text_of(alert, "signature"));
    row("category", text_of(alert, "category"));
    row("told by", text_of(alert, "source"));
    row("at", text_of(alert, "timestamp"));
    const Json divert = cause.value("divert", Json::object());
    row("moved", text_of(divert, "scope"));
    row("policy", text_of(divert, "policy"));
    if (rows.empty()) {
        rows = "<tr><td>somebody has asked for it and given no reason</td></tr>";
    }
    return "<h2>What it began with</h2>\n<div class=card><table>" + rows + "</table></div>\n";
}

std::string what_happened(const std::vector<Json>& timeline) {
    std::string html =
        "<h2>What happened when</h2>\n<div class=card>" + plot_timeline(timeline) +
        "</div>\n<details class=rest open><summary>" + count_of(timeline.size(), "event") +
        "</summary><div class=card><table>\n<thead><tr><th>time<th>what</tr></thead>\n";
    std::map<std::string, size_t> shown;
    size_t left = 0;
    for (const auto& event : timeline) {
        const std::string id = event.value("eventid", "");
        // Of a kind of which there are very many, the first: they must not hide the others.
        if (++shown[id] > kMostOfKind) {
            ++left;
            continue;
        }
        const bool bad = id == "ivmm.session.blocked" || id == "ivmm.switch.contained";
        html += fmt::format("<tr><td class=t title=\"{}\">{}</td><td class=\"w{}\">{}</td></tr>\n",
                            text_of(event, "datetime"), clock_of(event.value("datetime", "")),
                            bad ? " blocked" : "", text_of(event, "message"));
    }
    html += "</table>";
    if (left > 0) {
        html += fmt::format(
            "<p class=soft>Of each kind these are the first {}; {} more are in "
            "timeline.jsonl.</p>\n",
            kMostOfKind, left);
    }
    return html + "</div></details>\n";
}

/// Sessions of the same two machines with the same outcome.
struct Group {
    uint64_t count = 0;
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;
    std::set<uint16_t> ports;
    std::string first;
    std::string last;
};

void merge(Group& into, const Group& other) {
    into.count += other.count;
    into.bytes_in += other.bytes_in;
    into.bytes_out += other.bytes_out;
    into.ports.insert(other.ports.begin(), other.ports.end());
    into.first = into.first.empty() ? other.first : std::min(into.first, other.first);
    into.last = std::max(into.last, other.last);
}

std::string ports_text(const std::set<uint16_t>& ports) {
    std::string text;
    size_t shown = 0;
    for (const uint16_t port : ports) {
        if (shown++ == kMostPorts) {
            return text + fmt::format(" and {} more", ports.size() - kMostPorts);
        }
        text += fmt::format("{}{}", text.empty() ? "" : ", ", port);
    }
    return text;
}

/// For people; verdicts are net::Verdict's, or why a frame was dropped.
std::string outcome_text(bool silent, const std::string& verdict) {
    static const std::map<std::string, std::string, std::less<>> kTexts = {
        {"", "talked with the clone"},
        {"forward", "let through"},
        {"limit", "let through, within a limit"},
        {"reflect", "reflected to a clone"},
        {"redirect", "redirected"},
        {"answered by the switch", "answered by the switch"}};
    const auto found = kTexts.find(verdict);
    const std::string text = found == kTexts.end() ? escape_html(verdict) : found->second;
    return silent ? "no answer: " + text : text;
}

std::string who_talked(const Findings& findings) {
    using Key = std::tuple<std::string, std::string, std::string, bool, std::string>;
    std::map<Key, Group> groups;
    for (const auto& session : findings.sessions) {
        const std::string opener = session.value("opened_by", "");
        const bool by_clone = opener == "clone";
        const bool silent = by_clone && session.value("frames_in", uint64_t{0}) == 0;
        merge(groups[{session.value("remote", ""), session.value("protocol", ""), opener, silent,
                      by_clone ? session.value("verdict", "") : ""}],
              {1,
               session.value("bytes_in", uint64_t{0}),
               session.value("bytes_out", uint64_t{0}),
               {session.value(by_clone ? "remote_port" : "local_port", uint16_t{0})},
               session.value("first", ""),
               session.value("last", "")});
    }
    std::vector<std::pair<Key, Group>> all(groups.begin(), groups.end());
    std::ranges::stable_sort(all, std::ranges::greater(), [](const auto& row) {
        return row.second.bytes_in + row.second.bytes_out;
    });
    // Where there are many far ends with the same outcome, the others are one row.
    std::vector<std::pair<Key, Group>> rows;
    std::map<Key, size_t> far_ends;
    std::map<Key, size_t> others;  // their places in rows
    for (const auto& [key, group] : all) {
        Key kind = key;
        std::get<0>(kind).clear();
        const size_t number = ++far_ends[kind];
        if (number <= kMostFarEnds) {
            rows.emplace_back(key, group);
            continue;
        }
        const auto [place, is_new] = others.try_emplace(kind, rows.size());
        if (is_new) {
            rows.emplace_back(kind, Group());
        }
        std::get<0>(rows[place->second].first) = fmt::format("{} others", number - kMostFarEnds);
        merge(rows[place->second].second, group);
    }
    std::string html =
        "<h2>Who talked to whom</h2>\n<div class=card><table>\n<thead><tr><th>far end<th>how<th>"
        "ports<th class=n>times<th class=n>in<th class=n>out<th>from, to<th>outcome</tr></thead>\n";
    for (size_t i = 0; i < std::min(rows.size(), kMostRows); ++i) {
        const auto& [key, group] = rows[i];
        const auto& [remote, protocol, opener, silent, verdict] = key;
        html += fmt::format(
            "<tr><td>{}</td><td>{} {}</td><td data-k=port>{}</td><td class=n data-k=times>{}</td>"
            "<td class=n data-k=in>{}</td><td class=n data-k=out>{}</td><td class=t>{}–{}</td>"
            "<td class=\"w{}\">{}</td></tr>\n",
            escape_html(remote), escape_html(protocol),
            opener == "clone"    ? "opened by the clone"
            : opener == "remote" ? "opened by him"
                                 : "open at the fork",
            ports_text(group.ports), group.count, format_size(group.bytes_in),
            format_size(group.bytes_out), clock_of(group.first), clock_of(group.last),
            silent ? " blocked" : "", outcome_text(silent, verdict));
    }
    html += "</table>" + note_of_rest(rows.size(), "sessions.jsonl") + "</div>\n";
    if (rows.empty()) {
        return "<h2>Who talked to whom</h2>\n<p class=soft>There is no capture of it, or nobody "
               "did.</p>\n";
    }
    return html;
}

std::string what_was_said(const Findings& findings) {
    std::string html;
    size_t shown = 0;
    size_t all = 0;
    for (const auto& session : findings.sessions) {
        const Json words = session.value("words", Json::array());
        if (words.empty() || ++all > kMostTalks) {
            continue;
        }
        ++shown;
        std::string talk;
        for (const auto& one : words) {
            if (talk.size() > kMostTalkBytes) {
                talk += "\n[…]";
                break;
            }
            const bool from_clone = one.value("from", "") == "clone";
            talk += fmt::format("{}{}{}", from_clone ? "" : "<span class=in>", text_of(one, "text"),
                                from_clone ? "" : "</span>");
        }
        html += fmt::format(
            "<details{}><summary>{} {} {} and {} {}, {}</summary><pre>{}</pre></details>\n",
            shown <= 3 ? " open" : "", text_of(session, "protocol"), text_of(session, "remote"),
            session.value("remote_port", 0), text_of(session, "local"),
            session.value("local_port", 0), clock_of(session.value("first", "")), talk);
    }
    if (shown == 0) {
        return {};
    }
    const std::string rest = all > shown ? fmt::format(
                                               "<p class=soft>{} more are in "
                                               "sessions.jsonl.</p>\n",
                                               all - shown)
                                         : std::string();
    return "<h2>What was said</h2>\n<p class=soft>What came from outside is in another colour. Of "
           "what is encrypted (SSH, TLS) there is only what comes before that.</p>\n<div "
           "class=card>" +
           html + rest + "</div>\n";
}

std::string programs(const Findings& findings) {
    const Json all = findings.memory.is_object() ? findings.memory.value("programs", Json::array())
                                                 : Json::array();
    if (all.empty()) {
        return {};
    }
    std::string html =
        "<h2>Programs that were started</h2>\n<p class=soft>Found in memory that has changed since "
        "the fork: what is left of the beginnings of programs. Some have ended, and of some there "
        "is "
        "nothing left.</p>\n<div class=card><table>\n<thead><tr><th>file<th>command<th>environment"
        "</tr></thead>\n";
    for (size_t i = 0; i < std::min(all.size(), kMostRows); ++i) {
        std::string command;
        for (const auto& argument : all[i].value("arguments", Json::array())) {
            command += (command.empty() ? "" : " ") + argument.get<std::string>();
        }
        std::string environment;
        for (const auto& variable : all[i].value("environment", Json::array())) {
            environment += (environment.empty() ? "" : " ") + variable.get<std::string>();
        }
        html += fmt::format(
            "<tr><td>{}</td><td class=w><code>{}</code></td><td class=\"w soft\">{}</td></tr>\n",
            text_of(all[i], "file"), escape_html(command), escape_html(environment));
    }
    return html + "</table>" + note_of_rest(all.size(), "memory.json") + "</div>\n";
}

std::string describe_change(const Json& file) {
    if (file.contains("renamed_from")) {
        return "it was " + text_of(file, "renamed_from");
    }
    if (file.value("kind", "") != "changed") {
        return {};
    }
    std::string what = file.value("content", false) ? "content" : "attributes";
    if (file.contains("mode_before")) {
        what += fmt::format(", mode {} to {}", text_of(file, "mode_before"), text_of(file, "mode"));
    }
    return what;
}

std::string files(const Findings& findings) {
    std::string html;
    for (const auto& disk : findings.disks) {
        if (disk.files.empty()) {
            continue;
        }
        html += fmt::format(
            "<h3>{}: {}</h3><div class=card><table>\n<thead><tr><th>what<th>path<th "
            "class=n>bytes<th>"
            "changed<th>SHA-256</tr></thead>\n",
            escape_html(disk.name), count_of(disk.files.size(), "file"));
        for (size_t i = 0; i < std::min(disk.files.size(), kMostRows); ++i) {
            const auto& file = disk.files[i];
            const std::string kind = text_of(file, "kind");
            const std::string digest = file.contains("sha256") ? file.value("sha256", "")
                                                               : file.value("sha256_before", "");
            html += fmt::format(
                "<tr><td class={}>{}</td><td class=w>{} <span class=soft>{}</span></td><td class=n "
                "data-k=bytes>{}</td><td class=t>{}</td><td "
                "title=\"{}\"><code>{}</code></td></tr>\n",
                kind, kind, text_of(file, "path"), describe_change(file),
                file.value("bytes", uint64_t{0}), text_of(file, "changed"), escape_html(digest),
                escape_html(digest.substr(0, 12)));
        }
        html +=
            "</table>" + note_of_rest(disk.files.size(), disk.name + "-files.jsonl") + "</div>\n";
    }
    return html.empty() ? html
                        : "<h2>Files</h2>\n<p class=soft>Times are those of the clone's clock, or "
                          "what somebody has set.</p>\n" +
                              html;
}

std::string memory_and_disks(const Findings& findings) {
    const std::string history = plot_history(findings.history);
    const std::string map =
        findings.memory.is_object() ? plot_memory(findings.memory) : std::string();
    if (history.empty() && map.empty()) {
        return {};
    }
    std::string html = "<h2>Memory and disks over time</h2>\n<div class=card>" + history;
    if (!map.empty()) {
        html += fmt::format(
            "<p class=soft>{} of {} of memory are different from what they were at "
            "the fork.</p>{}",
            size_of(findings.memory, "changed_bytes"), size_of(findings.memory, "bytes"), map);
    }
    return html + "</div>\n";
}

std::string console(const Findings& findings) {
    constexpr size_t kMostConsole = size_t{16} << 10;
    std::string_view text = findings.console;
    text.remove_prefix(text.size() - std::min(text.size(), kMostConsole));
    return text.empty() ? std::string()
                        : "<h2>The end of the console</h2>\n<details class=card><summary>What the "
                          "clone has printed last (console.txt has more)</summary><pre>" +
                              escape_html(text) + "</pre></details>\n";
}

std::string what_is_missing(const std::vector<std::string>& missing) {
    if (missing.empty()) {
        return {};
    }
    std::string html = "<h2>What is missing</h2>\n<ul>\n";
    for (const auto& one : missing) {
        html += "<li>" + escape_html(one) + "</li>\n";
    }
    return html + "</ul>\n";
}

}  // namespace

std::string make_report(const Findings& findings, const std::vector<Json>& timeline,
                        const std::vector<std::string>& missing) {
    const std::string_view style(&ivmm_report_css,
                                 static_cast<size_t>(&ivmm_report_css_end - &ivmm_report_css));
    const std::string clone = text_of(findings.about, "clone");
    std::string html = fmt::format(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src "
        "'unsafe-inline'\">\n"
        "<meta name=viewport content=\"width=device-width, initial-scale=1\">\n"
        "<title>Evidence: {}</title>\n<style>\n{}</style></head>\n<body>\n<h1>Evidence: {}</h1>\n",
        clone, style, clone);
    html += summary(findings, totals_of(timeline));
    html += beginning(findings);
    html += what_happened(timeline);
    html += who_talked(findings);
    html += what_was_said(findings);
    html += programs(findings);
    html += files(findings);
    html += memory_and_disks(findings);
    html += console(findings);
    html += what_is_missing(missing);
    return html + fmt::format(
                      "<footer><p>Made by ivmm {}. What is beside this page: manifest.json; "
                      "SHA256SUMS has the checksums.</p></footer>\n</body></html>\n",
                      text_of(findings.about, "ivmm"));
}

}  // namespace ivmm::evidence
