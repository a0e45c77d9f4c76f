#include "vmm/control/json_rpc.h"

namespace ivmm::rpc {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxIdLength = 256;

/// Whether brackets (outside of texts) are nested deeper than any message of ours.
bool too_deep(std::string_view line) {
    int depth = 0;
    bool in_text = false;
    for (size_t i = 0; i < line.size(); ++i) {
        const char c = line[i];
        if (in_text) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_text = false;
            }
        } else if (c == '"') {
            in_text = true;
        } else if (c == '[' || c == '{') {
            if (++depth > kMaxDepth) {
                return true;
            }
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return false;
}

/// The value; discarded when the line is not JSON.
Json parse(std::string_view line) {
    return Json::parse(line, nullptr, false);
}

bool is_id(const Json& value) {
    return value.is_null() || value.is_number() ||
           (value.is_string() && value.get_ref<const std::string&>().size() <= kMaxIdLength);
}

std::string dump(const Json& message) {
    return message.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Json parse_json(std::string_view line) {
    return too_deep(line) ? Json(Json::value_t::discarded) : parse(line);
}

std::variant<Request, Refusal> parse_request(std::string_view line) {
    if (too_deep(line)) {
        return Refusal{nullptr, kInvalidRequest,
                       fmt::format("nested more than {} deep", kMaxDepth)};
    }
    Json message = parse(line);
    if (message.is_discarded()) {
        return Refusal{nullptr, kParseError, "not valid JSON in UTF-8"};
    }
    if (message.is_array()) {
        return Refusal{nullptr, kInvalidRequest,
                       "batches are not supported; send one object a line"};
    }
    if (!message.is_object()) {
        return Refusal{nullptr, kInvalidRequest, "not a JSON object"};
    }
    Request request;
    Json answer_id;
    if (const auto id = message.find("id"); id != message.end()) {
        if (!is_id(*id)) {
            return Refusal{nullptr, kInvalidRequest,
                           fmt::format("id must be a number, null or a text of at most {} bytes",
                                       kMaxIdLength)};
        }
        request.id = *id;
        answer_id = *id;
    }
    const auto version = message.find("jsonrpc");
    if (version == message.end() || *version != "2.0") {
        return Refusal{answer_id, kInvalidRequest, "jsonrpc must be \"2.0\""};
    }
    const auto method = message.find("method");
    if (method == message.end() || !method->is_string()) {
        return Refusal{answer_id, kInvalidRequest, "method must be a text"};
    }
    request.method = method->get<std::string>();
    request.params = Json::object();
    if (const auto params = message.find("params"); params != message.end()) {
        if (!params->is_object()) {
            return Refusal{answer_id, kInvalidParams, "params must be an object"};
        }
        request.params = std::move(*params);
    }
    return request;
}

std::string make_request(int id, std::string_view method, const Json& params) {
    return dump({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}});
}

std::string make_notification(std::string_view method, const Json& params) {
    return dump({{"jsonrpc", "2.0"}, {"method", method}, {"params", params}});
}

std::string make_result(const Json& id, const Json& result) {
    return dump({{"jsonrpc", "2.0"}, {"id", id}, {"result", result}});
}

std::string make_error(const Json& id, ErrorCode code, std::string_view message) {
    return dump({{"jsonrpc", "2.0"},
                 {"id", id},
                 {"error", {{"code", static_cast<int>(code)}, {"message", message}}}});
}

Result<Message> parse_message(std::string_view line) {
    Json json = parse_json(line);
    if (!json.is_object()) {
        return fail("the guest's process answered with something that is not JSON-RPC");
    }
    Message message;
    message.params = Json::object();
    if (const auto method = json.find("method"); method != json.end() && method->is_string()) {
        message.method = method->get<std::string>();
        if (const auto params = json.find("params"); params != json.end() && params->is_object()) {
            message.params = std::move(*params);
        }
        return message;
    }
    if (const auto id = json.find("id"); id != json.end() && id->is_number_integer()) {
        message.id = id->get<int>();
    }
    if (const auto error = json.find("error"); error != json.end()) {
        const bool has_text =
            error->is_object() && error->contains("message") && (*error)["message"].is_string();
        message.error = has_text ? (*error)["message"].get<std::string>() : "unknown error";
    } else {
        message.result = json.value("result", Json());
    }
    return message;
}

}  // namespace ivmm::rpc
