#include "vmm/peer/page_receiver.h"

#include "memory/guest_memory.h"
#include "vmm/peer/packing.h"

namespace ivmm::peer {

Result<std::vector<std::byte>> content_of(const Pages& message, ConstByteSpan tail,
                                          uint64_t memory_pages) {
    uint64_t count = 0;
    for (const auto& run : message.runs) {
        if (run.count == 0 || run.count > kMaxPiece / kPageSize || run.first >= memory_pages ||
            run.count > memory_pages - run.first) {
            return fail("there are no {} pages from {} on", run.count, run.first);
        }
        count += run.count;
    }
    if (count == 0 || count > kMaxPiece / kPageSize) {
        return fail("{} pages at once", count);
    }
    std::vector<std::byte> content(count * kPageSize);
    IVMM_TRY(unpack(tail, content));
    return content;
}

}  // namespace ivmm::peer
