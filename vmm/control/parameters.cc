#include "vmm/control/parameters.h"

#include <algorithm>

namespace ivmm::rpc {

Result<void> check_parameters(const Json& params, std::initializer_list<std::string_view> known) {
    for (const auto& [key, value] : params.items()) {
        if (std::find(known.begin(), known.end(), key) == known.end()) {
            return fail_as(ErrorKind::kUsage, "unknown parameter '{}'", key);
        }
    }
    return {};
}

Result<std::string> text_parameter(const Json& params, const char* name) {
    const auto found = params.find(name);
    if (found == params.end() || !found->is_string() ||
        found->get_ref<const std::string&>().empty()) {
        return fail_as(ErrorKind::kUsage, "{} must be a text", name);
    }
    return found->get<std::string>();
}

Result<bool> flag_parameter(const Json& params, const char* name, bool otherwise) {
    const auto found = params.find(name);
    if (found == params.end()) {
        return otherwise;
    }
    if (!found->is_boolean()) {
        return fail_as(ErrorKind::kUsage, "{} must be true or false", name);
    }
    return found->get<bool>();
}

Result<uint32_t> number_parameter(const Json& params, const char* name, uint32_t least,
                                  uint32_t most, uint32_t otherwise) {
    const auto found = params.find(name);
    if (found == params.end()) {
        return otherwise;
    }
    if (!found->is_number_unsigned() || found->get<uint64_t>() < least ||
        found->get<uint64_t>() > most) {
        return fail_as(ErrorKind::kUsage, "{} must be a number from {} to {}", name, least, most);
    }
    return found->get<uint32_t>();
}

}  // namespace ivmm::rpc
