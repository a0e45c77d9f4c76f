#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/union/lookup.h"

namespace ivmm::storage {

/// What a directory had in it when it was opened or rewound: a position stays valid whatever
/// changes meanwhile. Memory: the names, and 48 bytes each. One thread at a time.
class Listing {
 public:
    struct Item {
        std::string name;
        uint64_t inode = 0;
        unsigned char type = 0;  ///< DT_*
    };
    /// One directory of a merged one.
    struct Part {
        UniqueFd directory;
        Layer* layer = nullptr;
        bool impure = false;  ///< as Marks::is_impure()
    };

    /// Opens the parts of a directory.
    static PosixResult<std::vector<Part>> open_parts(const std::vector<Place>& places);
    /// `parts`: topmost first. Nothing is read yet.
    explicit Listing(std::vector<Part> parts) : parts_(std::move(parts)) {}

    /// Whether the parts are these.
    bool is_of(const std::vector<Place>& places) const;
    void set_parts(std::vector<Part> parts) { parts_ = std::move(parts); }

    /// Reads the directories again. Without "." and "..".
    PosixResult<void> rewind();
    const std::vector<Item>& items() const { return items_; }

 private:
    std::vector<Part> parts_;
    std::vector<Item> items_;
};

/// Calls `visit` for what is in one directory, as its file system gives it, without "." and "..".
PosixResult<void> for_each_entry(
    int directory, const std::function<PosixResult<void>(const Listing::Item&)>& visit);

}  // namespace ivmm::storage
