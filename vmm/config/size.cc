#include "vmm/config/size.h"

#include <charconv>

#include "base/checked.h"

namespace ivmm {
namespace {

constexpr std::string_view kUnits = "KMGT";

Unexpected not_a_size(std::string_view text) {
    return fail_as(ErrorKind::kUsage, "'{}' is not a size; write a number of bytes, or 256M, 2G",
                   text);
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
    uint64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc::result_out_of_range) {
        return fail_as(ErrorKind::kUsage, "the size '{}' is too large", text);
    }
    if (error != std::errc()) {
        return not_a_size(text);
    }
    if (rest == end) {
        return number;
    }
    const char unit = *rest >= 'a' && *rest <= 'z' ? static_cast<char>(*rest - 'a' + 'A') : *rest;
    const size_t power = kUnits.find(unit);
    if (power == std::string_view::npos || rest + 1 != end) {
        return not_a_size(text);
    }
    const auto bytes = checked_mul(number, uint64_t{1} << (10 * (power + 1)));
    if (!bytes) {
        return fail_as(ErrorKind::kUsage, "the size '{}' is too large", text);
    }
    return *bytes;
}

std::string format_size(uint64_t bytes) {
    for (size_t power = kUnits.size(); power > 0; --power) {
        const uint64_t unit = uint64_t{1} << (10 * power);
        if (bytes >= unit) {
            if (bytes % unit == 0) {
                return fmt::format("{}{}", bytes / unit, kUnits[power - 1]);
            }
            return fmt::format("{:.1f}{}", static_cast<double>(bytes) / static_cast<double>(unit),
                               kUnits[power - 1]);
        }
    }
    return fmt::format("{}", bytes);
}

}  // namespace ivmm
