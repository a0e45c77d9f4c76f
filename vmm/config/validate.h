#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "vmm/config/guest_config.h"

namespace ivmm {

/// No guest is smaller than this.
inline constexpr uint64_t kMinMemory = uint64_t{16} << 20;
inline constexpr uint32_t kMaxCpus = 8;
/// Of one guest, at the same time.
inline constexpr uint32_t kMostClones = 1024;

/// A letter or digit, then at most 63 of [A-Za-z0-9._-]: safe as a part of a file's name.
bool is_guest_name(std::string_view name);
/// is_guest_name() with the reason as a kUsage error.
Result<void> check_guest_name(std::string_view name);

/// Values in range, the hook's program there. Every error is kUsage.
Result<void> check_clone_life(const CloneHook& hook, const CloneLimits& limits);
Result<void> check_clone_settings(const CloneSettings& settings);

/// All that can be said about a configuration without KVM: values in range, files there and of
/// the right kind, nothing given twice. Every error is kUsage and names the thing, the reason and
/// the way out. The machine checks again when it opens what is named here.
Result<void> validate(const GuestConfig& config);
/// The same for a guest that does not boot but goes on from a saved state: it needs no kernel any
/// more, and its network devices may be without a cable.
Result<void> validate_saved(const GuestConfig& config);

}  // namespace ivmm
