#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "memory/guest_memory.h"

/// Pages of a sparse file.
namespace ivmm {

/// Pages that are read or written together.
inline constexpr uint64_t kPagesAtOnce = 256;

/// The bytes of pages from `first` on; holes are not read, and give zeroes. Errors: the file is too
/// short.
Result<void> read_pages(int file, uint64_t first, ByteSpan out);
Result<void> write_pages(int file, uint64_t first, ConstByteSpan pages);
/// The first page from `first` on that is no hole; `end` if there is none before it.
uint64_t next_data_page(int file, uint64_t first, uint64_t end);

bool is_zero_page(ConstByteSpan page);

}  // namespace ivmm
