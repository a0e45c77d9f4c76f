#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "storage/block/block_index.h"

/// The block map of a part on the disk.
///
/// The file is a row of pages, each of which has room for two slots of 4 KiB: page N has the slots
/// at N * 8192 and N * 8192 + 4096. A page is written to its slots in turn, so that a write that
/// a crash cuts short leaves the one before. Of two good slots, that with the higher generation
/// counts. A slot (numbers little-endian, what is not named here is zero):
///
///     0     8   XXH3-64 of the bytes from 8 to 4095
///     8     8   "ivmm-map"
///     16    8   N
///     24    8   generation: 0 in the first slot, 1 in the second, 2 in the first, …
///     32        page 0, the header:
///                 32  4  format version, 1
///                 40  8  lower limit: bytes of the file at and beyond it never come from below
///                 48  8  cut: the file was made this short, and its data file may still be longer
///                        if that was not on the medium before a crash; all ones: no
///               page N > 0: the states of 15872 blocks of 4 KiB, from block (N - 1) * 15872 on,
///                 2 bits each, the low bits of a byte first: 0 lower, 1 here, 2 zero
///
/// A slot of zeroes or beyond the end of the file was never written. A page that was never written
/// has only lower blocks; a map whose pages are all unwritten belongs to a part that was never
/// flushed. A page whose only written slot is the first and bad was never written completely. A
/// page with a bad slot and no good one otherwise is corrupt.
namespace ivmm::storage {

enum class BlockState : uint8_t { kLower = 0, kHere = 1, kZero = 2 };

/// A page tells of so many leaves of the index.
constexpr uint64_t kMapPageLeaves = 31;
constexpr uint64_t kMapPageBlocks = kMapPageLeaves * BlockIndex::kLeafBlocks;
/// The states of the blocks of one leaf, and of one page.
constexpr size_t kLeafStateBytes = BlockIndex::kLeafBlocks / 4;
using MapStates = std::array<std::byte, kMapPageLeaves * kLeafStateBytes>;

struct MapHeader {
    static constexpr uint64_t kNotCut = UINT64_MAX;
    uint64_t lower_limit = 0;     ///< bytes
    uint64_t cut_size = kNotCut;  ///< bytes
};

/// Reads and writes the pages of a map whose descriptor somebody else keeps open. Map pages are
/// counted from 0 (page 1 of the file) here. One thread at a time, except as said.
class BlockMap {
 public:
    explicit BlockMap(int fd) : fd_(fd) {}

    /// No value: the map was never flushed. Errors: corrupt, no map, of a newer version.
    Result<std::optional<MapHeader>> load_header();
    /// Calls `visit` for those of the pages [0, end) that were written. Errors: a corrupt page.
    Result<void> load_pages(uint64_t end,
                            const std::function<void(uint64_t page, const MapStates&)>& visit);

    /// Whether any map page was written, as far as load_pages() and write_page() have seen.
    bool has_pages() const;
    /// Makes room for the pages [first, end), so that writing them does not fail for want of it,
    /// where the file system can do that. Beside anything else.
    PosixResult<void> reserve(uint64_t first, uint64_t end) const;
    PosixResult<void> write_header(const MapHeader& header);
    PosixResult<void> write_page(uint64_t page, const MapStates& states);
    PosixResult<void> sync() const;

 private:
    PosixResult<void> write_slot(uint64_t number, ConstByteSpan payload);

    int fd_;
    /// Page number in the file -> the generation that is written next; of written ones.
    std::map<uint64_t, uint64_t> next_generation_;
};

}  // namespace ivmm::storage
