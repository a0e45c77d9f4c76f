#include "vmm/watch/rules.h"

#include <algorithm>

#include "base/ascii.h"

namespace ivmm::watch {
namespace {

bool contains(const std::string& text, const std::string& part) {
    return std::search(text.begin(), text.end(), part.begin(), part.end(),
                       [](char a, char b) { return lower(a) == lower(b); }) != text.end();
}

}  // namespace

const char* to_string(Action action) {
    switch (action) {
        case Action::kLog:
            return "log";
        case Action::kDivert:
            return "divert";
        case Action::kFork:
            return "fork";
    }
    return "";
}

bool Rule::fits(const Alert& alert) const {
    const auto has_id = [&](const Range& range) {
        return alert.signature_id >= range.first && alert.signature_id <= range.second;
    };
    return (sources.empty() || std::ranges::count(sources, alert.source) > 0) &&
           (signature_ids.empty() || std::ranges::any_of(signature_ids, has_id)) &&
           (signature.empty() || contains(alert.signature, signature)) &&
           (category.empty() || contains(alert.category, category)) &&
           (severity == 0 || (alert.severity > 0 && alert.severity <= severity));
}

}  // namespace ivmm::watch
