#pragma once

#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

/// Content of pages and disks for the way over a link: compressed where that makes it smaller.
namespace ivmm::peer {

/// No piece of content is longer.
inline constexpr size_t kMaxPiece = size_t{256} << 10;
/// Nor is what comes of packing one.
inline constexpr size_t kMaxPacked = kMaxPiece + 1;

/// `content`: at most kMaxPiece.
std::vector<std::byte> pack(ConstByteSpan content);
/// Fills all of `out`. Errors: this is not the packing of just so many bytes.
Result<void> unpack(ConstByteSpan packed, ByteSpan out);

}  // namespace ivmm::peer
