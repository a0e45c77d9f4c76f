#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

/// Regular files that are made of blocks of several layers.
namespace ivmm::storage {

/// The granularity of copy-on-write, in bytes.
constexpr uint64_t kBlockSize = 4096;

/// Where a range of a file comes from.
struct BlockExtent {
    enum class Kind { kZero, kData };
    uint64_t offset = 0;  ///< bytes
    uint64_t length = 0;  ///< bytes
    Kind kind = Kind::kZero;
    uint32_t depth = 0;  ///< of data: 0 = the file's own part, 1 = the one below, …
};

/// The bytes of one regular file as one layer and those below it see them: an ordinary file at the
/// bottom and any number of parts over it. A part is what one layer adds: a sparse file with data
/// at their own offsets, and a map that gives each block a state (lower, here, zero).
///
/// A writable BlockFile writes its own (topmost) part; what lies below is never written. After
/// freeze() it is immutable, and others may be made over it, which share its index: looking a block
/// up costs the same at any depth.
///
/// Written blocks that were not flushed are known to this object alone: keep it until flush() has
/// succeeded, or they are lost. A BlockFile keeps the files below it open, but not their objects.
///
/// Memory: the index (see BlockIndex), and 24 bytes for each part of the chain.
///
/// Any thread, unless said otherwise. Concurrent overlapping writes end as one after the other.
class BlockFile {
 public:
    /// One layer's share. Both files belong to the BlockFile.
    struct Part {
        UniqueFd data;  ///< its size is the file's size; open for reading, and writing if writable
        UniqueFd map;   ///< the block map, opened likewise
    };

    /// An ordinary file as the bottom of a chain, open for reading, never written through this.
    static Result<std::shared_ptr<BlockFile>> bottom(UniqueFd file);

    /// Makes `part` (both files empty) a part over a file of `lower_size` bytes: sets the data
    /// file's size and writes the map's header. Nothing is synced, and need not be: a map without a
    /// header and pages is one that was never flushed. (Only the data file's size must not get
    /// lost: file systems keep it in order with a later rename of the file.)
    static Result<void> create_part(const Part& part, uint64_t lower_size);

    /// Opens a part over what is below it. `lower` must be frozen, a bottom, or read-only.
    /// Errors: the map is corrupt in a way that hides which blocks are here (kFailed, the message
    /// says what and where).
    static Result<std::shared_ptr<BlockFile>> open(const std::shared_ptr<const BlockFile>& lower,
                                                   Part part, bool writable);
    ~BlockFile();

    uint64_t size() const;
    /// The own part's data file (of a bottom: the file): for attributes. Never for writing.
    int data_fd() const;
    /// How many parts and the bottom.
    uint32_t depth() const;

    /// Bytes read: less than asked for only at the end of the file.
    PosixResult<size_t> read(uint64_t offset, ByteSpan out) const;
    /// Writes all or gives an error; extends the file. EROFS when not writable or frozen.
    PosixResult<void> write(uint64_t offset, ConstByteSpan data);
    /// As write(), of the bytes that `file` has at the same offsets; shares their space with it
    /// where the file system can. `offset` is that of a block, and the end is that of a block or of
    /// this file, which does not grow.
    PosixResult<void> copy_from(int file, uint64_t offset, uint64_t length);
    /// Makes a range zeroes and gives its space back (TRIM, write-zeroes, PUNCH_HOLE). With
    /// `keep_size`, what lies beyond the end is ignored; otherwise the file grows.
    PosixResult<void> zero(uint64_t offset, uint64_t length, bool keep_size);
    /// What is cut off never comes back, whatever happens.
    PosixResult<void> truncate(uint64_t size);
    /// Reserves space in the own part, as fallocate(2) mode 0 or FALLOC_FL_KEEP_SIZE: writes
    /// there do not fail for want of space.
    PosixResult<void> allocate(uint64_t offset, uint64_t length, bool keep_size);
    /// As lseek(2) with SEEK_DATA and SEEK_HOLE; ENXIO beyond the end.
    PosixResult<uint64_t> seek_data(uint64_t offset) const;
    PosixResult<uint64_t> seek_hole(uint64_t offset) const;

    /// Returns when all that was written before is on the medium, the map included:
    /// fdatasync(data), map pages, fdatasync(map). May run beside reads and writes, and after
    /// freeze(). An error is final: every later flush() of this part gives EIO as well.
    PosixResult<void> flush();
    /// Whether a flush() would have something to do or an error to give, or is under way.
    bool dirty() const;

    /// Ends writing for good. No write may be in flight. Takes no time.
    void freeze();

    /// Calls `visit` for the ranges of the file, in order, without gaps, adjacent ranges of the
    /// same kind and depth as one. The bottom's holes count as its data (seek_data() tells).
    /// The file must not be written meanwhile.
    void for_each_extent(const std::function<void(const BlockExtent&)>& visit) const;
    /// The file that the data of an extent are in, at their own offsets. Never for writing.
    int extent_fd(const BlockExtent& extent) const;

 private:
    struct Impl;
    explicit BlockFile(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// What a look at a map on the disk says.
struct MapReport {
    struct Range {
        uint64_t offset = 0;  ///< bytes of the file that the map belongs to
        uint64_t length = 0;  ///< bytes
    };
    uint64_t pages = 0;  ///< that were written, without the corrupt ones and the header
    uint64_t blocks_here = 0;
    uint64_t blocks_zero = 0;
    uint64_t torn_pages = 0;     ///< one slot is bad, the other is good: an unfinished flush
    uint64_t corrupt_pages = 0;  ///< no slot is good although one was written
    std::vector<Range> corrupt;  ///< what those tell of, in order, adjacent ones as one
};

/// Examines a block map. Errors: it is no map, or its header is corrupt or of a newer version.
Result<MapReport> examine_map(int map_fd);

}  // namespace ivmm::storage
