#include "vmm/snapshot/memory_file.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "vmm/snapshot/file_pages.h"

namespace ivmm {
namespace {

/// One after the other, what of the image goes into the file.
class MemoryWriter {
 public:
    MemoryWriter(int file, int image, uint64_t bytes, const MemoryChain* base)
        : file_(file),
          image_(image),
          base_(base),
          pages_(bytes / kPageSize),
          changed_(pages_),
          content_(kPagesAtOnce * kPageSize),
          base_content_(base == nullptr ? 0 : content_.size()) {
        report_.memory.bytes = bytes;
    }

    uint64_t pages() const { return pages_; }

    /// Some pages from `first` on; gives where to go on.
    Result<uint64_t> step(uint64_t first) {
        if (base_ == nullptr) {
            first = next_data_page(image_, first, pages_);
        }
        const uint64_t count = std::min(kPagesAtOnce, pages_ - first);
        const auto content = ByteSpan(content_).first(count * kPageSize);
        IVMM_TRY(read_pages(image_, first, content));
        if (base_ != nullptr) {
            IVMM_TRY(base_->read(first, count, ByteSpan(base_content_).first(content.size())));
        }
        uint64_t begin = 0;  // of a run of pages that are to be written
        for (uint64_t i = 0; i < count; ++i) {
            if (!take(first + i, i)) {
                IVMM_TRY(write(first, begin, i));
                begin = i + 1;
            }
        }
        IVMM_TRY(write(first, begin, count));
        return first + count;
    }

    MemoryWriteReport finish() {
        report_.memory.checksum = digest_.value();
        if (base_ != nullptr) {
            const auto words = changed_.words();
            report_.memory.pages.assign(words.begin(), words.end());
        }
        return std::move(report_);
    }

 private:
    /// Whether the page at this place of the buffer has to be written.
    bool take(uint64_t page, uint64_t index) {
        const auto content = ConstByteSpan(content_).subspan(index * kPageSize, kPageSize);
        if (base_ != nullptr) {
            if (std::memcmp(content.data(), base_content_.data() + index * kPageSize, kPageSize) ==
                0) {
                return false;
            }
            changed_.insert(page);
        }
        if (is_zero_page(content)) {
            return false;
        }
        digest_.add(page, content);
        return true;
    }

    Result<void> write(uint64_t first, uint64_t begin, uint64_t end) {
        const auto run =
            ConstByteSpan(content_).subspan(begin * kPageSize, (end - begin) * kPageSize);
        report_.written_bytes += run.size();
        return write_pages(file_, first + begin, run);
    }

    const int file_;
    const int image_;
    const MemoryChain* const base_;
    const uint64_t pages_;
    PageSet changed_;
    std::vector<std::byte> content_;
    std::vector<std::byte> base_content_;
    MemoryDigest digest_;
    MemoryWriteReport report_;
};

}  // namespace

MemoryDigest::MemoryDigest() : state_(XXH3_createState(), &XXH3_freeState) {
    XXH3_128bits_reset(state_.get());
}

void MemoryDigest::add(uint64_t page, ConstByteSpan content) {
    XXH3_128bits_update(state_.get(), &page, sizeof page);
    XXH3_128bits_update(state_.get(), content.data(), content.size());
}

std::array<uint64_t, 2> MemoryDigest::value() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return {hash.low64, hash.high64};
}

Result<MemoryWriteReport> write_memory(int file, int image, uint64_t bytes, const MemoryChain* base,
                                       const MemoryProgress& progress) {
    if (base != nullptr && base->bytes() != bytes) {
        return fail("the base has {} bytes of memory, the guest {}", base->bytes(), bytes);
    }
    if (::ftruncate(file, static_cast<off_t>(bytes)) != 0) {
        return fail_errno("cannot make it {} bytes long", bytes);
    }
    MemoryWriter writer(file, image, bytes, base);
    for (uint64_t page = 0; page < writer.pages();) {
        if (!progress(static_cast<double>(page) / static_cast<double>(writer.pages()))) {
            return fail("cancelled");
        }
        IVMM_ASSIGN(page, writer.step(page));
    }
    if (::fdatasync(file) != 0) {
        return fail_errno("cannot write it to the disk");
    }
    return writer.finish();
}

Result<void> check_memory_file(int file, const SnapshotMemory& memory) {
    MemoryDigest digest;
    std::vector<std::byte> content(kPagesAtOnce * kPageSize);
    const uint64_t pages = memory.bytes / kPageSize;
    for (uint64_t first = 0; (first = next_data_page(file, first, pages)) < pages;) {
        const uint64_t count = std::min(kPagesAtOnce, pages - first);
        const auto part = ByteSpan(content).first(count * kPageSize);
        IVMM_TRY(read_pages(file, first, part));
        for (uint64_t i = 0; i < count; ++i) {
            const auto page = ConstByteSpan(part).subspan(i * kPageSize, kPageSize);
            if (!is_zero_page(page)) {
                digest.add(first + i, page);
            }
        }
        first += count;
    }
    if (digest.value() != memory.checksum) {
        return fail("damaged: its checksum does not match");
    }
    return {};
}

}  // namespace ivmm
