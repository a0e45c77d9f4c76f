#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace ivmm {

/// A stream socket that carries lines, read and written without waiting. One thread.
class LineStream {
 public:
    /// A line may have this many bytes before its '\n'.
    static constexpr size_t kMaxLine = size_t{1} << 20;

    enum class Fill {
        kOk,       ///< something was read, or nothing was there
        kEnd,      ///< the peer writes no more
        kTooLong,  ///< the peer has begun a line beyond kMaxLine; it cannot be read any further
    };

    explicit LineStream(UniqueFd socket) : socket_(std::move(socket)) {}
    int fd() const { return socket_.get(); }

    /// Reads once, at most 16 KiB. Call it when next_line() has nothing more.
    Fill fill();
    /// The next whole line without its end; valid until the next fill().
    std::optional<std::string_view> next_line();

    /// Adds a line (given without its end) to what is to be written.
    void queue(std::string_view line);
    /// How many bytes wait to be written.
    size_t queued() const { return output_.size() - written_; }
    /// Writes what the peer takes; false when the peer is gone.
    bool flush();

 private:
    UniqueFd socket_;
    std::string input_;
    size_t consumed_ = 0;  // of input_, by next_line()
    size_t scanned_ = 0;   // of input_: no line ends between consumed_ and here
    std::string output_;
    size_t written_ = 0;  // of output_
};

}  // namespace ivmm
