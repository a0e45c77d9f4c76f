#include "vmm/cli/console_client.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/control/base64.h"

namespace ivmm {
namespace {

constexpr char kDetachKey = 0x1d;  // Ctrl-]
constexpr size_t kInputChunk = 2048;
constexpr size_t kInputMark = size_t{64} << 10;
constexpr size_t kOutputMark = size_t{64} << 10;
/// A pipe or terminal that is ready takes this much without making us wait.
constexpr size_t kWriteChunk = 4096;
constexpr auto kInputRetry = std::chrono::milliseconds(20);
constexpr auto kDetachPatience = std::chrono::seconds(5);

enum RequestId : int { kSubscribe = 1, kConsole, kInput, kDetach, kStop };

}  // namespace

ConsoleClient::ConsoleClient(UniqueFd socket, std::string guest, bool owns_guest)
    : stream_(std::move(socket)),
      guest_(std::move(guest)),
      owns_guest_(owns_guest),
      input_is_terminal_(::isatty(STDIN_FILENO) == 1) {}

Result<ConsoleClient::Outcome> ConsoleClient::run() {
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    request(kSubscribe, "subscribe", rpc::Json::object());
    request(kConsole, "console", rpc::Json::object());
    while (true) {
        if (!socket_open_ && output_.empty() && !outcome_) {
            outcome_ = interrupted_ ? Outcome::kInterrupted : Outcome::kLost;
        }
        // An ended guest's process closes the connection when it has released everything.
        const bool ended = outcome_ == Outcome::kEnded;
        if (outcome_ && (!ended || (!socket_open_ && output_.empty()))) {
            break;
        }
        send_input();
        if (socket_open_ && !stream_.flush()) {
            socket_open_ = false;
        }
        const short socket_events = static_cast<short>((output_.size() < kOutputMark ? POLLIN : 0) |
                                                       (stream_.queued() > 0 ? POLLOUT : 0));
        const bool wants_input = input_open_ && (input_is_terminal_ ? terminal_.has_value()
                                                                    : input_.size() < kInputMark);
        std::array<pollfd, 4> polled = {{
            {signals.get(), POLLIN, 0},
            {socket_open_ && socket_events != 0 ? stream_.fd() : -1, socket_events, 0},
            {wants_input ? STDIN_FILENO : -1, POLLIN, 0},
            {output_.empty() ? -1 : STDOUT_FILENO, POLLOUT, 0},
        }};
        ::poll(polled.data(), polled.size(), poll_timeout());
        if (detach_by_ && Clock::now() >= *detach_by_) {
            terminal_.reset();
            return fail("the guest's process does not answer; the guest cannot be left alone");
        }
        if (polled[0].revents != 0 && EndSignals::take(signals.get())) {
            interrupt();
        }
        if (polled[1].revents != 0) {
            read_socket();
        }
        if (polled[2].revents != 0) {
            read_input();
        }
        if (polled[3].revents != 0) {
            write_output();
        }
    }
    if (terminal_ && last_written_ != '\n') {
        std::fputc('\n', stderr);
    }
    terminal_.reset();
    return *outcome_;
}

int ConsoleClient::poll_timeout() const {
    std::optional<Clock::time_point> next = detach_by_;
    if (!input_.empty() && input_in_flight_ == 0 && socket_open_) {
        next = next ? std::min(*next, input_after_) : input_after_;
    }
    if (!next) {
        return -1;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now()).count();
    return static_cast<int>(std::max<decltype(left)>(left, 0));
}

void ConsoleClient::request(int id, std::string_view method, const rpc::Json& params) {
    stream_.queue(rpc::make_request(id, method, params));
}

void ConsoleClient::read_socket() {
    const bool more = stream_.fill() == LineStream::Fill::kOk;
    while (const auto line = stream_.next_line()) {
        if (const auto message = rpc::parse_message(*line)) {
            handle(*message);
        }
    }
    socket_open_ = socket_open_ && more;
}

void ConsoleClient::handle(const rpc::Message& message) {
    if (message.method == "console.output") {
        add_output(message.params);
    } else if (message.method == "guest.stopped") {
        if (const auto text = message.params.find("message");
            text != message.params.end() && text->is_string()) {
            message_ = *text;
        }
        if (const auto code = message.params.find("exit_code");
            code != message.params.end() && code->is_number_integer()) {
            exit_code_ = *code;
        }
        outcome_ = Outcome::kEnded;
    } else if (message.id) {
        handle_answer(message);
    }
}

void ConsoleClient::handle_answer(const rpc::Message& message) {
    switch (*message.id) {
        case kConsole:
            // Only now: until the guest runs, its process may have errors to print, and Ctrl-C is
            // for us.
            if (input_is_terminal_) {
                cli::say(fmt::format("console of guest '{}'; Ctrl-] detaches", guest_));
                terminal_.emplace(STDIN_FILENO);
            }
            break;
        case kInput: {
            size_t accepted = input_in_flight_;
            if (const auto count = message.result.find("accepted");
                !message.error && count != message.result.end() && count->is_number_unsigned()) {
                accepted = std::min(accepted, count->get<size_t>());
            }
            if (accepted < input_in_flight_) {
                input_after_ = Clock::now() + kInputRetry;
            }
            input_.erase(0, accepted);
            input_in_flight_ = 0;
            break;
        }
        case kDetach:
            if (!outcome_) {
                outcome_ = Outcome::kDetached;
            }
            break;
        default:
            break;
    }
}

void ConsoleClient::add_output(const rpc::Json& params) {
    if (const auto lost = params.find("lost"); lost != params.end() && lost->is_number_unsigned()) {
        output_ += fmt::format("\r\n[ivmm: {} bytes of output lost]\r\n", lost->get<uint64_t>());
    }
    if (const auto data = params.find("data"); data != params.end() && data->is_string()) {
        output_ += decode_base64(data->get_ref<const std::string&>()).value_or("");
    }
    if (output_gone_) {
        output_.clear();
    }
}

void ConsoleClient::read_input() {
    std::array<char, 4096> buffer{};
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (n <= 0) {
        input_open_ = false;
        if (input_is_terminal_) {
            // A raw terminal has no end of input but its hang-up.
            interrupt();
        }
        return;
    }
    std::string_view typed(buffer.data(), static_cast<size_t>(n));
    if (const size_t key = typed.find(kDetachKey);
        input_is_terminal_ && key != std::string_view::npos) {
        typed = typed.substr(0, key);
        input_open_ = false;
        detach_by_ = Clock::now() + kDetachPatience;
        request(kDetach, "detach", rpc::Json::object());
    }
    // A terminal is always read, for the sake of Ctrl-]; what does not fit is lost.
    typed = typed.substr(0, kInputMark - std::min(kInputMark, input_.size()));
    input_ += typed;
}

void ConsoleClient::send_input() {
    if (input_.empty() || input_in_flight_ > 0 || !socket_open_ || Clock::now() < input_after_) {
        return;
    }
    const std::string_view chunk = std::string_view(input_).substr(0, kInputChunk);
    input_in_flight_ = chunk.size();
    request(kInput, "console.input", {{"data", encode_base64(chunk)}});
}

void ConsoleClient::write_output() {
    const ssize_t n = ::write(STDOUT_FILENO, output_.data(), std::min(output_.size(), kWriteChunk));
    if (n > 0) {
        last_written_ = output_[static_cast<size_t>(n) - 1];
        output_.erase(0, static_cast<size_t>(n));
    } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
        output_gone_ = true;
        output_.clear();
        interrupt();
    }
}

void ConsoleClient::interrupt() {
    if (outcome_ == Outcome::kEnded) {
        return;
    }
    if (!owns_guest_ || interrupted_) {
        outcome_ = Outcome::kInterrupted;
        return;
    }
    interrupted_ = true;
    request(kStop, "stop", rpc::Json::object());
}

}  // namespace ivmm
