#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vmm/watch/decider.h"
#include "vmm/watch/eve.h"

/// A line that Suricata, or somebody else, writes to the EVE socket: refused, or an alert whose
/// texts are bounded, and about which something can be decided.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace ivmm;
    using namespace ivmm::watch;
    static const net::Prefix home = *net::parse_prefix("192.0.2.0/24");
    const auto alert = parse_eve({reinterpret_cast<const char*>(data), size}, {&home, 1});
    if (!alert || !*alert) {
        return 0;
    }
    for (const auto* const text :
         {&(*alert)->signature, &(*alert)->category, &(*alert)->timestamp}) {
        if (text->size() > Alert::kMaxText) {
            std::abort();
        }
    }
    Rules rules;
    rules.rules.resize(1);
    rules.rules[0].signature = "exploit";
    Decider(rules).decide(**alert, 0);
    return 0;
}
