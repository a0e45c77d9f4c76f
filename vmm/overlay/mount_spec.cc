#include "vmm/overlay/mount_spec.h"

#include <charconv>
#include <set>

namespace ivmm::overlay {
namespace {

constexpr char kEscape = '\\';

/// Splits at the separators that no backslash stands before. The backslashes stay.
std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    size_t begin = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == kEscape) {
            ++i;
        } else if (text[i] == separator) {
            parts.push_back(text.substr(begin, i - begin));
            begin = i + 1;
        }
    }
    parts.push_back(text.substr(begin));
    return parts;
}

/// The value of an option, or a part of one, without its backslashes.
Result<std::string> plain(std::string_view text, std::string_view option) {
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == kEscape && ++i == text.size()) {
            return fail_as(ErrorKind::kUsage, "option '{}' ends in a backslash", option);
        }
        result += text[i];
    }
    if (result.empty()) {
        return fail_as(ErrorKind::kUsage, "option '{}' has an empty value", option);
    }
    return result;
}

Result<void> apply(std::string_view key, std::string_view value, MountSpec& spec) {
    if (key == "lower") {
        for (const auto part : split(value, ':')) {
            IVMM_ASSIGN(auto branch, plain(part, key));
            spec.lower.push_back(std::move(branch));
        }
        return {};
    }
    if (key == "upper") {
        IVMM_ASSIGN(spec.upper, plain(value, key));
        return {};
    }
    if (key == "view") {
        IVMM_ASSIGN(spec.view, plain(value, key));
        return {};
    }
    if (key == "flatten") {
        const char* const end = value.data() + value.size();
        const auto parsed = std::from_chars(value.data(), end, spec.flatten_from);
        if (parsed.ec != std::errc() || parsed.ptr != end || spec.flatten_from == 1) {
            return fail_as(ErrorKind::kUsage,
                           "flatten={} is no number of layers; 2 or more, or 0 for never", value);
        }
        return {};
    }
    return fail_as(ErrorKind::kUsage,
                   "no option '{}'; there are lower=A:B, upper=U, view=NAME, flatten=N, ro and rw",
                   key);
}

}  // namespace

Result<MountSpec> parse_mount_spec(std::string_view text) {
    MountSpec spec;
    std::set<std::string_view> seen;
    for (const auto option : split(text, ',')) {
        if (option == "ro" || option == "rw") {
            spec.read_only = option == "ro";
            continue;
        }
        const size_t equals = option.find('=');
        const auto key = option.substr(0, equals);
        if (!seen.insert(key).second) {
            return fail_as(ErrorKind::kUsage, "option '{}' is given twice", key);
        }
        IVMM_TRY(apply(key, equals == option.npos ? "" : option.substr(equals + 1), spec));
    }
    if (spec.lower.empty() && spec.upper.empty()) {
        return fail_as(ErrorKind::kUsage, "give lower=A:B, or upper=U, or both");
    }
    if (spec.upper.empty() && seen.contains("view")) {
        return fail_as(ErrorKind::kUsage, "views are in an upper; give upper=U");
    }
    if (spec.upper.empty() && seen.contains("flatten")) {
        return fail_as(ErrorKind::kUsage, "what flatten=N is for is in an upper; give upper=U");
    }
    return spec;
}

}  // namespace ivmm::overlay
