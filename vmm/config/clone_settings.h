#pragma once

#include <cstdint>
#include <string>

namespace ivmm {

/// A program that changes a clone before its first instruction (docs/forks.md).
struct CloneHook {
    static constexpr uint32_t kMostSeconds = 60;

    std::string program;      ///< an absolute path; empty: there is none
    uint32_t timeout_s = 10;  ///< then it is killed, and the clone does not start

    static constexpr uint32_t kVersion = 1;
    bool operator==(const CloneHook&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.program, self.timeout_s);
    }
};

/// What a clone may use. 0: as much as it likes.
struct CloneLimits {
    static constexpr uint32_t kMostSeconds = 366 * 24 * 3600;

    /// Since its start; then it is stopped.
    uint32_t lifetime_s = 0;
    /// Of its process, besides the shared image; then it is paused, once.
    uint64_t memory_bytes = 0;

    static constexpr uint32_t kVersion = 1;
    bool operator==(const CloneLimits&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.lifetime_s, self.memory_bytes);
    }
};

/// What is said of all clones of a guest.
struct CloneSettings {
    CloneHook hook;
    CloneLimits limits;
    uint32_t at_most = 16;  ///< run at the same time on the guest's host
    bool recycle = false;   ///< the oldest is stopped when there would be more; else a fork fails

    bool operator==(const CloneSettings&) const = default;
};

}  // namespace ivmm
