#include "storage/layer/record.h"

#include <xxhash.h>

namespace ivmm::storage {

namespace {

std::string checksum_line(std::string_view line) {
    return fmt::format("{:016x}\n", XXH3_64bits(line.data(), line.size()));
}

}  // namespace

std::string encode_record(std::string_view format, uint32_t version, nlohmann::json fields) {
    fields["format"] = format;
    fields["version"] = version;
    auto text = fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    text += checksum_line(text);
    return text;
}

Result<nlohmann::json> decode_record(std::string_view text, std::string_view format,
                                     uint32_t version) {
    const size_t line_end = text.find('\n');
    if (line_end == std::string_view::npos) {
        return fail("{}", text.empty() ? "it is empty" : "it is cut off");
    }
    const auto line = text.substr(0, line_end + 1);
    if (text.substr(line_end + 1) != checksum_line(line)) {
        return fail("its checksum does not match");
    }
    auto record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object()) {
        return fail("it is not a JSON object");
    }
    IVMM_ASSIGN(const auto found, text_field(record, "format"));
    if (found != format) {
        return fail("its format is \"{}\", not \"{}\"", found, format);
    }
    IVMM_ASSIGN(const auto number, number_field(record, "version", 0, UINT32_MAX));
    if (number > version) {
        return fail_as(ErrorKind::kHost, "format version {}; this ivmm reads version {}", number,
                       version);
    }
    if (number != version) {
        return fail("there is no format version {}", number);
    }
    return record;
}

Result<uint64_t> number_field(const nlohmann::json& record, const char* name, uint64_t min,
                              uint64_t max) {
    const auto field = record.find(name);
    if (field == record.end() || !field->is_number_unsigned()) {
        return fail("\"{}\" is missing or not a number", name);
    }
    const auto number = field->get<uint64_t>();
    if (number < min || number > max) {
        return fail("\"{}\" is {}, which is out of range", name, number);
    }
    return number;
}

Result<std::string> text_field(const nlohmann::json& record, const char* name) {
    const auto field = record.find(name);
    if (field == record.end() || !field->is_string()) {
        return fail("\"{}\" is missing or not a text", name);
    }
    return field->get<std::string>();
}

}  // namespace ivmm::storage
