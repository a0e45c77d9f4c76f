#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vmm/watch/rules.h"

/// A file of rules: refused with a reason, or one that does something.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view toml(reinterpret_cast<const char*>(data), size);
    if (toml.find("address_files") != std::string_view::npos) {
        return 0;  // not any file of this machine
    }
    // At some characters beyond ASCII, toml++ 3.3 runs into what it believes to be unreachable.
    if (std::any_of(data, data + size, [](uint8_t byte) { return byte >= 0x80; })) {
        return 0;
    }
    const auto rules = ivmm::watch::parse_rules(toml, "rules.toml");
    if (rules ? rules->rules.empty() : rules.error().message.empty()) {
        std::abort();
    }
    return 0;
}
