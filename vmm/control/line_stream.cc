#include "vmm/control/line_stream.h"

#include <sys/socket.h>

#include <cerrno>

namespace ivmm {
namespace {

constexpr size_t kReadSize = size_t{16} << 10;

bool would_block(int error) {
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

LineStream::Fill LineStream::fill() {
    input_.erase(0, consumed_);
    scanned_ -= consumed_;
    consumed_ = 0;
    if (input_.size() > kMaxLine) {
        return Fill::kTooLong;
    }
    if (input_.empty() && input_.capacity() > kReadSize) {
        input_.shrink_to_fit();
    }
    const size_t before = input_.size();
    input_.resize(before + kReadSize);
    const ssize_t n = ::recv(fd(), input_.data() + before, kReadSize, MSG_DONTWAIT);
    const int error = errno;
    input_.resize(before + static_cast<size_t>(n > 0 ? n : 0));
    if (n > 0 || (n < 0 && would_block(error))) {
        return Fill::kOk;
    }
    return Fill::kEnd;
}

std::optional<std::string_view> LineStream::next_line() {
    const size_t end = input_.find('\n', scanned_);
    if (end == std::string::npos) {
        scanned_ = input_.size();
        return std::nullopt;
    }
    const std::string_view line = std::string_view(input_).substr(consumed_, end - consumed_);
    consumed_ = end + 1;
    scanned_ = consumed_;
    return line;
}

void LineStream::queue(std::string_view line) {
    output_ += line;
    output_ += '\n';
}

bool LineStream::flush() {
    while (queued() > 0) {
        const ssize_t n =
            ::send(fd(), output_.data() + written_, queued(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (!would_block(errno)) {
                return false;
            }
            break;
        }
        written_ += static_cast<size_t>(n);
    }
    output_.erase(0, written_);
    written_ = 0;
    return true;
}

}  // namespace ivmm
