#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "vmm/watch/alert.h"

namespace ivmm::watch {

/// Longer lines are nobody's.
inline constexpr size_t kMaxEveLine = size_t{64} << 10;

/// Reads one line of Suricata's EVE output, of versions 6 to 8; nothing if it is another event than
/// an alert. Safe for any bytes.
///
/// The source of the packet that has set the alert off may be the server. Who attacks is said by
/// `alert.source` (if the rule has a target), else it is who has opened the flow (`flow.src_ip`,
/// since version 7), else the client by `direction`, else the packet's source; and in any case the
/// other end if that one is at `home`: a guest that calls its attacker back is not the attacker.
///
/// Errors: it is not such a line.
Result<std::optional<Alert>> parse_eve(std::string_view line, std::span<const net::Prefix> home);

}  // namespace ivmm::watch
