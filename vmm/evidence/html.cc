#include "vmm/evidence/html.h"

#include "vmm/control/json_rpc.h"

namespace ivmm::evidence {
namespace {

/// With U+FFFD for what is not UTF-8.
std::string as_utf8(std::string_view text) {
    const rpc::Json quoted = std::string(text);
    return rpc::Json::parse(quoted.dump(-1, ' ', false, rpc::Json::error_handler_t::replace))
        .get<std::string>();
}

}  // namespace

std::string escape_html(std::string_view text) {
    std::string out;
    for (const char c : as_utf8(text)) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            case '\'':
                out += "&#39;";
                break;
            case '\n':
            case '\t':
                out += c;
                break;
            default:
                if (const auto byte = static_cast<unsigned char>(c); byte < ' ' || byte == 0x7f) {
                    out += "\xef\xbf\xbd";  // U+FFFD
                } else {
                    out += c;
                }
        }
    }
    return out;
}

}  // namespace ivmm::evidence
