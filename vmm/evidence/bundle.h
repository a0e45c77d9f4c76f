#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/control/json_rpc.h"

namespace ivmm::evidence {

/// A folder of files that say together what a clone was (docs/evidence.md). Until finish() it has
/// another name, and goes with this object; so a folder of the name that was asked for is whole.
/// Several threads may add() to it at the same time; everything else on one.
class Bundle {
 public:
    /// Errors: there is something of the name; the folder cannot be made.
    static Result<Bundle> begin(const std::string& folder);
    Bundle(Bundle&& other) noexcept = default;
    Bundle& operator=(Bundle&& other) = delete;
    ~Bundle();

    /// Where a file of the bundle is to be written, "disk0.qcow2" or "captures/trap.0001.pcapng",
    /// and what it is.
    Result<std::string> add(const std::string& name, const std::string& what);
    Result<void> add_text(const std::string& name, const std::string& what,
                          const std::string& text);
    /// Something that belongs into it, why it is not there.
    void add_missing(const std::string& what);
    const std::vector<std::string>& missing() const { return missing_; }
    /// A folder for whatever takes part in the making, and is no part of the bundle.
    std::string scratch() const { return partial_ + "/scratch"; }

    /// Writes manifest.json, with `about`, and SHA256SUMS, brings everything to the disk, and gives
    /// the folder its name. Once.
    Result<void> finish(rpc::Json about);

 private:
    Bundle(std::string folder, std::string partial)
        : folder_(std::move(folder)), partial_(std::move(partial)) {}
    Result<rpc::Json> describe_files() const;

    std::string folder_;
    std::string partial_;  // empty: it was finished, or moved from
    std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();  // guards the next two
    std::map<std::string, std::string> files_;
    std::vector<std::string> missing_;
};

}  // namespace ivmm::evidence
