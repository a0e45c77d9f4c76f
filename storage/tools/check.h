#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace ivmm::storage {

/// Something that a check of a store has found.
struct CheckFinding {
    enum class Severity {
        kNote,      ///< nothing is wrong; said so that nobody wonders
        kLeftover,  ///< of a crash: it takes space, and that is all
        kDamage,    ///< something is lost or cannot be used: says what, and what still works
    };
    Severity severity = Severity::kNote;
    std::string path;  ///< from the store's directory
    std::string what;
    bool mended = false;
};

struct CheckReport {
    std::vector<CheckFinding> findings;
    uint64_t layers = 0;       ///< looked at
    uint64_t objects = 0;      ///< in them, of any type
    uint64_t block_files = 0;  ///< of those: parts of block files

    /// Whether nothing is left to be mended.
    bool clean() const;
};

struct CheckOptions {
    /// Mend what can be mended. Otherwise the store is only read.
    bool repair = false;
    /// Called now and then, with the part of the work that is done, 0 to 1.
    std::function<void(double)> progress = [](double) {};
};

/// Checks a store: its own files, and for each layer the marks, block maps and what they refer to.
/// The contents of files are not read. Nothing that users can see is changed by mending.
///
/// Others may use the store meanwhile. Layers that belong to a view which is served are only read,
/// and what is unfinished in them is not told from what is in use. Errors: it is no store, or
/// cannot be read at all.
Result<CheckReport> check_store(const std::string& directory, const CheckOptions& options);

}  // namespace ivmm::storage
