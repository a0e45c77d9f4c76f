#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/config/guest_config.h"

/// The short forms of devices on the command line. All errors are kUsage.
namespace ivmm {

/// "PATH[,ro][,serial=S]". A path with a comma needs a guest file.
Result<DiskConfig> parse_disk_spec(std::string_view spec);

/// "tap=NAME[,mac=M][,host=ADDRESS/PREFIX][,existing]" or "switch=NAME[,port=P][,mac=M]".
Result<NetConfig> parse_net_spec(std::string_view spec);
/// What it is connected to, for people.
std::string describe_cable(const NetConfig& net);
/// The name of a switch's port for a network device of a guest.
std::string default_port(const std::string& guest, size_t index);

/// Six hexadecimal bytes with colons between them.
Result<MacAddress> parse_mac(std::string_view text);
std::string format_mac(const MacAddress& mac);

}  // namespace ivmm
