#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

/// The small text files of a store: one line of JSON, an object that says its "format" and
/// "version", then a line with the XXH3-64 of the first. Errors say what is wrong with the text;
/// the caller names the file. A newer version is an error of kind kHost, damage of kind kFailed.
namespace ivmm::storage {

/// Bytes; a longer file is no record.
constexpr size_t kMaxRecordSize = size_t{1} << 20;

/// `fields` must not hold "format" and "version". Text that is not UTF-8 gets replaced.
std::string encode_record(std::string_view format, uint32_t version, nlohmann::json fields);
Result<nlohmann::json> decode_record(std::string_view text, std::string_view format,
                                     uint32_t version);

/// A whole number in [min, max].
Result<uint64_t> number_field(const nlohmann::json& record, const char* name, uint64_t min,
                              uint64_t max);
Result<std::string> text_field(const nlohmann::json& record, const char* name);

}  // namespace ivmm::storage
