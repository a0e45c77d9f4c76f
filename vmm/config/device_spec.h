#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "vmm/config/guest_config.h"

/// The short forms of devices on the command line. All errors are kUsage.
namespace ivmm {

/// "PATH[,ro][,serial=S]". A path with a comma needs a guest file.
Result<DiskConfig> parse_disk_spec(std::string_view spec);

/// "tap=NAME[,mac=M][,host=ADDRESS/PREFIX][,existing]".
Result<NetConfig> parse_net_spec(std::string_view spec);

/// Six hexadecimal bytes with colons between them.
Result<MacAddress> parse_mac(std::string_view text);
std::string format_mac(const MacAddress& mac);

}  // namespace ivmm
