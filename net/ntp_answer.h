#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"

namespace ivmm::net {

/// What a time server of stratum 1 says (RFC 5905, section 7.3) to a client's question, at
/// `wall_ns`, nanoseconds since 1970. None: it is no such question.
std::optional<std::vector<std::byte>> answer_ntp(ConstByteSpan query, uint64_t wall_ns);

}  // namespace ivmm::net
