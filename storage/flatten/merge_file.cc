#include "storage/flatten/merge_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "storage/block/file_io.h"
#include "storage/tools/reader.h"

namespace ivmm::storage {
namespace {

using Extent = BlockExtent;

constexpr uint64_t round_down(uint64_t offset) {
    return offset / kBlockSize * kBlockSize;
}
constexpr uint64_t round_up(uint64_t offset) {
    return round_down(offset + kBlockSize - 1);
}

Unexpected failed(Errno error) {
    return {{ErrorKind::kFailed, error.code, error_text(error.code)}};
}

Result<UniqueFd> make_file(int directory, const char* path) {
    UniqueFd file(
        ::openat(directory, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) {
        return failed({errno});
    }
    return file;
}

/// Calls `copy` for the extents of a file, in pieces, until it gives an error.
PosixResult<void> for_pieces(const BlockFile& file,
                             const std::function<PosixResult<void>(const Extent&)>& copy) {
    constexpr uint64_t kPiece = 16 << 20;
    PosixResult<void> outcome;
    file.for_each_extent([&](const Extent& extent) {
        Extent piece = extent;
        for (uint64_t done = 0; done < extent.length && outcome; done += piece.length) {
            piece.offset = extent.offset + done;
            piece.length = extent.kind == Extent::Kind::kZero
                               ? extent.length
                               : std::min(kPiece, extent.length - done);
            outcome = copy(piece);
        }
    });
    return outcome;
}

PosixResult<void> tell(const GoOn& go_on, uint64_t bytes) {
    return go_on(bytes) ? PosixResult<void>() : posix_error(ECANCELED);
}

/// What a file of the run is a part of below the run, through parts in other layers of the run.
PosixResult<std::optional<RunTree::Below>> lower_of(const RunTree& tree, Place from) {
    while (true) {
        IVMM_ASSIGN(const auto mark, from.layer->marks().block_part(from.at()));
        if (!mark) {
            return std::optional<RunTree::Below>();
        }
        IVMM_ASSIGN(auto lower, tree.resolve(*from.layer, mark->lower_path));
        if (lower.parts.empty()) {
            if (!lower.below) {
                return posix_error(ENOENT);
            }
            return std::move(lower.below);
        }
        from = std::move(lower.parts.front());
    }
}

PosixResult<void> copy_whole(const BlockFile& source, int to, const GoOn& go_on) {
    if (::ftruncate(to, static_cast<off_t>(source.size())) != 0) {
        return last_posix_error();
    }
    return for_pieces(source, [&](const Extent& piece) -> PosixResult<void> {
        if (piece.kind == Extent::Kind::kZero) {
            return {};
        }
        IVMM_TRY(copy_range(source.extent_fd(piece), to, piece.offset, piece.length));
        return tell(go_on, piece.length);
    });
}

/// A file of a run and what it is a part of below the run.
class PartMerge {
 public:
    PartMerge(std::shared_ptr<const BlockFile> source, std::shared_ptr<const BlockFile> lower)
        : source_(std::move(source)),
          lower_(std::move(lower)),
          run_depth_(source_->depth() - lower_->depth()) {}

    /// The end of what shows of the lower file; 0: nothing does.
    uint64_t lower_end() const {
        uint64_t end = 0;
        source_->for_each_extent([&](const Extent& extent) {
            if (is_lower(extent)) {
                end = extent.offset + extent.length;
            }
        });
        return end;
    }

    /// Writes an empty part so that it shows the same over the lower file.
    Result<void> copy_to(BlockFile::Part part, const GoOn& go_on) const {
        IVMM_TRY(BlockFile::create_part(part, lower_->size()));
        IVMM_ASSIGN(const auto file, BlockFile::open(lower_, std::move(part), true));
        const auto copied = [&]() -> PosixResult<void> {
            if (const uint64_t end = lower_end(); end < lower_->size()) {
                IVMM_TRY(file->truncate(end));
            }
            if (file->size() != source_->size()) {
                IVMM_TRY(file->truncate(source_->size()));
            }
            const auto pieces = for_pieces(*source_, [&](const Extent& piece) -> PosixResult<void> {
                if (is_lower(piece)) {
                    return {};
                }
                if (piece.kind == Extent::Kind::kZero) {
                    return zero(*file, piece);
                }
                IVMM_TRY(copy(*file, piece));
                return tell(go_on, piece.length);
            });
            IVMM_TRY(pieces);
            return file->flush();
        }();
        return copied ? Result<void>() : failed(copied.error());
    }

 private:
    bool is_lower(const Extent& extent) const {
        return extent.kind == Extent::Kind::kData && extent.depth >= run_depth_;
    }

    static PosixResult<void> zero(BlockFile& file, const Extent& extent) {
        // What begins within a block ends what its file gives of it.
        const uint64_t begin = round_up(extent.offset);
        const uint64_t end = extent.offset + extent.length;
        return begin < end ? file.zero(begin, end - begin, true) : PosixResult<void>();
    }

    PosixResult<void> copy(BlockFile& file, const Extent& extent) const {
        const uint64_t end = extent.offset + extent.length;
        const uint64_t whole = end == source_->size() ? end : round_down(end);
        IVMM_TRY(file.copy_from(source_->extent_fd(extent), extent.offset, whole - extent.offset));
        if (whole == end) {
            return {};
        }
        std::array<std::byte, kBlockSize> block{};
        IVMM_ASSIGN(const size_t n, source_->read(whole, block));
        return file.write(whole, ConstByteSpan(block).first(n));
    }

    std::shared_ptr<const BlockFile> source_;
    std::shared_ptr<const BlockFile> lower_;
    uint32_t run_depth_;
};

}  // namespace

Result<void> merge_file(const RunTree& tree, const Place& from, Layer& target, At to,
                        const GoOn& go_on) {
    IVMM_ASSIGN(const auto source, open_file(tree.stack(), from));
    IVMM_ASSIGN(UniqueFd data, make_file(to.dir, to.path));
    const auto below = lower_of(tree, from);
    if (!below) {
        return failed(below.error());
    }
    if (*below) {
        IVMM_ASSIGN(const auto lower, open_file(tree.below(), (*below)->places.front()));
        const PartMerge merge(source, lower);
        if (merge.lower_end() != 0) {
            const std::string map_name = target.unique_name();
            IVMM_ASSIGN(UniqueFd map, make_file(target.maps(), map_name.c_str()));
            const auto marked = target.marks().set_block_part(to, {map_name, (*below)->path});
            if (!marked) {
                return failed(marked.error());
            }
            return merge.copy_to({std::move(data), std::move(map)}, go_on);
        }
    }
    const auto copied = copy_whole(*source, data.get(), go_on);
    return copied ? Result<void>() : failed(copied.error());
}

}  // namespace ivmm::storage
