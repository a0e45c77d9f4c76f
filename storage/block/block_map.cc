#include "storage/block/block_map.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "storage/block/block_file.h"
#include "storage/block/file_io.h"

namespace ivmm::storage {
namespace {

constexpr size_t kSlotSize = 4096;
constexpr size_t kPageSize = 2 * kSlotSize;
constexpr uint64_t kMagic = 0x70616d2d6d6d7669;  // "ivmm-map"
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderPage = 0;
/// Bytes of the file that a page tells of.
constexpr uint64_t kPageBytes = kMapPageBlocks * kBlockSize;

constexpr size_t kChecksum = 0;
constexpr size_t kHashed = 8;  // from here on
constexpr size_t kMagicAt = 8;
constexpr size_t kNumber = 16;
constexpr size_t kGeneration = 24;
constexpr size_t kPayload = 32;
constexpr size_t kPayloadSize = kSlotSize - kPayload;
constexpr size_t kVersionAt = 0;  // these three: in the payload
constexpr size_t kLowerLimit = 8;
constexpr size_t kCutSize = 16;
static_assert(sizeof(MapStates) <= kPayloadSize);

using Slot = std::array<std::byte, kSlotSize>;

uint64_t slot_checksum(ConstByteSpan slot) {
    return XXH3_64bits(slot.data() + kHashed, kSlotSize - kHashed);
}

/// What the two slots of a page hold.
struct PageContent {
    enum class Kind { kNever, kGood, kCorrupt };
    Kind kind = Kind::kNever;
    bool torn = false;  ///< a slot is bad, but not what the page's content depends on
    uint64_t generation = 0;
    std::array<std::byte, kPayloadSize> payload{};

    MapStates states() const {
        MapStates result;
        std::copy_n(payload.begin(), result.size(), result.begin());
        return result;
    }
};

bool valid_states(ConstByteSpan states) {
    constexpr uint64_t kLowBits = 0x5555555555555555;
    for (size_t i = 0; i < states.size(); i += sizeof(uint64_t)) {
        const auto word = load_at<uint64_t>(states, i);
        if ((word & (word >> 1) & kLowBits) != 0) {
            return false;
        }
    }
    return true;
}

bool good_slot(ConstByteSpan slot, uint64_t number, uint64_t index) {
    return load_at<uint64_t>(slot, kChecksum) == slot_checksum(slot) &&
           load_at<uint64_t>(slot, kMagicAt) == kMagic &&
           load_at<uint64_t>(slot, kNumber) == number &&
           load_at<uint64_t>(slot, kGeneration) % 2 == index &&
           (number == kHeaderPage || valid_states(slot.subspan(kPayload, sizeof(MapStates))));
}

PosixResult<PageContent> read_page(int fd, uint64_t number) {
    std::array<std::byte, kPageSize> page{};
    IVMM_TRY(read_at(fd, number * kPageSize, page));
    PageContent content;
    std::array<bool, 2> bad{};
    for (const size_t index : {0U, 1U}) {
        const ConstByteSpan slot = ConstByteSpan(page).subspan(index * kSlotSize, kSlotSize);
        if (std::ranges::all_of(slot, [](std::byte b) { return b == std::byte{0}; })) {
            continue;
        }
        bad.at(index) = !good_slot(slot, number, index);
        const auto generation = load_at<uint64_t>(slot, kGeneration);
        if (!bad.at(index) &&
            (content.kind == PageContent::Kind::kNever || generation > content.generation)) {
            content.kind = PageContent::Kind::kGood;
            content.generation = generation;
            std::ranges::copy(slot.subspan(kPayload), content.payload.begin());
        }
    }
    // The second slot is not written before the first is complete.
    if (content.kind == PageContent::Kind::kNever && bad[1]) {
        content.kind = PageContent::Kind::kCorrupt;
    } else {
        content.torn = bad[0] || bad[1];
    }
    return content;
}

/// Calls `visit(number, content)` for the pages [first, end) of the file that may have been
/// written, until it gives an error.
template <class Visit>
Result<void> for_each_page(int fd, uint64_t first, uint64_t end, Visit visit) {
    for (uint64_t number = first; number < end; ++number) {
        const off_t data = ::lseek(fd, static_cast<off_t>(number * kPageSize), SEEK_DATA);
        if (data < 0) {
            if (errno == ENXIO) {
                break;
            }
            return fail_errno("cannot read the block map");
        }
        number = static_cast<uint64_t>(data) / kPageSize;
        if (number >= end) {
            break;
        }
        const auto content = read_page(fd, number);
        if (!content) {
            errno = content.error().code;
            return fail_errno("cannot read page {} of the block map", number);
        }
        IVMM_TRY(visit(number, *content));
    }
    return {};
}

/// Beyond the last byte that a file can have.
constexpr uint64_t kPageEnd = INT64_MAX / kPageSize;

Result<std::optional<MapHeader>> parse_header(int fd, const PageContent& content) {
    const ConstByteSpan payload(content.payload);
    switch (content.kind) {
        case PageContent::Kind::kCorrupt:
            return fail("the block map is corrupt: its header is bad in both slots");
        case PageContent::Kind::kNever:
            // The header is on the medium before any other page.
            IVMM_TRY(for_each_page(
                fd, kHeaderPage + 1, kPageEnd,
                [](uint64_t number, const PageContent& page) -> Result<void> {
                    if (page.kind == PageContent::Kind::kNever && !page.torn) {
                        return {};
                    }
                    return fail("the block map is corrupt: it has page {} but no header", number);
                }));
            return std::optional<MapHeader>();
        case PageContent::Kind::kGood:
            break;
    }
    const auto version = load_at<uint32_t>(payload, kVersionAt);
    if (version != kVersion) {
        return fail("the block map is of format version {}; this program knows version {}", version,
                    kVersion);
    }
    return std::optional(
        MapHeader{load_at<uint64_t>(payload, kLowerLimit), load_at<uint64_t>(payload, kCutSize)});
}

}  // namespace

Result<std::optional<MapHeader>> BlockMap::load_header() {
    const auto content = read_page(fd_, kHeaderPage);
    if (!content) {
        errno = content.error().code;
        return fail_errno("cannot read the header of the block map");
    }
    IVMM_ASSIGN(const auto header, parse_header(fd_, *content));
    if (header) {
        next_generation_[kHeaderPage] = content->generation + 1;
    }
    return header;
}

Result<void> BlockMap::load_pages(
    uint64_t end, const std::function<void(uint64_t page, const MapStates&)>& visit) {
    return for_each_page(
        fd_, kHeaderPage + 1, kPageEnd,
        [&](uint64_t number, const PageContent& content) -> Result<void> {
            const bool wanted = number - 1 < end;
            if (wanted && content.kind == PageContent::Kind::kCorrupt) {
                return fail(
                    "the block map is corrupt: page {}, which tells where bytes {} to {} "
                    "of the file are, is bad in both slots",
                    number, (number - 1) * kPageBytes, number * kPageBytes - 1);
            }
            if (content.kind == PageContent::Kind::kGood) {
                // Also of those behind the end: should the file grow again, what is written then
                // must be newer than what is there.
                next_generation_[number] = content.generation + 1;
                if (wanted) {
                    visit(number - 1, content.states());
                }
            }
            return {};
        });
}

bool BlockMap::has_pages() const {
    return !next_generation_.empty() && next_generation_.rbegin()->first != kHeaderPage;
}

PosixResult<void> BlockMap::reserve(uint64_t first, uint64_t end) const {
    const auto at = static_cast<off_t>((first + 1) * kPageSize);
    const auto length = static_cast<off_t>((end - first) * kPageSize);
    while (::fallocate(fd_, 0, at, length) != 0) {
        if (errno == EOPNOTSUPP) {
            break;
        }
        if (errno != EINTR) {
            return last_posix_error();
        }
    }
    return {};
}

PosixResult<void> BlockMap::write_slot(uint64_t number, ConstByteSpan payload) {
    const auto known = next_generation_.find(number);
    const uint64_t generation = known == next_generation_.end() ? 0 : known->second;
    Slot slot{};
    const ByteSpan bytes(slot);
    store_le(bytes.subspan(kMagicAt, 8), kMagic);
    store_le(bytes.subspan(kNumber, 8), number);
    store_le(bytes.subspan(kGeneration, 8), generation);
    std::ranges::copy(payload, slot.begin() + kPayload);
    store_le(bytes.subspan(kChecksum, 8), slot_checksum(slot));
    IVMM_TRY(write_at(fd_, number * kPageSize + generation % 2 * kSlotSize, slot));
    next_generation_[number] = generation + 1;
    return {};
}

PosixResult<void> BlockMap::write_header(const MapHeader& header) {
    std::array<std::byte, 24> payload{};
    store_le(std::span(payload).subspan(kVersionAt, 4), kVersion);
    store_le(std::span(payload).subspan(kLowerLimit, 8), header.lower_limit);
    store_le(std::span(payload).subspan(kCutSize, 8), header.cut_size);
    return write_slot(kHeaderPage, payload);
}

PosixResult<void> BlockMap::write_page(uint64_t page, const MapStates& states) {
    return write_slot(page + 1, states);
}

PosixResult<void> BlockMap::sync() const {
    if (::fdatasync(fd_) != 0) {
        return last_posix_error();
    }
    return {};
}

Result<MapReport> examine_map(int map_fd) {
    const auto header_page = read_page(map_fd, kHeaderPage);
    if (!header_page) {
        errno = header_page.error().code;
        return fail_errno("cannot read the header of the block map");
    }
    IVMM_TRY(parse_header(map_fd, *header_page));
    MapReport report;
    report.torn_pages = header_page->torn ? 1 : 0;
    IVMM_TRY(for_each_page(
        map_fd, kHeaderPage + 1, kPageEnd,
        [&](uint64_t number, const PageContent& content) -> Result<void> {
            report.torn_pages += content.torn ? 1 : 0;
            if (content.kind == PageContent::Kind::kCorrupt) {
                ++report.corrupt_pages;
                const uint64_t offset = (number - 1) * kPageBytes;
                if (!report.corrupt.empty() &&
                    report.corrupt.back().offset + report.corrupt.back().length == offset) {
                    report.corrupt.back().length += kPageBytes;
                } else {
                    report.corrupt.push_back({offset, kPageBytes});
                }
            }
            report.pages += content.kind == PageContent::Kind::kGood ? 1 : 0;
            const MapStates states = content.states();
            for (size_t i = 0; i < states.size(); i += sizeof(uint64_t)) {
                constexpr uint64_t kLowBits = 0x5555555555555555;
                const auto word = load_at<uint64_t>(states, i);
                report.blocks_here += static_cast<uint64_t>(std::popcount(word & kLowBits));
                report.blocks_zero += static_cast<uint64_t>(std::popcount((word >> 1) & kLowBits));
            }
            return {};
        }));
    return report;
}

}  // namespace ivmm::storage
