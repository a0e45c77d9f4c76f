#include "vmm/evidence/report_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/utc_time.h"
#include "vmm/config/size.h"
#include "vmm/evidence/html.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;

constexpr size_t kColumns = 200;
constexpr double kHeight = 40;

struct Lane {
    std::string_view label;
    std::string_view style;
    std::vector<std::string_view> events;
    std::array<uint32_t, kColumns> counts{};
    uint64_t all = 0;
};

std::vector<Lane> lanes() {
    return {{"connections", "a", {"ivmm.session.connect"}},
            {"lines received", "d", {"ivmm.session.input"}},
            {"without an answer", "b", {"ivmm.session.blocked"}},
            {"files changed", "c", {"ivmm.file.added", "ivmm.file.changed", "ivmm.file.removed"}},
            {"told by the switch", "a", {}}};
}

bool is_of(const Lane& lane, std::string_view event) {
    return lane.events.empty() ? event.starts_with("ivmm.switch.")
                               : std::ranges::find(lane.events, event) != lane.events.end();
}

/// "2026-01-31T12:00:00.000000Z" as microseconds since 1970; 0: it is something else.
int64_t microseconds_of(const std::string& time) {
    std::tm parts{};
    const char* const rest = ::strptime(time.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
    if (rest == nullptr) {
        return 0;
    }
    const double fraction = *rest == '.' ? std::strtod(rest, nullptr) : 0;
    return int64_t{::timegm(&parts)} * 1'000'000 +
           static_cast<int64_t>(std::lround(fraction * 1e6));
}

std::string axis(int64_t begin_us, int64_t end_us) {
    std::string labels;
    constexpr int kLabels = 3;
    for (int i = 0; i < kLabels; ++i) {
        const int64_t at = begin_us + (end_us - begin_us) * i / (kLabels - 1);
        labels += fmt::format("<span>{}</span>", utc_time(at / 1'000'000).substr(11, 8));
    }
    return fmt::format("<p class=axis>{}</p>\n", labels);
}

std::string draw(const Lane& lane, int64_t begin_us, int64_t end_us) {
    const uint32_t most = *std::ranges::max_element(lane.counts);
    std::string bars;
    for (size_t i = 0; i < kColumns; ++i) {
        if (lane.counts[i] == 0) {
            continue;
        }
        const double height = kHeight * (0.25 + 0.75 * lane.counts[i] / most);
        const int64_t at =
            begin_us + (end_us - begin_us) * static_cast<int64_t>(i) / int64_t{kColumns};
        bars += fmt::format(
            "<rect x={} y={:.1f} width=1 height={:.1f}><title>{}: {}</title></rect>", i,
            kHeight - height, height, utc_time(at / 1'000'000).substr(11, 8), lane.counts[i]);
    }
    return fmt::format(
        "<div class=lane><p>{} <b>{}</b></p><svg class=\"{}\" viewBox=\"0 0 {} {}\" "
        "preserveAspectRatio=none role=img aria-label=\"{}\">{}</svg></div>\n",
        lane.label, lane.all, lane.style, kColumns, kHeight, lane.label, bars);
}

struct Curve {
    std::string label;
    std::string_view style;
    size_t member;
    bool from_start;  // what came after the first sample
};

std::string draw(const Json& history, const Curve& curve, double begin, double span) {
    double most = 1;
    double first = 0;
    std::vector<std::pair<double, double>> points;
    for (const auto& sample : history) {
        const double value = sample.at(curve.member).get<double>();
        first = points.empty() && curve.from_start ? value : first;
        points.emplace_back((sample.at(0).get<double>() - begin) / span * 1000, value - first);
        most = std::max(most, points.back().second);
    }
    std::string line;
    for (const auto& [x, y] : points) {
        line += fmt::format("{:.1f},{:.1f} ", x, 100 - 96 * y / most);
    }
    return fmt::format(
        "<div class=lane><p>{} <b>{}</b></p><svg class=\"{} curve\" viewBox=\"0 0 1000 100\" "
        "preserveAspectRatio=none role=img aria-label=\"{}\"><polyline points=\"{}\"/></svg>"
        "</div>\n",
        curve.label, format_size(static_cast<uint64_t>(points.back().second)), curve.style,
        curve.label, line);
}

}  // namespace

std::string plot_timeline(const std::vector<Json>& timeline) {
    int64_t begin = INT64_MAX;
    int64_t end = 0;
    for (const auto& event : timeline) {
        const std::string id = event.value("eventid", "");
        const bool frames = id == "ivmm.clone.forked" || id == "ivmm.evidence.exported";
        if (frames || id.starts_with("ivmm.session.")) {
            const int64_t at = microseconds_of(event.value("datetime", ""));
            begin = std::min(begin, at);
            end = std::max(end, at);
        }
    }
    if (end <= begin) {
        return {};
    }
    auto all = lanes();
    for (const auto& event : timeline) {
        const int64_t at = microseconds_of(event.value("datetime", ""));
        const auto column = static_cast<int64_t>(static_cast<double>(at - begin) /
                                                 static_cast<double>(end - begin) * kColumns);
        for (auto& lane : all) {
            // A file may have been given any time.
            if (is_of(lane, event.value("eventid", ""))) {
                ++lane.all;
                ++lane.counts[static_cast<size_t>(std::clamp<int64_t>(column, 0, kColumns - 1))];
            }
        }
    }
    std::string html;
    for (const auto& lane : all) {
        if (lane.all > 0) {
            html += draw(lane, begin, end);
        }
    }
    return html + axis(begin, end);
}

std::string plot_history(const Json& history) {
    if (history.size() < 2) {
        return {};
    }
    const double begin = history.front().at(0).get<double>();
    const double span = std::max(1.0, history.back().at(0).get<double>() - begin);
    std::string html = draw(history, {"memory of its own", "a", 1, false}, begin, span) +
                       draw(history, {"written to its disks", "c", 2, true}, begin, span);
    constexpr double kUsPerMs = 1000;
    return html + axis(static_cast<int64_t>(begin * kUsPerMs),
                       static_cast<int64_t>((begin + span) * kUsPerMs));
}

std::string plot_memory(const Json& memory) {
    const auto parts = memory.value("changed_pages_of_parts", Json::array());
    const uint64_t part_bytes = memory.value("part_bytes", uint64_t{0});
    if (parts.empty() || part_bytes == 0) {
        return {};
    }
    std::string cells;
    for (size_t i = 0; i < parts.size(); ++i) {
        const double share = parts[i].get<double>() * 4096 / static_cast<double>(part_bytes);
        if (share > 0) {
            cells += fmt::format(
                "<rect x={} y=0 width=1 height=10 opacity=\"{:.2f}\"><title>from {}: {:.1f} "
                "%</title></rect>",
                i, 0.25 + 0.75 * std::min(1.0, share), format_size(i * part_bytes), share * 100);
        }
    }
    return fmt::format(
        "<div class=lane><p>where, from 0 to {}</p><svg class=\"a map\" viewBox=\"0 0 {} 10\" "
        "preserveAspectRatio=none role=img aria-label=\"changed memory\">{}</svg></div>\n",
        format_size(memory.value("bytes", uint64_t{0})), parts.size(), cells);
}

}  // namespace ivmm::evidence
