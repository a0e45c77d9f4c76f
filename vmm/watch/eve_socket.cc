#include "vmm/watch/eve_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/watch/eve.h"

namespace ivmm::watch {
namespace {

/// So that nobody who writes fast keeps the loop from all else.
constexpr int kMostAtOnce = 256;

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

Result<void> remove_leftover(int socket, const std::string& path, const sockaddr_un& address) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
        return {};  // bind() tells what else there is to tell
    }
    if (!S_ISSOCK(info.st_mode)) {
        return fail("'{}' is there and is not a socket; remove it, or name another one", path);
    }
    if (::connect(socket, generic(address), sizeof address) == 0 || errno != ECONNREFUSED) {
        return fail("somebody uses the socket '{}'; name another one", path);
    }
    if (::unlink(path.c_str()) != 0) {
        return fail_errno("cannot remove '{}', which nobody uses", path);
    }
    return {};
}

}  // namespace

EveSocket::EveSocket(UniqueFd socket, std::string path, Take take)
    : socket_(std::move(socket)),
      path_(std::move(path)),
      take_(std::move(take)),
      line_(kMaxEveLine + 1) {}

EveSocket::~EveSocket() {
    ::unlink(path_.c_str());
}

Result<std::unique_ptr<EveSocket>> EveSocket::open(EventLoop& loop, const std::string& path,
                                                   Take take) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return fail_as(ErrorKind::kUsage, "'{}' is longer than the {} bytes a socket may have",
                       path, sizeof address.sun_path - 1);
    }
    std::copy(path.begin(), path.end(), address.sun_path);
    const auto make = [] {
        return UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    };
    const UniqueFd probe = make();
    UniqueFd socket = make();
    if (!probe || !socket) {
        return fail_errno("cannot create a socket");
    }
    IVMM_TRY(remove_leftover(probe.get(), path, address));
    // The mode of the socket file is the descriptor's: its group, Suricata's perhaps, may write.
    ::fchmod(socket.get(), 0660);
    if (::bind(socket.get(), generic(address), sizeof address) != 0) {
        return fail_errno("cannot make the socket '{}'", path);
    }
    std::unique_ptr<EveSocket> made(new EveSocket(std::move(socket), path, std::move(take)));
    IVMM_ASSIGN(made->watch_, loop.watch(made->socket_.get(), EPOLLIN,
                                         [self = made.get()](uint32_t) { self->drain(); }));
    return made;
}

void EveSocket::drain() {
    for (int i = 0; i < kMostAtOnce; ++i) {
        const ssize_t n = ::recv(socket_.get(), line_.data(), line_.size(), 0);
        if (n < 0) {
            return;  // there is nothing more
        }
        take_({line_.data(), static_cast<size_t>(n)});
    }
}

}  // namespace ivmm::watch
