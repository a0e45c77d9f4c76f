#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/control/json_rpc.h"

namespace ivmm {

/// How often something has taken how long. One thread.
class Histogram {
 public:
    /// Upper bounds in seconds; what takes longer is counted as well.
    static constexpr std::array kBounds = {0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
                                           0.05,    0.1,    0.2,   0.5,   1.0,   5.0,  30.0};

    void observe(double seconds);
    uint64_t count() const { return count_; }
    double sum() const { return sum_; }
    /// How many took at most kBounds[bound].
    uint64_t at_most(size_t bound) const;

 private:
    std::array<uint64_t, kBounds.size()> counts_{};  // each without those below
    uint64_t count_ = 0;
    double sum_ = 0;
};

/// What one or several processes count, as Prometheus has it: families of samples with labels.
/// Travels as the result of the control sockets' method `metrics` (docs/metrics.md). One thread.
class Metrics {
 public:
    using Labels = std::map<std::string, std::string>;

    /// A value that goes up and down. `help` is one sentence; the first one of a name counts.
    void gauge(const std::string& name, const std::string& help, double value, Labels labels = {});
    /// One that only goes up while the process lives; its name ends with "_total".
    void counter(const std::string& name, const std::string& help, double value,
                 Labels labels = {});
    /// Its name ends with "_seconds".
    void histogram(const std::string& name, const std::string& help, const Histogram& value,
                   const Labels& labels = {});

    /// Adds another process's, each with these labels, whatever the process says of them itself.
    /// A family that is of another type there is left out.
    void add(const Metrics& other, const Labels& labels);

    rpc::Json to_json() const;
    /// Errors: the process has not answered with metrics.
    static Result<Metrics> from_json(const rpc::Json& json);

    /// The text format of Prometheus, version 0.0.4. No sample is there twice.
    std::string to_text() const;

 private:
    struct Sample {
        std::string suffix;  // of the family's name
        Labels labels;
        double value = 0;
    };
    struct Family {
        std::string type;
        std::string help;
        std::vector<Sample> samples;
    };
    void add(const std::string& name, const char* type, const std::string& help, Sample sample);
    static Result<void> read_family(const rpc::Json& json, std::map<std::string, Family>& into);

    std::map<std::string, Family> families_;
};

/// What every process has to tell of itself: version, memory, processor time, descriptors.
Metrics process_metrics();

/// What of this process lies in the host's memory, in bytes.
uint64_t process_resident_bytes();

}  // namespace ivmm
