#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/config/guest_config.h"

/// Guest files: TOML, as docs/guest-file.md describes them.
namespace ivmm {

/// Reads a guest file. Without a `name`, the guest is called like the file, if that is a good
/// name; relative paths become relative to the file's folder. Errors are kUsage and name the file
/// and, where there is one, the line. The values are not checked: see validate().
Result<GuestConfig> load_guest_file(const std::string& path);

/// As load_guest_file(), with the contents of the file given.
Result<GuestConfig> parse_guest_file(std::string_view text, const std::string& path);

}  // namespace ivmm
