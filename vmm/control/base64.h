#pragma once

#include <optional>
#include <string>
#include <string_view>

/// RFC 4648, section 4: how raw bytes travel in JSON.
namespace ivmm {

std::string encode_base64(std::string_view bytes);
/// Nothing when the text is not base64 with its padding.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace ivmm
