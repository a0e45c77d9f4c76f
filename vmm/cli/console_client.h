#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/console/raw_terminal.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/line_stream.h"

namespace ivmm {

/// Connects this process's standard input and output to a guest's console. On a terminal every
/// key goes to the guest, but for Ctrl-], which detaches.
class ConsoleClient {
 public:
    enum class Outcome {
        kDetached,     ///< the user has typed Ctrl-]
        kEnded,        ///< the guest has ended; see message() and exit_code()
        kLost,         ///< the guest's process is gone, or was never there
        kInterrupted,  ///< by a signal, or because the terminal or the reader of the output went
    };

    /// `socket` is a connection to the guest's control socket. With `owns_guest`, an interruption
    /// asks the guest to stop and waits for that; a second one does not wait.
    ConsoleClient(UniqueFd socket, std::string guest, bool owns_guest);

    /// The caller holds an EndSignals. The terminal is as before when this returns.
    Result<Outcome> run();

    const std::string& message() const { return message_; }
    int exit_code() const { return exit_code_; }

 private:
    using Clock = std::chrono::steady_clock;

    void request(int id, std::string_view method, const rpc::Json& params);
    void handle(const rpc::Message& message);
    void handle_answer(const rpc::Message& message);
    void add_output(const rpc::Json& params);
    void read_input();
    void send_input();
    void write_output();
    void read_socket();
    void interrupt();
    int poll_timeout() const;

    LineStream stream_;
    const std::string guest_;
    const bool owns_guest_;
    const bool input_is_terminal_;
    std::optional<RawTerminal> terminal_;

    bool input_open_ = true;
    std::string input_;              // typed, not yet taken by the guest
    size_t input_in_flight_ = 0;     // of input_: offered to the guest, no answer yet
    Clock::time_point input_after_;  // when to offer again what the guest had no room for
    std::string output_;             // printed by the guest, not yet written
    bool output_gone_ = false;
    char last_written_ = '\n';

    bool socket_open_ = true;
    bool interrupted_ = false;
    std::optional<Clock::time_point> detach_by_;
    std::optional<Outcome> outcome_;
    std::string message_;
    int exit_code_ = 1;
};

}  // namespace ivmm
