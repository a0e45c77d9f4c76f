#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/checked.h"
#include "storage/tools/diff.h"

namespace ivmm::storage {
namespace {

constexpr uint64_t kBufferSize = uint64_t{1} << 20;
static_assert(kBufferSize % kBlockSize == 0);

using FileId = std::pair<dev_t, ino_t>;

/// The extents of a file, and what file each is in.
class Extents {
 public:
    explicit Extents(const BlockFile& file) : file_(file) {
        file.for_each_extent([this](const BlockExtent& extent) { extents_.push_back(extent); });
    }

    /// The one that a byte is in; to be asked for in rising order, within the file.
    const BlockExtent& at(uint64_t offset) {
        while (extents_[next_].offset + extents_[next_].length <= offset) {
            ++next_;
        }
        return extents_[next_];
    }

    PosixResult<FileId> source(const BlockExtent& extent) {
        const auto known = sources_.find(extent.depth);
        if (known != sources_.end()) {
            return known->second;
        }
        struct stat attributes {};
        if (::fstat(file_.extent_fd(extent), &attributes) != 0) {
            return last_posix_error();
        }
        return sources_[extent.depth] = {attributes.st_dev, attributes.st_ino};
    }

 private:
    const BlockFile& file_;
    std::vector<BlockExtent> extents_;
    size_t next_ = 0;
    std::map<uint32_t, FileId> sources_;  ///< by depth
};

/// Whether two extents have the same bytes where both are, as far as can be told without reading.
PosixResult<bool> same_source(Extents& from, const BlockExtent& a, Extents& to,
                              const BlockExtent& b) {
    if (a.kind != b.kind) {
        return false;
    }
    if (a.kind == BlockExtent::Kind::kZero) {
        return true;
    }
    IVMM_ASSIGN(const auto left, from.source(a));
    IVMM_ASSIGN(const auto right, to.source(b));
    return left == right;
}

class Comparison {
 public:
    Comparison(const BlockFile& from, const BlockFile& to, bool first_only)
        : from_(from), to_(to), first_only_(first_only) {}

    PosixResult<std::vector<ByteRange>> run() {
        const uint64_t common = std::min(from_.size(), to_.size());
        const uint64_t whole = std::max(from_.size(), to_.size());
        if (first_only_ && common != whole) {
            add(common, whole);
            return std::move(ranges_);
        }
        Extents from(from_);
        Extents to(to_);
        for (uint64_t offset = 0; offset < common && !done();) {
            const BlockExtent& a = from.at(offset);
            const BlockExtent& b = to.at(offset);
            const uint64_t end = std::min({a.offset + a.length, b.offset + b.length, common});
            IVMM_ASSIGN(const bool same, same_source(from, a, to, b));
            if (!same) {
                IVMM_TRY(compare(offset, end));
            }
            offset = end;
        }
        if (common != whole) {
            add(common, whole);
        }
        if (!ranges_.empty()) {
            auto& last = ranges_.back();
            last.length = std::min(last.length, whole - last.offset);
        }
        return std::move(ranges_);
    }

 private:
    bool done() const { return first_only_ && !ranges_.empty(); }

    /// The blocks of these bytes are changed.
    void add(uint64_t offset, uint64_t end) {
        const uint64_t first = align_down(offset, kBlockSize);
        const uint64_t last = align_down(end - 1, kBlockSize) + kBlockSize;
        if (!ranges_.empty() && first <= ranges_.back().offset + ranges_.back().length) {
            ranges_.back().length = last - ranges_.back().offset;
        } else {
            ranges_.push_back({first, last - first});
        }
    }

    PosixResult<void> compare(uint64_t offset, uint64_t end) {
        while (offset < end && !done()) {
            IVMM_ASSIGN(const uint64_t left, next_data(from_, offset));
            IVMM_ASSIGN(const uint64_t right, next_data(to_, offset));
            offset = std::max(offset, align_down(std::min(left, right), kBlockSize));
            if (offset >= end) {
                break;
            }
            const uint64_t stop = std::min(end, align_down(offset, kBlockSize) + kBufferSize);
            IVMM_TRY(compare_bytes(offset, stop));
            offset = stop;
        }
        return {};
    }

    /// UINT64_MAX: there are no more data.
    static PosixResult<uint64_t> next_data(const BlockFile& file, uint64_t offset) {
        auto found = file.seek_data(offset);
        if (!found && found.error().code == ENXIO) {
            return UINT64_MAX;
        }
        return found;
    }

    PosixResult<void> compare_bytes(uint64_t offset, uint64_t end) {
        const ByteSpan left = ByteSpan(left_).first(end - offset);
        const ByteSpan right = ByteSpan(right_).first(end - offset);
        IVMM_TRY(read(from_, offset, left));
        IVMM_TRY(read(to_, offset, right));
        for (uint64_t at = offset; at < end && !done();) {
            const uint64_t stop = std::min(end, align_down(at, kBlockSize) + kBlockSize);
            const auto block = [&](ByteSpan bytes) {
                return bytes.subspan(at - offset, stop - at);
            };
            if (!std::ranges::equal(block(left), block(right))) {
                add(at, stop);
            }
            at = stop;
        }
        return {};
    }

    static PosixResult<void> read(const BlockFile& file, uint64_t offset, ByteSpan out) {
        IVMM_ASSIGN(const size_t n, file.read(offset, out));
        if (n != out.size()) {
            return posix_error(EIO);  // it is shorter than it was a moment ago
        }
        return {};
    }

    const BlockFile& from_;
    const BlockFile& to_;
    const bool first_only_;
    std::vector<std::byte> left_ = std::vector<std::byte>(kBufferSize);
    std::vector<std::byte> right_ = std::vector<std::byte>(kBufferSize);
    std::vector<ByteRange> ranges_;
};

}  // namespace

PosixResult<std::vector<ByteRange>> changed_ranges(const BlockFile& from, const BlockFile& to,
                                                   bool first_only) {
    return Comparison(from, to, first_only).run();
}

}  // namespace ivmm::storage
