#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/line_stream.h"

namespace ivmm {

/// One client of the control socket. Requests are answered in their order; while the client does
/// not read its answers, no more of its requests are read, so that what is kept for it is bounded.
/// All on the control thread.
class ControlConnection : public std::enable_shared_from_this<ControlConnection> {
 public:
    /// Serves one line of input.
    using Serve = std::function<void(ControlConnection&, std::string_view line)>;
    /// Makes a further line for the client; nothing when there is none at the moment.
    using Source = std::function<std::optional<std::string>()>;

    ControlConnection(UniqueFd socket, Serve serve)
        : stream_(std::move(socket)), serve_(std::move(serve)) {}

    /// Begins to serve. `on_closed` is called from the loop when the connection is done for; it
    /// may destroy the connection.
    Result<void> start(EventLoop& loop, std::function<void()> on_closed);

    /// Sends a line. A client that lets too many of them pile up is disconnected.
    void send(std::string_view line);

    /// A source of lines that are made only as fast as the client reads them; empty: none.
    void set_source(Source source);
    /// To be called when the source may have more.
    void pump();

    /// Serves no more requests until release(): one of them is being carried out elsewhere.
    void hold();
    void release();

    void set_subscribed(bool subscribed) { subscribed_ = subscribed; }
    bool subscribed() const { return subscribed_; }

    int fd() const { return stream_.fd(); }
    bool has_output() const { return stream_.queued() > 0 && !broken_; }
    /// Writes what the client takes.
    void flush();

 private:
    void on_events(uint32_t events);
    void serve_lines();
    /// Whether more output may be made; if not, on_events() will go on when there is.
    bool has_room();
    void drop();
    void update_events();

    LineStream stream_;
    Serve serve_;
    Source source_;
    EventLoop::Watch watch_;
    uint32_t events_ = 0;
    bool subscribed_ = false;
    bool held_ = false;
    bool waiting_for_room_ = false;
    bool ending_ = false;  // nothing more is read; closed as soon as all is written
    bool broken_ = false;  // nothing more is written either
};

}  // namespace ivmm
