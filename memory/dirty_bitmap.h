#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "memory/page_set.h"

namespace ivmm {

/// One bit a page; set by any thread, collected by any thread. A page that is marked while it is
/// being collected is either in this collection or in the next, never in none.
class DirtyBitmap {
 public:
    explicit DirtyBitmap(uint64_t pages) : pages_(pages), words_((pages + 63) / 64) {}

    uint64_t pages() const { return pages_; }

    /// Marks [first, last]; the caller has checked the range.
    void mark(uint64_t first, uint64_t last) {
        // A locked instruction, and not a look at the bit first: it orders the write that is being
        // recorded before the mark, so that whoever takes the mark away sees the write.
        for (uint64_t word = first / 64; word <= last / 64; ++word) {
            const uint64_t from = word == first / 64 ? first % 64 : 0;
            const uint64_t to = word == last / 64 ? last % 64 : 63;
            words_[word].fetch_or((~uint64_t{0} << from) & (~uint64_t{0} >> (63 - to)));
        }
    }

    /// Adds what is marked to `out`, a set of as many pages, and clears it here.
    void collect(PageSet& out) {
        const auto words = out.words();
        for (size_t i = 0; i < words_.size(); ++i) {
            if (words_[i].load(std::memory_order_relaxed) != 0) {
                words[i] |= words_[i].exchange(0);
            }
        }
    }

 private:
    uint64_t pages_;
    std::vector<std::atomic<uint64_t>> words_;
};

}  // namespace ivmm
