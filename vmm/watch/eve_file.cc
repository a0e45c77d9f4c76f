#include "vmm/watch/eve_file.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "vmm/watch/eve.h"

namespace ivmm::watch {
namespace {

constexpr size_t kPart = size_t{64} << 10;
constexpr long kIdleNs = 100'000'000;
constexpr long kBusyNs = 1'000'000;

void set_timer(int timer, long ns) {
    const itimerspec when{{0, 0}, {0, ns}};
    ::timerfd_settime(timer, 0, &when, nullptr);
}

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
    made->timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!made->timer_) {
        return fail_errno("cannot create a timer");
    }
    // The next part only in the loop's next round: the socket is drained in between.
    IVMM_ASSIGN(made->watch_,
                loop.watch(made->timer_.get(), EPOLLIN, [self = made.get()](uint32_t) {
                    set_timer(self->timer_.get(), self->file_.read() ? kBusyNs : kIdleNs);
                }));
    set_timer(made->timer_.get(), kIdleNs);
    return made;
}

}  // namespace ivmm::watch
