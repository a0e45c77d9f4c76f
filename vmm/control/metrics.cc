#include "vmm/control/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <set>

#include "vmm/control/version.h"

namespace ivmm {
namespace {

using rpc::Json;

constexpr const char* kGauge = "gauge";
constexpr const char* kCounter = "counter";
constexpr const char* kHistogram = "histogram";

std::string escaped(std::string_view text, bool quotes) {
    std::string out;
    for (const char c : text) {
        if (c == '\\') {
            out += "\\\\";
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '"' && quotes) {
            out += "\\\"";
        } else {
            out += c;
        }
    }
    return out;
}

bool is_name(std::string_view text) {
    const auto fits = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_';
    };
    return !text.empty() && (text[0] < '0' || text[0] > '9') && std::ranges::all_of(text, fits);
}

std::string labels_text(const Metrics::Labels& labels) {
    std::string text;
    for (const auto& [key, value] : labels) {
        text += fmt::format("{}{}=\"{}\"", text.empty() ? '{' : ',', key, escaped(value, true));
    }
    return text.empty() ? text : text + "}";
}

uint64_t open_descriptors() {
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc/self/fd"), ::closedir);
    uint64_t entries = 0;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody else reads this stream
    while (folder && ::readdir(folder.get()) != nullptr) {
        ++entries;
    }
    constexpr uint64_t kOthers = 3;  // ".", ".." and the folder's own
    return entries - std::min(entries, kOthers);
}

double seconds(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

}  // namespace

void Histogram::observe(double seconds) {
    ++count_;
    sum_ += seconds;
    const auto bound = std::ranges::lower_bound(kBounds, seconds);
    if (bound != kBounds.end()) {
        ++counts_.at(static_cast<size_t>(bound - kBounds.begin()));
    }
}

uint64_t Histogram::at_most(size_t bound) const {
    uint64_t sum = 0;
    for (size_t i = 0; i <= bound; ++i) {
        sum += counts_.at(i);
    }
    return sum;
}

void Metrics::add(const std::string& name, const char* type, const std::string& help,
                  Sample sample) {
    auto& family = families_.try_emplace(name, Family{type, help, {}}).first->second;
    family.samples.push_back(std::move(sample));
}

void Metrics::gauge(const std::string& name, const std::string& help, double value, Labels labels) {
    add(name, kGauge, help, {"", std::move(labels), value});
}

void Metrics::counter(const std::string& name, const std::string& help, double value,
                      Labels labels) {
    add(name, kCounter, help, {"", std::move(labels), value});
}

void Metrics::histogram(const std::string& name, const std::string& help, const Histogram& value,
                        const Labels& labels) {
    const auto bucket = [&](const std::string& bound, uint64_t count) {
        Labels with_bound = labels;
        with_bound["le"] = bound;
        add(name, kHistogram, help, {"_bucket", std::move(with_bound), static_cast<double>(count)});
    };
    for (size_t i = 0; i < Histogram::kBounds.size(); ++i) {
        bucket(fmt::format("{}", Histogram::kBounds.at(i)), value.at_most(i));
    }
    bucket("+Inf", value.count());
    add(name, kHistogram, help, {"_sum", labels, value.sum()});
    add(name, kHistogram, help, {"_count", labels, static_cast<double>(value.count())});
}

void Metrics::add(const Metrics& other, const Labels& labels) {
    for (const auto& [name, family] : other.families_) {
        auto& own = families_.try_emplace(name, Family{family.type, family.help, {}}).first->second;
        if (own.type != family.type) {
            continue;
        }
        for (Sample sample : family.samples) {
            for (const auto& [key, value] : labels) {
                sample.labels[key] = value;
            }
            own.samples.push_back(std::move(sample));
        }
    }
}

Json Metrics::to_json() const {
    Json list = Json::array();
    for (const auto& [name, family] : families_) {
        Json samples = Json::array();
        for (const auto& sample : family.samples) {
            samples.push_back({{"name", name + sample.suffix},
                               {"labels", sample.labels},
                               {"value", sample.value}});
        }
        list.push_back({{"name", name},
                        {"type", family.type},
                        {"help", family.help},
                        {"samples", std::move(samples)}});
    }
    return {{"metrics", std::move(list)}};
}

Result<void> Metrics::read_family(const Json& json, std::map<std::string, Family>& into) {
    const auto text = [](const Json& object, const char* key) {
        const auto found = object.find(key);
        return found != object.end() && found->is_string() ? found->get<std::string>()
                                                           : std::string();
    };
    const auto samples = json.is_object() ? json.find("samples") : json.end();
    if (samples == json.end() || !samples->is_array()) {
        return fail("a metric without samples");
    }
    const std::string name = text(json, "name");
    Family family{text(json, "type"), text(json, "help"), {}};
    const bool is_histogram = family.type == kHistogram;
    if (!is_name(name) || !(is_histogram || family.type == kGauge || family.type == kCounter)) {
        return fail("'{}' is no metric", name);
    }
    for (const auto& sample : *samples) {
        const std::string full = sample.is_object() ? text(sample, "name") : "";
        const auto value = full.empty() ? sample.end() : sample.find("value");
        const auto labels = full.empty() ? sample.end() : sample.find("labels");
        if (!full.starts_with(name) || value == sample.end() || !value->is_number() ||
            labels == sample.end() || !labels->is_object()) {
            return fail("a sample of '{}' is none", name);
        }
        Sample read{full.substr(name.size()), {}, value->get<double>()};
        if (is_histogram
                ? read.suffix != "_bucket" && read.suffix != "_sum" && read.suffix != "_count"
                : !read.suffix.empty()) {
            return fail("'{}' is no sample of '{}'", full, name);
        }
        for (const auto& [key, label] : labels->items()) {
            if (!is_name(key) || !label.is_string()) {
                return fail("a label of '{}' is none", name);
            }
            read.labels[key] = label.get<std::string>();
        }
        family.samples.push_back(std::move(read));
    }
    into.emplace(name, std::move(family));
    return {};
}

Result<Metrics> Metrics::from_json(const Json& json) {
    Metrics metrics;
    const auto list = json.is_object() ? json.find("metrics") : json.end();
    if (list == json.end() || !list->is_array()) {
        return fail("no metrics");
    }
    for (const auto& family : *list) {
        IVMM_TRY(read_family(family, metrics.families_));
    }
    return metrics;
}

std::string Metrics::to_text() const {
    std::string text;
    for (const auto& [name, family] : families_) {
        text += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(family.help, false), name,
                            family.type);
        std::set<std::string> told;
        for (const auto& sample : family.samples) {
            std::string line = name + sample.suffix + labels_text(sample.labels);
            if (told.insert(line).second) {
                text += fmt::format("{} {}\n", line, sample.value);
            }
        }
    }
    return text;
}

uint64_t process_resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    uint64_t size = 0;
    uint64_t resident = 0;
    statm >> size >> resident;
    return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

Metrics process_metrics() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    Metrics metrics;
    metrics.gauge("ivmm_build_info", "Always 1; the label is the version.", 1,
                  {{"version", kVersion}});
    metrics.gauge("ivmm_process_resident_memory_bytes",
                  "What of the process, and of a guest's memory, lies in the host's memory.",
                  static_cast<double>(process_resident_bytes()));
    metrics.counter("ivmm_process_cpu_seconds_total",
                    "Processor time that the process and its guest have used.",
                    seconds(used.ru_utime) + seconds(used.ru_stime));
    metrics.gauge("ivmm_process_open_fds", "Descriptors that the process has open.",
                  static_cast<double>(open_descriptors()));
    return metrics;
}

}  // namespace ivmm
