#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/control/json_rpc.h"

/// The parameters of a method, which anybody may have written. All errors are kUsage.
namespace ivmm::rpc {

/// Refuses parameters that the method does not know.
Result<void> check_parameters(const Json& params, std::initializer_list<std::string_view> known);

/// A text that must be there and not be empty.
Result<std::string> text_parameter(const Json& params, const char* name);
/// What `otherwise` says when the parameter is not there.
Result<bool> flag_parameter(const Json& params, const char* name, bool otherwise);
/// A number between the bounds, or `otherwise` when the parameter is not there.
Result<uint32_t> number_parameter(const Json& params, const char* name, uint32_t least,
                                  uint32_t most, uint32_t otherwise);

}  // namespace ivmm::rpc
