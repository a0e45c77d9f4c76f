#include "vmm/guest/clone_life.h"

#include "base/log.h"
#include "vmm/config/size.h"
#include "vmm/guest/own_memory.h"

namespace ivmm {
namespace {

constexpr std::chrono::milliseconds kLook{500};

}  // namespace

Result<std::unique_ptr<CloneLife>> CloneLife::begin(const CloneLimits& limits, EventLoop& loop,
                                                    Reaction reaction) {
    std::unique_ptr<CloneLife> life(new CloneLife(limits, std::move(reaction)));
    if (limits.lifetime_s > 0 || limits.memory_bytes > 0) {
        IVMM_ASSIGN(life->timer_, Timer::create(loop, [self = life.get()] { self->look(); }));
        life->timer_.set_every(kLook);
    }
    return life;
}

void CloneLife::look() {
    if (limits_.lifetime_s > 0 && Clock::now() >= end_) {
        timer_.stop();
        log::info("the clone has lived for {} s, and is stopped", limits_.lifetime_s);
        reaction_.stop();
        return;
    }
    if (limits_.memory_bytes == 0 || over_memory_) {
        return;
    }
    if (const uint64_t bytes = own_memory_bytes(); bytes > limits_.memory_bytes) {
        over_memory_ = true;
        log::warning("the clone has {} of memory for itself, its limit is {}: it is paused",
                     format_size(bytes), format_size(limits_.memory_bytes));
        reaction_.pause();
    }
}

double CloneLife::left_s() const {
    const std::chrono::duration<double> left = end_ - Clock::now();
    return std::max(0.0, left.count());
}

void CloneLife::add_to(Metrics& metrics) const {
    if (limits_.lifetime_s > 0) {
        metrics.gauge("ivmm_clone_ends_in_seconds", "How long a clone with a lifetime has.",
                      left_s());
    }
    if (limits_.memory_bytes > 0) {
        metrics.gauge("ivmm_clone_memory_limit_bytes",
                      "Memory for itself with which a clone is paused.",
                      static_cast<double>(limits_.memory_bytes));
    }
}

void CloneLife::describe(rpc::Json& status) const {
    if (limits_.lifetime_s > 0) {
        status["ends_in_s"] = left_s();
    }
    if (limits_.memory_bytes > 0) {
        status["memory_limit_bytes"] = limits_.memory_bytes;
        status["over_memory"] = over_memory_;
    }
}

}  // namespace ivmm
