#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// The right to make or to remove what is a clone's: its folder, locked by this object. Ends with
/// the process, in whatever way. One thread.
class CloneClaim {
 public:
    /// Creates the folder if need be. Errors: somebody else has the claim, the folder cannot be
    /// used (kHost).
    static Result<CloneClaim> take(const std::string& clone);

    /// The clone's folder: absolute, without links.
    const std::string& folder() const { return folder_; }

 private:
    CloneClaim(std::string folder, UniqueFd lock)
        : folder_(std::move(folder)), lock_(std::move(lock)) {}
    std::string folder_;
    UniqueFd lock_;
};

}  // namespace ivmm
