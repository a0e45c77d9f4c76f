#include "vmm/peer/page_sender.h"

#include <sys/random.h>

#include <algorithm>
#include <array>

#include "memory/guest_memory.h"
#include "vmm/peer/packing.h"

namespace ivmm::peer {

static_assert(PageSender::kBatchPages * kPageSize <= kMaxPiece);

uint64_t random_number() {
    uint64_t number = 0;
    // Never shorter, nor interrupted, for so few bytes.
    static_cast<void>(::getrandom(&number, sizeof number, 0));
    return number;
}

PageSender::PageSender(uint64_t pages) : pending_(pages), unsure_(pages), seed_(random_number()) {
    const std::array<std::byte, kPageSize> page{};
    zero_ = XXH3_128bits_withSeed(page.data(), page.size(), seed_);
    hashes_.assign(pages, zero_);
}

bool PageSender::is_zero_hash(uint64_t page) const {
    return XXH128_isEqual(hashes_[page], zero_) != 0;
}

std::optional<PageSender::Batch> PageSender::next(const Source& source) {
    std::vector<std::byte> content(kBatchPages * kPageSize);
    uint64_t taken = 0;
    Batch batch;
    for (uint64_t looked = 0; looked < kLookPages && taken < kBatchPages; ++looked) {
        const auto page = pending_.next(cursor_);
        if (!page) {
            if (cursor_ == 0) {
                break;
            }
            cursor_ = 0;
            continue;
        }
        cursor_ = *page + 1;
        pending_.erase(*page);
        // Read once: what is looked at must be what is sent.
        std::byte* const copy = content.data() + taken * kPageSize;
        source(*page, 1, copy);
        const XXH128_hash_t hash = XXH3_128bits_withSeed(copy, kPageSize, seed_);
        if (!unsure_.contains(*page) && XXH128_isEqual(hash, hashes_[*page]) != 0) {
            continue;
        }
        hashes_[*page] = hash;
        unsure_.erase(*page);
        auto& runs = batch.message.runs;
        if (!runs.empty() && runs.back().first + runs.back().count == *page) {
            ++runs.back().count;
        } else {
            runs.push_back({*page, 1});
        }
        ++taken;
    }
    if (taken == 0) {
        return std::nullopt;
    }
    batch.message.number = ++number_;
    batch.packed = pack(ConstByteSpan(content).first(taken * kPageSize));
    in_flight_.push_back({number_, batch.message.runs});
    return batch;
}

void PageSender::applied(uint64_t number) {
    while (!in_flight_.empty() && in_flight_.front().number <= number) {
        in_flight_.pop_front();
    }
}

void PageSender::resume(uint64_t number) {
    applied(number);
    for (const auto& batch : in_flight_) {
        for (const auto& run : batch.runs) {
            for (uint64_t page = run.first; page < run.first + run.count; ++page) {
                pending_.insert(page);
                unsure_.insert(page);
            }
        }
    }
    in_flight_.clear();
    number_ = number;
}

void PageSender::start_over() {
    for (uint64_t page = 0; page < hashes_.size(); ++page) {
        if (unsure_.contains(page) || !is_zero_hash(page)) {
            pending_.insert(page);
        }
    }
    unsure_.clear();
    hashes_.assign(hashes_.size(), zero_);
    in_flight_.clear();
    number_ = 0;
}

}  // namespace ivmm::peer
