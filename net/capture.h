#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "net/switch.h"

namespace ivmm::net {

/// Writes what a clone sends and gets into pcapng files, each Place an interface of its own, the
/// verdict as the comment. A thread of its own writes; record() only copies into a bounded buffer,
/// and what finds no room there is counted and told in the comment of the next frame.
class Capture final : public Recorder {
 public:
    struct Options {
        std::string path;                          ///< ".NNNN.pcapng" is appended
        uint64_t most_bytes = uint64_t{64} << 20;  ///< of a file; then the next one begins
        uint32_t most_files = 16;                  ///< the oldest ones go
        size_t buffer_bytes = size_t{8} << 20;
    };

    static Result<std::unique_ptr<Capture>> create(Options options);
    /// Writes what is there.
    ~Capture() override;

    void record(Place place, Direction direction, const Frame& frame,
                std::string_view comment) override;
    uint64_t dropped() const { return dropped_; }

 private:
    explicit Capture(Options options) : options_(std::move(options)) {}
    Result<void> next_file();
    void write_all();
    bool write(ConstByteSpan bytes);

    const Options options_;
    std::mutex mutex_;  // guards the next four; nothing else is locked while it is held
    std::condition_variable changed_;
    std::vector<std::byte> filled_;
    std::vector<size_t> blocks_;  // lengths of what is in filled_
    bool ending_ = false;
    uint64_t dropped_ = 0;         // of record()'s thread
    uint64_t dropped_before_ = 0;  // not told yet

    UniqueFd file_;  // of the thread, as the rest
    uint32_t number_ = 0;
    uint64_t written_ = 0;
    std::thread thread_;
};

}  // namespace ivmm::net
