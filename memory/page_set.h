#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ivmm {

/// A set of pages of a guest's memory, by their offset in the memory file: one bit a page. Not
/// thread-safe.
class PageSet {
 public:
    static constexpr uint64_t kPagesPerWord = 64;

    explicit PageSet(uint64_t pages)
        : pages_(pages), words_((pages + kPagesPerWord - 1) / kPagesPerWord) {}

    uint64_t pages() const { return pages_; }
    /// Bit n of word w stands for page 64 * w + n; bits of pages that do not exist stay 0.
    std::span<uint64_t> words() { return words_; }

    void insert(uint64_t page) { words_[page / kPagesPerWord] |= bit(page); }
    void erase(uint64_t page) { words_[page / kPagesPerWord] &= ~bit(page); }
    bool contains(uint64_t page) const { return (words_[page / kPagesPerWord] & bit(page)) != 0; }
    void clear() { words_.assign(words_.size(), 0); }
    void insert_all() {
        words_.assign(words_.size(), ~uint64_t{0});
        if (const uint64_t rest = pages_ % kPagesPerWord; rest != 0) {
            words_.back() = (uint64_t{1} << rest) - 1;
        }
    }

    uint64_t count() const {
        uint64_t count = 0;
        for (const uint64_t word : words_) {
            count += static_cast<uint64_t>(std::popcount(word));
        }
        return count;
    }

    /// The first page of the set from `page` on.
    std::optional<uint64_t> next(uint64_t page) const {
        for (size_t i = page / kPagesPerWord; i < words_.size(); ++i) {
            const uint64_t skipped = i == page / kPagesPerWord ? page % kPagesPerWord : 0;
            if (const uint64_t word = words_[i] & ~uint64_t{0} << skipped; word != 0) {
                return i * kPagesPerWord + static_cast<uint64_t>(std::countr_zero(word));
            }
        }
        return std::nullopt;
    }

    /// Calls `visit(first, count)` for each run of pages of the set, in order; a run does not cross
    /// a multiple of 64.
    template <class Visit>
    void for_each_run(Visit&& visit) const {
        for (size_t i = 0; i < words_.size(); ++i) {
            uint64_t word = words_[i];
            while (word != 0) {
                const auto first = static_cast<unsigned>(std::countr_zero(word));
                const auto count = static_cast<unsigned>(std::countr_one(word >> first));
                visit(i * kPagesPerWord + first, uint64_t{count});
                if (first + count == kPagesPerWord) {
                    break;
                }
                word &= ~uint64_t{0} << (first + count);
            }
        }
    }

 private:
    static uint64_t bit(uint64_t page) { return uint64_t{1} << page % kPagesPerWord; }

    uint64_t pages_;
    std::vector<uint64_t> words_;
};

}  // namespace ivmm
