#include "vmm/watch/eve_file.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "vmm/watch/eve.h"

namespace ivmm::watch {
namespace {

constexpr size_t kPart = size_t{64} << 10;
constexpr std::chrono::milliseconds kIdle{100};
constexpr std::chrono::milliseconds kBusy{1};

}  // namespace

EveFile::EveFile(std::string path, Take take) : path_(std::move(path)), take_(std::move(take)) {
    open(true);
}

bool EveFile::open(bool at_end) {
    file_.reset(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    struct stat info {};
    offset_ = 0;
    if (at_end && file_ && ::fstat(file_.get(), &info) == 0) {
        offset_ = static_cast<uint64_t>(info.st_size);
    }
    line_.clear();
    return static_cast<bool>(file_);
}

bool EveFile::is_current() const {
    struct stat opened {};
    struct stat named {};
    return ::stat(path_.c_str(), &named) != 0 ||
           (::fstat(file_.get(), &opened) == 0 && opened.st_dev == named.st_dev &&
            opened.st_ino == named.st_ino && static_cast<uint64_t>(opened.st_size) >= offset_);
}

bool EveFile::read() {
    if (!file_ && !open(false)) {
        return false;
    }
    std::array<char, kPart> part{};
    const ssize_t n = ::pread(file_.get(), part.data(), part.size(), static_cast<off_t>(offset_));
    if (n > 0) {
        offset_ += static_cast<size_t>(n);
        take({part.data(), static_cast<size_t>(n)});
        return true;
    }
    // Only when all of the old one has been read.
    return !is_current() && open(false);
}

void EveFile::take(std::string_view bytes) {
    while (!bytes.empty()) {
        const size_t end = std::min(bytes.find('\n'), bytes.size());
        line_.append(bytes.substr(0, std::min(end, kMaxEveLine + 1 - line_.size())));
        if (end == bytes.size()) {
            return;
        }
        if (!line_.empty()) {
            take_(line_);
            line_.clear();
        }
        bytes.remove_prefix(end + 1);
    }
}

Result<std::unique_ptr<EveFileReader>> EveFileReader::start(EventLoop& loop,
                                                            const std::string& path,
                                                            EveFile::Take take) {
    std::unique_ptr<EveFileReader> made(new EveFileReader(path, std::move(take)));
    // The next part only in the loop's next round: the socket is drained in between.
    IVMM_ASSIGN(made->timer_, Timer::create(loop, [self = made.get()] {
                    self->timer_.set_once(self->file_.read() ? kBusy : kIdle);
                }));
    made->timer_.set_once(kIdle);
    return made;
}

}  // namespace ivmm::watch
