#include "storage/block/block_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <shared_mutex>

#include "base/checked.h"
#include "storage/block/block_chain.h"
#include "storage/block/block_index.h"
#include "storage/block/block_map.h"
#include "storage/block/file_io.h"

namespace ivmm::storage {
namespace {

constexpr uint64_t kMaxSize = INT64_MAX;

constexpr uint64_t block_of(uint64_t offset) {
    return offset / kBlockSize;
}
/// The end of the blocks that bytes up to `end` need.
constexpr uint64_t blocks_to(uint64_t end) {
    return end / kBlockSize + (end % kBlockSize != 0 ? 1 : 0);
}

Unexpected with_errno(int code, std::string_view action) {
    errno = code;
    return fail_errno("{}", action);
}

/// The states of a leaf's blocks, as a part whose source is `own` sees them over `sources`.
void apply_states(ConstByteSpan states, BlockSource own, BlockIndex::Leaf& sources) {
    for (size_t i = 0; i < sources.size(); ++i) {
        switch (static_cast<BlockState>((std::to_integer<unsigned>(states[i / 4]) >> (i % 4 * 2)) &
                                        3)) {
            case BlockState::kLower:
                break;
            case BlockState::kHere:
                sources.at(i) = own;
                break;
            case BlockState::kZero:
                sources.at(i) = kZeroSource;
                break;
        }
    }
}

/// The reverse. A block that is zero because it is so below may be called zero as well: what is
/// below does not change. From the leaf's block `limit` on, nothing of the lower file shows, and
/// lower means zero.
void encode_states(const BlockIndex::Leaf& sources, BlockSource own, uint64_t limit,
                   ByteSpan states) {
    std::ranges::fill(states, std::byte{0});
    for (size_t i = 0; i < sources.size(); ++i) {
        const BlockSource source = sources.at(i);
        const BlockState state = source == own                        ? BlockState::kHere
                                 : source == kZeroSource && i < limit ? BlockState::kZero
                                                                      : BlockState::kLower;
        states[i / 4] |= static_cast<std::byte>(static_cast<unsigned>(state) << (i % 4 * 2));
    }
}

}  // namespace

struct BlockFile::Impl {
    Impl(BlockChain files, UniqueFd map_file, bool may_write)
        : chain(std::move(files)),
          own(chain.top()),
          data(chain.fd(own)),
          map_fd(std::move(map_file)),
          map(map_fd.get()),
          writable(may_write) {}

    Result<void> load();

    uint64_t limit_of(BlockSource source) const {
        return source == own ? kMaxSize : std::min(chain.limit(source), lower_limit.load());
    }
    PosixResult<void> read_range(uint64_t offset, ByteSpan out) const;
    bool all_here(uint64_t first, uint64_t end) const;
    PosixResult<void> write_range(uint64_t offset, ConstByteSpan content, uint64_t file_end);
    PosixResult<void> first_touch(uint64_t offset, ConstByteSpan content, uint64_t file_end);
    PosixResult<void> zero_edge(uint64_t offset, uint64_t end);
    PosixResult<void> zero_blocks(uint64_t first, uint64_t end);
    void forget_behind(uint64_t end);
    PosixResult<void> grow(uint64_t new_size);
    PosixResult<void> lower_the_limit(uint64_t limit);
    PosixResult<uint64_t> seek(uint64_t offset, int whence) const;

    PosixResult<void> reserve_map(uint64_t first, uint64_t end);
    void set_source(uint64_t first, uint64_t end, BlockSource source);
    void note_change() {
        if (!changed) {  // most often it is set, and a store would take the line from the others
            changed = true;
        }
    }
    PosixResult<void> flush_changes();

    const BlockChain chain;
    const BlockSource own;
    const int data;
    const UniqueFd map_fd;

    // Locks, in the order in which they are taken:

    /// Shared by writes within the file; alone: what moves the file's end or takes blocks away.
    std::shared_mutex shape;
    /// Of the first write to blocks of a leaf, by leaf.
    std::array<std::mutex, 64> first_touches;
    /// Of those who write the map file, and of `map`.
    std::mutex flushing;
    BlockMap map;
    /// Of the index and what is to be flushed of it. Never held during I/O.
    mutable std::shared_mutex index_lock;
    BlockIndex index;
    std::set<uint64_t> dirty_pages;     ///< of the map
    std::set<uint64_t> reserved_pages;  ///< that have room in the map file
    bool header_dirty = false;

    std::atomic<uint64_t> size = 0;                ///< bytes; changes under `shape` alone
    std::atomic<uint64_t> lower_limit = kMaxSize;  ///< see block_map.h
    std::atomic<bool> writable;
    std::atomic<bool> changed = false;   ///< something was written since the last flush began
    std::atomic<bool> in_flush = false;  ///< a flush is at work
    std::atomic<bool> failed = false;    ///< what is on the medium is not known any more
};

Result<void> BlockFile::Impl::load() {
    const auto data_size = file_size(data);
    if (!data_size) {
        return with_errno(data_size.error().code, "cannot tell the size of a part's data file");
    }
    size = *data_size;
    IVMM_ASSIGN(const auto header, map.load_header());
    // Without a header, `lower_limit` is the lower file's size already.
    lower_limit = std::min({chain.limit(static_cast<BlockSource>(own - 1)), size.load(),
                            header ? header->lower_limit : kMaxSize});
    if (header && header->cut_size != MapHeader::kNotCut && header->cut_size < size) {
        // A truncation that a crash has cut short.
        size = header->cut_size;
        lower_limit = std::min(lower_limit.load(), size.load());
        if (writable && ::ftruncate(data, static_cast<off_t>(size)) != 0) {
            return fail_errno("cannot finish a truncation to {} bytes", size.load());
        }
    }
    header_dirty = writable && (!header || header->cut_size != MapHeader::kNotCut ||
                                header->lower_limit != lower_limit);
    changed = header_dirty;

    index.set(blocks_to(lower_limit), BlockIndex::kMaxBlocks, kZeroSource);
    const uint64_t pages = (blocks_to(size) + kMapPageBlocks - 1) / kMapPageBlocks;
    IVMM_TRY(map.load_pages(pages, [this](uint64_t page, const MapStates& states) {
        reserved_pages.insert(page);
        for (uint64_t i = 0; i < kMapPageLeaves; ++i) {
            const auto part = ConstByteSpan(states).subspan(i * kLeafStateBytes, kLeafStateBytes);
            const auto all = [&](std::byte value) {
                return std::ranges::all_of(part, [&](std::byte b) { return b == value; });
            };
            const uint64_t leaf = page * kMapPageLeaves + i;
            const uint64_t first = leaf * BlockIndex::kLeafBlocks;
            constexpr std::byte kAllHere{0x55};
            if (all(kAllHere)) {
                index.set(first, first + BlockIndex::kLeafBlocks, own);
            } else if (!all(std::byte{0})) {
                BlockIndex::Leaf sources;
                index.copy_leaf(leaf, sources);
                apply_states(part, own, sources);
                index.store_leaf(leaf, sources);
            }
        }
    }));
    index.set(blocks_to(size), BlockIndex::kMaxBlocks, kZeroSource);
    return {};
}

PosixResult<void> BlockFile::Impl::read_range(uint64_t offset, ByteSpan out) const {
    const uint64_t end = offset + out.size();
    while (offset < end) {
        BlockIndex::Run run;
        {
            const std::shared_lock lock(index_lock);
            run = index.run(block_of(offset), blocks_to(end));
        }
        const uint64_t stop = std::min(run.end * kBlockSize, end);
        const ByteSpan here = out.first(stop - offset);
        size_t have = 0;
        if (run.source != kZeroSource) {
            const uint64_t data_end = std::min(stop, limit_of(run.source));
            if (offset < data_end) {
                IVMM_ASSIGN(have,
                            read_at(chain.fd(run.source), offset, here.first(data_end - offset)));
            }
        }
        std::ranges::fill(here.subspan(have), std::byte{0});
        out = out.subspan(here.size());
        offset = stop;
    }
    return {};
}

bool BlockFile::Impl::all_here(uint64_t first, uint64_t end) const {
    const std::shared_lock lock(index_lock);
    const BlockIndex::Run run = index.run(first, end);
    return run.source == own && run.end == end;
}

/// Makes sure that the pages of the map for these blocks can be written: a flush is no place to
/// find the disk full.
PosixResult<void> BlockFile::Impl::reserve_map(uint64_t first, uint64_t end) {
    const uint64_t first_page = first / kMapPageBlocks;
    const uint64_t end_page = (end - 1) / kMapPageBlocks + 1;
    const auto known = [&] {
        const std::shared_lock lock(index_lock);
        const auto from = reserved_pages.find(first_page);
        const auto to = reserved_pages.lower_bound(end_page);
        return from != reserved_pages.end() &&
               std::distance(from, to) == static_cast<ptrdiff_t>(end_page - first_page);
    };
    if (known()) {
        return {};
    }
    IVMM_TRY(map.reserve(first_page, end_page));
    const std::unique_lock lock(index_lock);
    for (uint64_t page = first_page; page < end_page; ++page) {
        reserved_pages.insert(page);
    }
    return {};
}

void BlockFile::Impl::set_source(uint64_t first, uint64_t end, BlockSource source) {
    const std::unique_lock lock(index_lock);
    for (uint64_t at = first; at < end;) {
        const BlockIndex::Run run = index.run(at, end);
        if (run.source == source) {
            at = run.end;
        } else {
            const uint64_t page = at / kMapPageBlocks;
            dirty_pages.insert(page);
            at = (page + 1) * kMapPageBlocks;
        }
    }
    index.set(first, end, source);
}

/// Makes whole blocks zeroes; `shape` is held alone.
PosixResult<void> BlockFile::Impl::zero_blocks(uint64_t first, uint64_t end) {
    for (uint64_t at = first; at < end;) {
        const auto run = [&] {
            const std::shared_lock lock(index_lock);
            return index.run(at, end);
        }();
        if (run.source == kZeroSource) {
            at = run.end;
        } else {
            IVMM_TRY(reserve_map(at, run.end));
            at = std::min(end, ((run.end - 1) / kMapPageBlocks + 1) * kMapPageBlocks);
        }
    }
    // Where there are no holes, the space is not given back; what such blocks contain does not
    // matter.
    if (::fallocate(data, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(first * kBlockSize),
                    static_cast<off_t>((end - first) * kBlockSize)) != 0 &&
        errno != EOPNOTSUPP) {
        return last_posix_error();
    }
    set_source(first, end, kZeroSource);
    note_change();
    return {};
}

/// Behind the end of the file all blocks are zeroes. No page of the map becomes dirty: whatever it
/// says of them, the lower file is cut off there, and the data file has a hole.
void BlockFile::Impl::forget_behind(uint64_t end) {
    const std::unique_lock lock(index_lock);
    index.set(blocks_to(end), BlockIndex::kMaxBlocks, kZeroSource);
}

/// Writes to blocks of one leaf that are not all here yet. Nobody makes them anything but here
/// meanwhile (`shape`), and the lock keeps others from filling the same blocks.
PosixResult<void> BlockFile::Impl::first_touch(uint64_t offset, ConstByteSpan content,
                                               uint64_t file_end) {
    const uint64_t end = offset + content.size();
    const uint64_t first = block_of(offset);
    const uint64_t last = blocks_to(end);
    const std::scoped_lock lock(
        first_touches.at(first / BlockIndex::kLeafBlocks % first_touches.size()));
    IVMM_TRY(reserve_map(first, last));

    // What the first and the last block have beside the content, unless it is in place.
    // NOLINTBEGIN(cppcoreguidelines-pro-type-member-init): filled as far as they are used
    std::array<std::byte, kBlockSize> before;
    std::array<std::byte, kBlockSize> after;
    // NOLINTEND(cppcoreguidelines-pro-type-member-init)
    ByteSpan head = ByteSpan(before).first(offset - first * kBlockSize);
    ByteSpan tail = ByteSpan(after).first(std::min(last * kBlockSize, file_end) - end);
    if (all_here(first, first + 1)) {
        head = {};
    }
    if (all_here(last - 1, last)) {
        tail = {};
    }
    IVMM_TRY(read_range(offset - head.size(), head));
    IVMM_TRY(read_range(end, tail));
    IVMM_TRY(
        write_at(data, offset - head.size(), std::array<ConstByteSpan, 3>{head, content, tail}));
    set_source(first, last, own);
    return {};
}

/// Writes when `shape` is held; the file ends, or is to end, at `file_end`.
PosixResult<void> BlockFile::Impl::write_range(uint64_t offset, ConstByteSpan content,
                                               uint64_t file_end) {
    if (content.empty()) {
        return {};
    }
    const auto write = [&]() -> PosixResult<void> {
        if (all_here(block_of(offset), blocks_to(offset + content.size()))) {
            return write_at(data, offset, content);
        }
        constexpr uint64_t kLeafBytes = BlockIndex::kLeafBlocks * kBlockSize;
        for (size_t done = 0; done < content.size();) {
            const uint64_t at = offset + done;
            const auto part = content.subspan(
                done, std::min<uint64_t>(content.size() - done, kLeafBytes - at % kLeafBytes));
            IVMM_TRY(first_touch(at, part, file_end));
            done += part.size();
        }
        return {};
    };
    const auto outcome = write();
    note_change();
    return outcome;
}

/// Zeroes a part of one block.
PosixResult<void> BlockFile::Impl::zero_edge(uint64_t offset, uint64_t end) {
    {
        const std::shared_lock lock(index_lock);
        if (offset >= end ||
            index.run(block_of(offset), block_of(offset) + 1).source == kZeroSource) {
            return {};
        }
    }
    static constexpr std::array<std::byte, kBlockSize> kZeroes{};
    return write_range(offset, ConstByteSpan(kZeroes).first(end - offset), size);
}

PosixResult<void> BlockFile::Impl::grow(uint64_t new_size) {
    if (::ftruncate(data, static_cast<off_t>(new_size)) != 0) {
        return last_posix_error();
    }
    size = new_size;
    note_change();
    return {};
}

/// Before the data file gets shorter, it must be on the medium that nothing of the lower file is
/// behind its end: else a crash and a later growth would bring that back.
PosixResult<void> BlockFile::Impl::lower_the_limit(uint64_t limit) {
    const std::scoped_lock lock(flushing);
    if (failed) {
        return posix_error(EIO);
    }
    const auto write = [&]() -> PosixResult<void> {
        IVMM_TRY(map.write_header({limit, limit}));
        return map.sync();
    };
    if (const auto written = write(); !written) {
        failed = true;
        return written;
    }
    lower_limit = limit;
    const std::unique_lock index_guard(index_lock);
    header_dirty = false;
    return {};
}

/// The first offset from `offset` on that is data (SEEK_DATA) or in a hole (SEEK_HOLE).
PosixResult<uint64_t> BlockFile::Impl::seek(uint64_t offset, int whence) const {
    const uint64_t end = size;
    if (offset >= end) {
        return posix_error(ENXIO);
    }
    while (offset < end) {
        BlockIndex::Run run;
        {
            const std::shared_lock lock(index_lock);
            run = index.run(block_of(offset), blocks_to(end));
        }
        const uint64_t stop = std::min(run.end * kBlockSize, end);
        uint64_t data_end =
            run.source == kZeroSource ? offset : std::min(stop, limit_of(run.source));
        uint64_t data_start = std::min(offset, data_end);
        if (run.source == kBottomSource && data_start < data_end) {
            // The bottom is an ordinary file that may have holes itself.
            const off_t found = ::lseek(chain.fd(run.source), static_cast<off_t>(offset), whence);
            if (found < 0 && errno != ENXIO) {
                return last_posix_error();
            }
            const uint64_t at = found < 0 ? data_end : static_cast<uint64_t>(found);
            (whence == SEEK_DATA ? data_start : data_end) = std::min(at, data_end);
        }
        if (whence == SEEK_DATA && data_start < data_end) {
            return data_start;
        }
        if (whence == SEEK_HOLE && data_end < stop) {
            return std::max(data_end, offset);
        }
        offset = stop;
    }
    return whence == SEEK_DATA ? PosixResult<uint64_t>(posix_error(ENXIO)) : end;
}

PosixResult<void> BlockFile::Impl::flush_changes() {
    BlockIndex snapshot;
    std::set<uint64_t> pages;
    bool write_header = false;
    // A truncation that lowers it writes the header, and so waits for this flush.
    const uint64_t limit = blocks_to(lower_limit);
    {
        const std::unique_lock lock(index_lock);
        pages = std::exchange(dirty_pages, {});
        write_header = std::exchange(header_dirty, false);
        if (!pages.empty()) {
            snapshot = index.fork();
        }
    }
    // What the pages tell of must be on the medium before them; what is written from now on is not
    // in them.
    if (::fdatasync(data) != 0) {
        return last_posix_error();
    }
    if (write_header) {
        IVMM_TRY(map.write_header({lower_limit, MapHeader::kNotCut}));
    }
    if (!pages.empty() && (write_header || !map.has_pages())) {
        IVMM_TRY(map.sync());  // pages mean something under their header only
    }
    for (const uint64_t page : pages) {
        MapStates states;
        for (uint64_t i = 0; i < kMapPageLeaves; ++i) {
            const uint64_t leaf = page * kMapPageLeaves + i;
            const uint64_t first = leaf * BlockIndex::kLeafBlocks;
            BlockIndex::Leaf sources;
            snapshot.copy_leaf(leaf, sources);
            encode_states(sources, own, limit - std::min(limit, first),
                          ByteSpan(states).subspan(i * kLeafStateBytes, kLeafStateBytes));
        }
        IVMM_TRY(map.write_page(page, states));
    }
    if (write_header || !pages.empty()) {
        IVMM_TRY(map.sync());
    }
    return {};
}

BlockFile::BlockFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BlockFile::~BlockFile() = default;

Result<std::shared_ptr<BlockFile>> BlockFile::bottom(UniqueFd file) {
    const auto size = file_size(file.get());
    if (!size) {
        return with_errno(size.error().code, "cannot tell the size of a file");
    }
    BlockChain chain(std::make_shared<UniqueFd>(std::move(file)), *size);
    auto impl = std::make_unique<Impl>(std::move(chain), UniqueFd(), false);
    impl->size = *size;
    impl->index.set(0, blocks_to(*size), kBottomSource);
    return std::shared_ptr<BlockFile>(new BlockFile(std::move(impl)));
}

Result<void> BlockFile::create_part(const Part& part, uint64_t lower_size) {
    if (::ftruncate(part.data.get(), static_cast<off_t>(lower_size)) != 0) {
        return fail_errno("cannot make the data file of a part {} bytes long", lower_size);
    }
    if (const auto written = BlockMap(part.map.get()).write_header({lower_size}); !written) {
        return with_errno(written.error().code, "cannot write the header of a block map");
    }
    return {};
}

Result<std::shared_ptr<BlockFile>> BlockFile::open(const std::shared_ptr<const BlockFile>& lower,
                                                   Part part, bool writable) {
    Impl& below = *lower->impl_;
    if (below.writable) {
        return fail("a part cannot lie over a file that is still written");
    }
    if (below.own == BlockChain::kMaxLength) {
        return fail("a file cannot have more than {} parts", BlockChain::kMaxLength - 1);
    }
    BlockChain chain(below.chain, below.size, below.lower_limit,
                     std::make_shared<UniqueFd>(std::move(part.data)));
    auto impl = std::make_unique<Impl>(std::move(chain), std::move(part.map), writable);
    {
        const std::unique_lock lock(below.index_lock);
        impl->index = below.index.fork();
    }
    IVMM_TRY(impl->load());
    return std::shared_ptr<BlockFile>(new BlockFile(std::move(impl)));
}

uint64_t BlockFile::size() const {
    return impl_->size;
}

int BlockFile::data_fd() const {
    return impl_->data;
}

uint32_t BlockFile::depth() const {
    return impl_->own;
}

PosixResult<size_t> BlockFile::read(uint64_t offset, ByteSpan out) const {
    const uint64_t size = impl_->size;
    if (offset >= size) {
        return size_t{0};
    }
    const ByteSpan wanted = out.first(std::min<uint64_t>(out.size(), size - offset));
    IVMM_TRY(impl_->read_range(offset, wanted));
    return wanted.size();
}

PosixResult<void> BlockFile::write(uint64_t offset, ConstByteSpan data) {
    if (!impl_->writable) {
        return posix_error(EROFS);
    }
    const auto end = checked_add<uint64_t>(offset, data.size());
    if (!end || *end > kMaxSize) {
        return posix_error(EFBIG);
    }
    {
        const std::shared_lock shape(impl_->shape);
        if (*end <= impl_->size || data.empty()) {
            return impl_->write_range(offset, data, impl_->size);
        }
    }
    const std::unique_lock shape(impl_->shape);
    const uint64_t size = impl_->size;
    const auto outcome = impl_->write_range(offset, data, std::max(size, *end));
    if (outcome) {
        impl_->size = std::max(size, *end);
        return {};
    }
    if (::ftruncate(impl_->data, static_cast<off_t>(size)) != 0) {
        impl_->failed = true;
    }
    impl_->forget_behind(size);
    return outcome;
}

PosixResult<void> BlockFile::copy_from(int file, uint64_t offset, uint64_t length) {
    if (!impl_->writable) {
        return posix_error(EROFS);
    }
    const std::shared_lock shape(impl_->shape);
    const auto end = checked_add(offset, length);
    if (!end || *end > impl_->size || offset % kBlockSize != 0 ||
        (*end % kBlockSize != 0 && *end != impl_->size)) {
        return posix_error(EINVAL);
    }
    if (length == 0) {
        return {};
    }
    IVMM_TRY(impl_->reserve_map(block_of(offset), blocks_to(*end)));
    const auto copied = copy_range(file, impl_->data, offset, length);
    if (copied) {
        impl_->set_source(block_of(offset), blocks_to(*end), impl_->own);
    }
    impl_->note_change();
    return copied;
}

PosixResult<void> BlockFile::zero(uint64_t offset, uint64_t length, bool keep_size) {
    if (!impl_->writable) {
        return posix_error(EROFS);
    }
    const auto whole_end = checked_add(offset, length);
    if (!whole_end || *whole_end > kMaxSize) {
        return posix_error(EFBIG);
    }
    const std::unique_lock shape(impl_->shape);
    const uint64_t size = impl_->size;
    const uint64_t end = std::min(*whole_end, size);
    if (offset < end) {
        // The file's last block is whole when all of it that the file has is to be zero.
        const uint64_t first = blocks_to(offset);
        const uint64_t last = end == size ? blocks_to(end) : block_of(end);
        IVMM_TRY(impl_->zero_edge(offset, std::min(first * kBlockSize, end)));
        if (first <= last) {
            IVMM_TRY(impl_->zero_edge(last * kBlockSize, end));
        }
        if (first < last) {
            IVMM_TRY(impl_->zero_blocks(first, last));
        }
    }
    if (!keep_size && *whole_end > size && length != 0) {
        return impl_->grow(*whole_end);
    }
    return {};
}

PosixResult<void> BlockFile::truncate(uint64_t size) {
    if (!impl_->writable) {
        return posix_error(EROFS);
    }
    if (size > kMaxSize) {
        return posix_error(EFBIG);
    }
    const std::unique_lock shape(impl_->shape);
    const uint64_t old_size = impl_->size;
    if (size >= old_size) {
        return impl_->grow(size);  // of the same size, too: that is a change of its times
    }
    const bool cuts_lower = size < impl_->lower_limit;
    if (cuts_lower) {
        IVMM_TRY(impl_->lower_the_limit(size));
    }
    if (::ftruncate(impl_->data, static_cast<off_t>(size)) != 0) {
        const int code = errno;
        impl_->failed = impl_->failed || cuts_lower;
        return posix_error(code);
    }
    impl_->size = size;
    impl_->forget_behind(size);
    if (cuts_lower) {
        const std::unique_lock lock(impl_->index_lock);
        impl_->header_dirty = true;
    }
    impl_->note_change();
    return {};
}

PosixResult<void> BlockFile::allocate(uint64_t offset, uint64_t length, bool keep_size) {
    if (!impl_->writable) {
        return posix_error(EROFS);
    }
    const auto end = checked_add(offset, length);
    if (!end || *end > kMaxSize) {
        return posix_error(EFBIG);
    }
    if (length == 0) {
        return posix_error(EINVAL);
    }
    const std::unique_lock shape(impl_->shape);
    if (::fallocate(impl_->data, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length)) != 0) {
        return last_posix_error();
    }
    IVMM_TRY(impl_->reserve_map(block_of(offset), blocks_to(*end)));
    impl_->note_change();
    if (!keep_size && *end > impl_->size) {
        return impl_->grow(*end);
    }
    return {};
}

PosixResult<uint64_t> BlockFile::seek_data(uint64_t offset) const {
    return impl_->seek(offset, SEEK_DATA);
}

PosixResult<uint64_t> BlockFile::seek_hole(uint64_t offset) const {
    return impl_->seek(offset, SEEK_HOLE);
}

PosixResult<void> BlockFile::flush() {
    const std::scoped_lock lock(impl_->flushing);
    if (impl_->failed) {
        return posix_error(EIO);
    }
    if (!impl_->changed) {
        return {};
    }
    impl_->in_flush = true;
    impl_->changed = false;
    const auto outcome = impl_->flush_changes();
    impl_->failed = impl_->failed || !outcome;
    impl_->in_flush = false;
    return outcome;
}

bool BlockFile::dirty() const {
    return impl_->changed || impl_->in_flush || impl_->failed;
}

void BlockFile::freeze() {
    impl_->writable = false;
}

void BlockFile::for_each_extent(const std::function<void(const BlockExtent&)>& visit) const {
    BlockExtent last;
    const auto add = [&](const BlockExtent& next) {
        if (last.length != 0 && last.kind == next.kind && last.depth == next.depth) {
            last.length += next.length;
        } else {
            if (last.length != 0) {
                visit(last);
            }
            last = next;
        }
    };
    const uint64_t end = impl_->size;
    for (uint64_t offset = 0; offset < end;) {
        const auto run = [&] {
            const std::shared_lock lock(impl_->index_lock);
            return impl_->index.run(block_of(offset), blocks_to(end));
        }();
        const uint64_t stop = std::min(run.end * kBlockSize, end);
        const uint64_t data_end = run.source == kZeroSource
                                      ? offset
                                      : std::clamp(impl_->limit_of(run.source), offset, stop);
        if (data_end != offset) {
            add({offset, data_end - offset, BlockExtent::Kind::kData,
                 static_cast<uint32_t>(impl_->own - run.source)});
        }
        if (data_end != stop) {
            add({data_end, stop - data_end, BlockExtent::Kind::kZero, 0});
        }
        offset = stop;
    }
    if (last.length != 0) {
        visit(last);
    }
}

int BlockFile::extent_fd(const BlockExtent& extent) const {
    return impl_->chain.fd(static_cast<BlockSource>(impl_->own - extent.depth));
}

}  // namespace ivmm::storage
