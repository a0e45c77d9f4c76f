#include "vmm/config/device_spec.h"

#include <charconv>
#include <vector>

namespace ivmm {
namespace {

constexpr const char* kNetForms =
    "tap=NAME[,mac=M][,host=ADDRESS/PREFIX][,existing] or "
    "switch=NAME[,port=P][,mac=M][,tap=UPLINK[,host=ADDRESS/PREFIX][,existing]]";

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (true) {
        const size_t at = text.find(separator);
        parts.push_back(text.substr(0, at));
        if (at == std::string_view::npos) {
            return parts;
        }
        text.remove_prefix(at + 1);
    }
}

/// The value of a "key=value" part, if the part is of that key.
std::optional<std::string_view> value_of(std::string_view part, std::string_view key) {
    if (part.size() > key.size() && part.starts_with(key) && part[key.size()] == '=') {
        return part.substr(key.size() + 1);
    }
    return std::nullopt;
}

}  // namespace

Result<DiskConfig> parse_disk_spec(std::string_view spec) {
    const auto parts = split(spec, ',');
    DiskConfig disk;
    disk.path = parts.front();
    if (disk.path.empty()) {
        return fail_as(ErrorKind::kUsage, "disk '{}': no path; write PATH[,ro][,serial=S]", spec);
    }
    for (size_t i = 1; i < parts.size(); ++i) {
        if (parts[i] == "ro") {
            disk.read_only = true;
        } else if (const auto serial = value_of(parts[i], "serial")) {
            disk.serial = *serial;
        } else {
            return fail_as(ErrorKind::kUsage,
                           "disk '{}': unknown option '{}'; write PATH[,ro][,serial=S]", spec,
                           parts[i]);
        }
    }
    return disk;
}

Result<NetConfig> parse_net_spec(std::string_view spec) {
    NetConfig net;
    for (const auto part : split(spec, ',')) {
        if (part == "existing") {
            net.existing = true;
        } else if (const auto tap = value_of(part, "tap")) {
            net.tap = *tap;
        } else if (const auto mac = value_of(part, "mac")) {
            IVMM_ASSIGN(net.mac, parse_mac(*mac));
        } else if (const auto host = value_of(part, "host")) {
            net.host_address = *host;
        } else if (const auto name = value_of(part, "switch")) {
            net.switch_name = *name;
        } else if (const auto port = value_of(part, "port")) {
            net.port = *port;
        } else {
            return fail_as(ErrorKind::kUsage, "net '{}': unknown option '{}'; write {}", spec, part,
                           kNetForms);
        }
    }
    if (!net.has_cable()) {
        return fail_as(ErrorKind::kUsage, "net '{}': no TAP device and no switch; write {}", spec,
                       kNetForms);
    }
    return net;
}

std::string describe_cable(const NetConfig& net) {
    if (!net.has_cable()) {
        return "no cable";
    }
    return net.switch_name.empty() ? "TAP " + net.tap
                                   : fmt::format("port {} of switch {}", net.port, net.switch_name);
}

std::string default_port(const std::string& guest, size_t index) {
    return index == 0 ? guest : fmt::format("{}.{}", guest, index);
}

Result<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac{};
    const auto parts = split(text, ':');
    bool good = parts.size() == mac.size();
    for (size_t i = 0; good && i < mac.size(); ++i) {
        const char* const end = parts[i].data() + parts[i].size();
        const auto [rest, error] = std::from_chars(parts[i].data(), end, mac[i], 16);
        good = parts[i].size() == 2 && error == std::errc() && rest == end;
    }
    if (!good) {
        return fail_as(ErrorKind::kUsage,
                       "'{}' is not a MAC address; write six bytes such as 02:00:00:00:00:01",
                       text);
    }
    return mac;
}

std::string format_mac(const MacAddress& mac) {
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                       mac[4], mac[5]);
}

}  // namespace ivmm
