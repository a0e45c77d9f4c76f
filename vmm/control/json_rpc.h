#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"

/// JSON-RPC 2.0 messages, one object a line. Parsing is safe for any bytes: invalid UTF-8, wrong
/// JSON and deep nesting are refused with the error that the specification names.
namespace ivmm::rpc {

using Json = nlohmann::json;

/// Section 5.1 of the specification; kFailed is ours.
enum ErrorCode : int {
    kParseError = -32700,
    kInvalidRequest = -32600,
    kMethodNotFound = -32601,
    kInvalidParams = -32602,
    kFailed = -32000,  ///< the method was understood and did not succeed
};

/// Any JSON value; discarded if the line is not JSON in UTF-8 or is nested too deep.
Json parse_json(std::string_view line);

struct Request {
    std::optional<Json> id;  ///< none: a notification, which gets no answer
    std::string method;
    Json params;  ///< an object, empty if there was none
};

/// Why a line is not a request, and the id to answer with (null where there is none).
struct Refusal {
    Json id;
    ErrorCode code = kInvalidRequest;
    std::string message;
};

std::variant<Request, Refusal> parse_request(std::string_view line);

// Each makes one line, without its end. Text that is not UTF-8 is shown with replacements.
std::string make_request(int id, std::string_view method, const Json& params);
std::string make_notification(std::string_view method, const Json& params);
std::string make_result(const Json& id, const Json& result);
std::string make_error(const Json& id, ErrorCode code, std::string_view message);

/// What a server has sent.
struct Message {
    std::optional<int> id;             ///< of the request that this answers
    Json result;                       ///< an answer's result
    std::optional<std::string> error;  ///< an answer's error message
    std::string method;                ///< a notification's; empty for an answer
    Json params;                       ///< a notification's; always an object
};
Result<Message> parse_message(std::string_view line);

}  // namespace ivmm::rpc
