#include "vmm/kvm/dirty_log.h"

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "vmm/kvm/ioctl.h"

namespace ivmm {

Result<std::unique_ptr<DirtyLog>> DirtyLog::start(Vm& vm) {
    auto log = std::unique_ptr<DirtyLog>(new DirtyLog(vm));
    IVMM_TRY(vm.set_dirty_logging(true));
    return log;
}

DirtyLog::~DirtyLog() {
    if (const auto ended = vm_.set_dirty_logging(false); !ended) {
        log::warning("cannot end dirty logging: {}", ended.error().message);
    }
}

Result<void> DirtyLog::collect(PageSet& out) {
    return get(out, true);
}

Result<void> DirtyLog::peek(PageSet& out) {
    return get(out, false);
}

Result<void> DirtyLog::get(PageSet& out, bool clear) {
    uint32_t slot = 0;
    for (const auto& region : vm_.memory().regions()) {
        const uint64_t pages = region.size / kPageSize;
        // KVM writes whole 64-bit words.
        std::vector<uint64_t> bits((pages + 63) / 64);
        kvm_dirty_log request{};
        request.slot = slot;
        request.dirty_bitmap = bits.data();
        IVMM_TRY(IVMM_IOCTL(vm_.fd(), KVM_GET_DIRTY_LOG, &request));
        // Before clearing, so that a failure forgets nothing. Both regions begin on a multiple of
        // 64 pages of the file.
        const auto words = out.words().subspan(region.file_offset / kPageSize / 64);
        for (size_t i = 0; i < bits.size(); ++i) {
            words[i] |= bits[i];
        }
        if (clear &&
            std::any_of(bits.begin(), bits.end(), [](uint64_t word) { return word != 0; })) {
            kvm_clear_dirty_log cleared{};
            cleared.slot = slot;
            cleared.num_pages = static_cast<uint32_t>(pages);
            cleared.first_page = 0;
            cleared.dirty_bitmap = bits.data();
            IVMM_TRY(IVMM_IOCTL(vm_.fd(), KVM_CLEAR_DIRTY_LOG, &cleared));
        }
        ++slot;
    }
    return {};
}

}  // namespace ivmm
