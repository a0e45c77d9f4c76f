#include "vmm/fork/synchroniser.h"

#include <algorithm>

#include "vmm/fork/stopwatch.h"

namespace ivmm {
namespace {

/// Extra rounds end when one has found so few pages that the next would hardly find fewer, …
constexpr uint64_t kFewPages = 64;
/// … when one did not find clearly fewer than the one before, or after so many.
constexpr uint32_t kMaxRounds = 8;

}  // namespace

Result<std::unique_ptr<Synchroniser>> Synchroniser::start(Machine& machine) {
    IVMM_ASSIGN(auto replica, Replica::create(machine.memory().size()));
    IVMM_ASSIGN(auto tracker, machine.track_dirty());
    return std::unique_ptr<Synchroniser>(
        new Synchroniser(machine, std::move(tracker), std::move(replica)));
}

Synchroniser::Synchroniser(Machine& machine, std::unique_ptr<DirtyTracker> tracker,
                           std::unique_ptr<Replica> replica)
    : machine_(machine),
      tracker_(std::move(tracker)),
      replica_(std::move(replica)),
      pending_(machine.memory().size() / kPageSize) {
    pending_.insert_all();
}

Result<Synchroniser::Round> Synchroniser::round() {
    const Stopwatch watch;
    IVMM_TRY(tracker_->collect(pending_));
    if (empty_) {
        forget_holes();
    }
    Round round = copy();
    round.us = watch.us();
    return round;
}

Result<uint32_t> Synchroniser::approach() {
    uint64_t before = UINT64_MAX;
    for (uint32_t rounds = 1;; ++rounds) {
        IVMM_ASSIGN(const auto found, round());
        if (found.dirty <= kFewPages || found.dirty > before - before / 4 || rounds == kMaxRounds) {
            return rounds;
        }
        before = found.dirty;
    }
}

Result<Synchroniser::Round> Synchroniser::last_round() {
    const Stopwatch watch;
    IVMM_TRY(tracker_->collect_paused(pending_));
    Round round = copy();
    round.us = watch.us();
    return round;
}

Result<void> Synchroniser::begin_anew() {
    IVMM_ASSIGN(replica_, Replica::create(machine_.memory().size()));
    pending_.insert_all();
    empty_ = true;
    return {};
}

Synchroniser::Round Synchroniser::copy() {
    Round round;
    round.dirty = pending_.count();
    round.copied = replica_->update(machine_.memory(), pending_);
    pending_.clear();
    empty_ = false;
    return round;
}

void Synchroniser::forget_holes() {
    const GuestMemory& memory = machine_.memory();
    uint64_t page = 0;
    const auto forget_until = [&](uint64_t end) {
        for (; page < end; ++page) {
            pending_.erase(page);
        }
    };
    while (const auto data = memory.next_data(page)) {
        forget_until(data->first);
        page = data->first + data->count;
    }
    forget_until(pending_.pages());
}

}  // namespace ivmm
