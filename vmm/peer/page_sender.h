#pragma once

#include <xxhash.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "memory/page_set.h"
#include "vmm/peer/messages.h"

namespace ivmm::peer {

/// What of a memory is to be sent to a replica on another host, what is on its way, and what is
/// there: of that, a checksum of each page, so that a page that was written and is the same as
/// before is not sent again. Knows nothing of connections; one thread.
class PageSender {
 public:
    /// The replica is all zeroes.
    explicit PageSender(uint64_t pages);

    /// Pages that may differ from the replica's: whoever finds one adds it.
    PageSet& pending() { return pending_; }
    /// Batches that have not arrived yet, as far as is known.
    uint64_t in_flight() const { return in_flight_.size(); }
    /// The number of the last batch, and of the last that has arrived.
    uint64_t last() const { return number_; }
    uint64_t arrived() const { return number_ - in_flight_.size(); }
    /// Whether a page is known to be all zeroes in the replica.
    bool is_zero_there(uint64_t page) const {
        return unsure_.contains(page) ? false : is_zero_hash(page);
    }

    struct Batch {
        Pages message;
        std::vector<std::byte> packed;
    };
    /// Copies pages [first, first + count) to `out`.
    using Source = std::function<void(uint64_t first, uint64_t count, std::byte* out)>;
    /// Takes pages from pending(), up to kBatchPages that have changed; looks at no more than
    /// kLookPages. None: all that it looked at are the same as the replica's.
    std::optional<Batch> next(const Source& source);

    /// The next pages are taken from the first on.
    void rewind() { cursor_ = 0; }

    /// All batches up to this one have arrived.
    void applied(uint64_t number);
    /// A new connection: the replica has these batches and no others.
    void resume(uint64_t applied);
    /// A new replica, all zeroes. Pages that are not zeroes are to be sent again.
    void start_over();

    static constexpr uint64_t kBatchPages = 64;
    static constexpr uint64_t kLookPages = 4096;

 private:
    struct InFlight {
        uint64_t number;
        std::vector<PageRun> runs;
    };
    bool is_zero_hash(uint64_t page) const;

    PageSet pending_;
    PageSet unsure_;  // pages of which nobody knows what the replica has
    std::vector<XXH128_hash_t> hashes_;
    XXH128_hash_t zero_{};
    uint64_t seed_;  // of the checksums, so that no guest can make two pages of the same
    std::deque<InFlight> in_flight_;
    uint64_t number_ = 0;
    uint64_t cursor_ = 0;
};

/// A whole number of 64 random bits.
uint64_t random_number();

}  // namespace ivmm::peer
