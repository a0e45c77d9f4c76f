#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/console_port.h"

namespace ivmm {

/// Keeps the last 64 KiB of what a guest prints and hands them to any number of readers, each at
/// its own pace. A reader that is too slow loses the oldest bytes and is told how many; the guest
/// never waits and memory never grows.
class ConsoleHub final : public ConsoleOutput {
 public:
    static constexpr size_t kScrollback = size_t{64} << 10;

    struct Chunk {
        uint64_t lost = 0;  ///< bytes that this reader has missed right before `bytes`
        std::string bytes;
    };

    /// A place in the stream; begins at the oldest byte that is kept. Must not outlive the hub.
    class Reader {
     public:
        explicit Reader(ConsoleHub& hub);
        Reader(const Reader&) = delete;
        Reader& operator=(const Reader&) = delete;
        ~Reader();
        /// The next bytes, at most `limit`; none when the reader has seen everything.
        Chunk read(size_t limit);

     private:
        ConsoleHub& hub_;
        uint64_t position_;
    };

    static Result<std::unique_ptr<ConsoleHub>> create();

    /// Any thread.
    void console_output(ConstByteSpan bytes) override;

    /// Becomes readable when there is new output for readers, but no sooner than a few milliseconds
    /// after the last acknowledge(), so that a guest that prints single bytes does not cause a
    /// wake-up for each.
    int ready_fd() const { return timer_.get(); }
    /// To be called when ready_fd() is readable, before reading.
    void acknowledge();

 private:
    explicit ConsoleHub(UniqueFd timer) : timer_(std::move(timer)) {}

    const UniqueFd timer_;
    std::mutex mutex_;  // guards what follows; nothing else is locked while it is held
    std::array<char, kScrollback> ring_{};
    uint64_t written_ = 0;  // bytes ever; byte i is at ring_[i % kScrollback]
    uint32_t readers_ = 0;
    bool armed_ = false;
    std::chrono::steady_clock::time_point next_;  // when readers may be woken again
};

}  // namespace ivmm
