#pragma once

#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

/// Whole transfers on regular files: interrupted and short ones are continued.
namespace ivmm::storage {

/// Bytes read: less than asked for only at the end of the file.
PosixResult<size_t> read_at(int fd, uint64_t offset, ByteSpan out);

/// Writes the pieces (at most 8) one after the other. After an error, some bytes may be written.
PosixResult<void> write_at(int fd, uint64_t offset, std::span<const ConstByteSpan> pieces);
PosixResult<void> write_at(int fd, uint64_t offset, ConstByteSpan data);

/// Copies bytes from one file to the same offset of another, or shares their space where the file
/// system can; `from` has them all, and holes stay holes.
PosixResult<void> copy_range(int from, int to, uint64_t offset, uint64_t length);

/// Bytes.
PosixResult<uint64_t> file_size(int fd);

}  // namespace ivmm::storage
