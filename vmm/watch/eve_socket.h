#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"

namespace ivmm::watch {

/// The Unix datagram socket to which Suricata writes its EVE events, one a datagram. On the loop's
/// thread; what was given must outlive it.
class EveSocket {
 public:
    /// Takes a line; one that was too long is cut off after kMaxEveLine + 1 bytes.
    using Take = std::function<void(std::string_view line)>;

    /// Makes the socket. One that somebody has left behind is replaced. Errors: somebody reads
    /// from it, or something else is there.
    static Result<std::unique_ptr<EveSocket>> open(EventLoop& loop, const std::string& path,
                                                   Take take);
    EveSocket(const EveSocket&) = delete;
    EveSocket& operator=(const EveSocket&) = delete;
    /// Removes the socket.
    ~EveSocket();

 private:
    EveSocket(UniqueFd socket, std::string path, Take take);
    void drain();

    UniqueFd socket_;
    const std::string path_;
    const Take take_;
    std::vector<char> line_;
    EventLoop::Watch watch_;
};

}  // namespace ivmm::watch
