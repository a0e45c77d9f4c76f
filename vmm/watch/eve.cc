#include "vmm/watch/eve.h"

#include <utility>

#include "vmm/control/json_rpc.h"

namespace ivmm::watch {
namespace {

using rpc::Json;

/// An object's member; null if it is not there. Errors: it is no object.
Result<const Json*> object_in(const Json& parent, const char* name) {
    const auto found = parent.find(name);
    if (found == parent.end()) {
        return static_cast<const Json*>(nullptr);
    }
    if (!found->is_object()) {
        return fail("{} is not an object", name);
    }
    return &*found;
}

/// Empty if it is not there.
Result<std::string> text_in(const Json& parent, const char* name) {
    const auto found = parent.find(name);
    if (found == parent.end() || found->is_null()) {
        return std::string();
    }
    if (!found->is_string()) {
        return fail("{} is not a text", name);
    }
    return found->get_ref<const std::string&>().substr(0, Alert::kMaxText);
}

/// 0 if it is not there.
Result<uint64_t> number_in(const Json& parent, const char* name, uint64_t most) {
    const auto found = parent.find(name);
    if (found == parent.end()) {
        return uint64_t{0};
    }
    if (!found->is_number_unsigned() || found->get<uint64_t>() > most) {
        return fail("{} is not a number up to {}", name, most);
    }
    return found->get<uint64_t>();
}

/// Errors: there is no such address.
Result<End> end_in(const Json& parent, const char* address, const char* port) {
    IVMM_ASSIGN(const auto text, text_in(parent, address));
    IVMM_ASSIGN(const auto number, number_in(parent, port, UINT16_MAX));
    IVMM_ASSIGN(const auto parsed, net::parse_ip(text));
    return End{parsed, static_cast<uint16_t>(number)};
}

struct Ends {
    End attacker;
    End victim;
};

Result<Ends> ends_of(const Json& event, const Json& alert) {
    IVMM_ASSIGN(auto source, end_in(event, "src_ip", "src_port"));
    IVMM_ASSIGN(auto destination, end_in(event, "dest_ip", "dest_port"));
    IVMM_ASSIGN(const Json* const attacker, object_in(alert, "source"));
    if (attacker != nullptr) {
        IVMM_ASSIGN(const auto end, end_in(*attacker, "ip", "port"));
        return Ends{end, end.address == source.address ? destination : source};
    }
    IVMM_ASSIGN(const Json* const flow, object_in(event, "flow"));
    if (flow != nullptr && flow->contains("src_ip")) {
        IVMM_ASSIGN(const auto client, end_in(*flow, "src_ip", "src_port"));
        IVMM_ASSIGN(const auto server, end_in(*flow, "dest_ip", "dest_port"));
        return Ends{client, server};
    }
    IVMM_ASSIGN(const auto direction, text_in(event, "direction"));
    if (direction == "to_client") {
        std::swap(source, destination);
    }
    return Ends{source, destination};
}

}  // namespace

Result<std::optional<Alert>> parse_eve(std::string_view line, std::span<const net::Prefix> home) {
    if (line.size() > kMaxEveLine) {
        return fail("longer than {} bytes", kMaxEveLine);
    }
    const Json event = rpc::parse_json(line);
    if (!event.is_object()) {
        return fail("not a JSON object in UTF-8");
    }
    IVMM_ASSIGN(const auto type, text_in(event, "event_type"));
    if (type.empty()) {
        return fail("no event_type");
    }
    if (type != "alert") {
        return std::optional<Alert>();
    }
    IVMM_ASSIGN(const Json* const details, object_in(event, "alert"));
    if (details == nullptr || !details->contains("signature_id")) {
        return fail("no alert with a signature_id");
    }
    Alert alert;
    alert.source = "eve";
    IVMM_ASSIGN(auto ends, ends_of(event, *details));
    if (net::any_contains(home, ends.attacker.address)) {
        std::swap(ends.attacker, ends.victim);
    }
    alert.attacker = ends.attacker;
    alert.victim = ends.victim;
    IVMM_ASSIGN(alert.flow_id, number_in(event, "flow_id", UINT64_MAX));
    IVMM_ASSIGN(alert.timestamp, text_in(event, "timestamp"));
    IVMM_ASSIGN(alert.signature_id, number_in(*details, "signature_id", UINT32_MAX));
    IVMM_ASSIGN(alert.signature, text_in(*details, "signature"));
    IVMM_ASSIGN(alert.category, text_in(*details, "category"));
    IVMM_ASSIGN(const auto severity, number_in(*details, "severity", UINT8_MAX));
    alert.severity = static_cast<uint32_t>(severity);
    return std::optional(std::move(alert));
}

}  // namespace ivmm::watch
