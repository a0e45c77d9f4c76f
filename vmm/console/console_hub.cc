#include "vmm/console/console_hub.h"

#include <sys/timerfd.h>

#include <algorithm>

namespace ivmm {
namespace {

constexpr std::chrono::milliseconds kPause{4};

}  // namespace

Result<std::unique_ptr<ConsoleHub>> ConsoleHub::create() {
    UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!timer) {
        return fail_errno("cannot create a timer");
    }
    return std::unique_ptr<ConsoleHub>(new ConsoleHub(std::move(timer)));
}

void ConsoleHub::console_output(ConstByteSpan bytes) {
    const std::scoped_lock lock(mutex_);
    if (bytes.size() > kScrollback) {
        written_ += bytes.size() - kScrollback;
        bytes = bytes.last(kScrollback);
    }
    while (!bytes.empty()) {
        const size_t at = written_ % kScrollback;
        const size_t n = std::min(bytes.size(), kScrollback - at);
        std::memcpy(ring_.data() + at, bytes.data(), n);
        written_ += n;
        bytes = bytes.subspan(n);
    }
    if (readers_ > 0 && !armed_) {
        armed_ = true;
        // At once if that is in the past; never zero, which would switch the timer off.
        const auto since_boot = next_.time_since_epoch() + std::chrono::nanoseconds(1);
        const auto seconds = std::chrono::floor<std::chrono::seconds>(since_boot);
        itimerspec when{};
        when.it_value.tv_sec = seconds.count();
        when.it_value.tv_nsec = std::chrono::nanoseconds(since_boot - seconds).count();
        ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    }
}

void ConsoleHub::acknowledge() {
    const std::scoped_lock lock(mutex_);
    uint64_t expirations = 0;
    [[maybe_unused]] const auto n = ::read(timer_.get(), &expirations, sizeof expirations);
    armed_ = false;
    next_ = std::chrono::steady_clock::now() + kPause;
}

ConsoleHub::Reader::Reader(ConsoleHub& hub) : hub_(hub) {
    const std::scoped_lock lock(hub_.mutex_);
    position_ = hub_.written_ - std::min<uint64_t>(hub_.written_, kScrollback);
    ++hub_.readers_;
}

ConsoleHub::Reader::~Reader() {
    const std::scoped_lock lock(hub_.mutex_);
    --hub_.readers_;
}

ConsoleHub::Chunk ConsoleHub::Reader::read(size_t limit) {
    const std::scoped_lock lock(hub_.mutex_);
    Chunk chunk;
    if (hub_.written_ - position_ > kScrollback) {
        chunk.lost = hub_.written_ - kScrollback - position_;
        position_ += chunk.lost;
    }
    chunk.bytes.resize(std::min<uint64_t>(limit, hub_.written_ - position_));
    for (size_t done = 0; done < chunk.bytes.size();) {
        const size_t at = position_ % kScrollback;
        const size_t n = std::min(chunk.bytes.size() - done, kScrollback - at);
        std::memcpy(chunk.bytes.data() + done, hub_.ring_.data() + at, n);
        position_ += n;
        done += n;
    }
    return chunk;
}

}  // namespace ivmm
