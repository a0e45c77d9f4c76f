#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "vmm/peer/messages.h"

namespace ivmm::peer {

/// The content of a message's pages, one after the other, for a memory of so many pages. Errors: no
/// such pages, too many, or not just their content.
Result<std::vector<std::byte>> content_of(const Pages& message, ConstByteSpan tail,
                                          uint64_t memory_pages);

}  // namespace ivmm::peer
