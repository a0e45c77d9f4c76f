#include "vmm/live/top.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <csignal>
#include <functional>
#include <optional>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/timer.h"
#include "base/utc_time.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/live/evidence_job.h"
#include "vmm/live/host_state.h"
#include "vmm/live/top_actions.h"
#include "vmm/live/top_screen.h"

namespace ivmm::live {
namespace {

using rpc::Json;

constexpr const char* kKeys = "q quit  up/down select  f freeze/thaw  u undivert  e evidence";

/// `ivmm top` on a terminal: what it shows, and what its keys do.
class Top {
 public:
    explicit Top(EventLoop& loop) : loop_(loop) {}

    /// Asks everybody, and shows what they say.
    void refresh() {
        auto state = host_state(processes_);
        if (!state) {
            foot_ = state.error().message;
        } else {
            const auto now = std::chrono::steady_clock::now();
            seconds_ = std::chrono::duration<double>(now - taken_).count();
            taken_ = now;
            before_ = std::exchange(state_, *std::move(state));
            const auto names = top_names(*state_);
            if (!names.empty() && std::ranges::find(names, selected_) == names.end()) {
                selected_ = names.front();
            }
        }
        draw();
    }

    void draw() {
        if (!state_) {
            screen_.show("ivmm top", {}, foot_);
            return;
        }
        TopView view;
        view.state = &*state_;
        view.before = before_ ? &*before_ : nullptr;
        view.seconds = seconds_;
        view.selected = selected_;
        const std::string foot = question_.empty() ? foot_ : question_ + " (y/n)";
        screen_.show(fmt::format("ivmm top  {}  {}", utc_time(), kKeys), draw_top(view), foot);
    }

    void take_keys() {
        std::array<char, 256> bytes{};
        const ssize_t n = ::read(STDIN_FILENO, bytes.data(), bytes.size());
        if (n <= 0) {
            loop_.stop();
            return;
        }
        std::string_view keys(bytes.data(), static_cast<size_t>(n));
        while (!keys.empty()) {
            if (keys.size() >= 3 && keys[0] == '\x1b' && (keys[1] == '[' || keys[1] == 'O')) {
                press(keys[2] == 'A' ? 'k' : keys[2] == 'B' ? 'j' : '\0');
                keys.remove_prefix(3);
            } else {
                press(keys[0]);
                keys.remove_prefix(1);
            }
        }
        draw();
    }

 private:
    void press(char key) {
        constexpr char kControlC = 3;
        if (key == kControlC || (key == 'q' && question_.empty())) {
            loop_.stop();
            return;
        }
        if (!question_.empty()) {
            const auto act = std::exchange(answer_, {});
            question_.clear();
            foot_ = "nothing was done";
            if (key == 'y') {
                act();
            }
            return;
        }
        switch (key) {
            case 'j':
                return select(1);
            case 'k':
                return select(-1);
            case 'f':
                return ask("freeze or thaw", &freeze_or_thaw);
            case 'u':
                return ask("give back to the primary all that goes to", &undivert_all);
            case 'e':
                return ask("collect the evidence here of",
                           [this](const std::string& clone) { return collect_evidence(clone); });
            default:
                return;
        }
    }

    void select(int step) {
        const auto names = state_ ? top_names(*state_) : std::vector<std::string>();
        const auto at = std::ranges::find(names, selected_);
        if (at != names.end()) {
            const auto last = static_cast<int>(names.size()) - 1;
            const int next = static_cast<int>(at - names.begin()) + step;
            selected_ = names[static_cast<size_t>(std::clamp(next, 0, last))];
        }
    }

    Result<std::string> collect_evidence(const std::string& clone) {
        if (evidence_) {
            return fail("evidence is being collected already");
        }
        std::array<char, PATH_MAX> here{};
        if (::getcwd(here.data(), here.size()) == nullptr) {
            return fail_errno("there is no current folder");
        }
        const std::string folder = fmt::format("{}/evidence-{}-{}", here.data(), clone, utc_time());
        IVMM_ASSIGN(evidence_, EvidenceJob::start(loop_, clone, folder, [this](std::string said) {
                        foot_ = printable(std::move(said));
                        evidence_.reset();
                        draw();
                    }));
        return "evidence goes to " + folder;
    }

    void ask(const char* what, const std::function<Result<std::string>(const std::string&)>& act) {
        if (selected_.empty()) {
            return;
        }
        question_ = fmt::format("{} {}?", what, selected_);
        answer_ = [this, act, name = selected_] {
            const auto outcome = act(name);
            foot_ = printable(outcome ? *outcome : outcome.error().message);
            refresh();
        };
    }

    EventLoop& loop_;
    RunningProcesses processes_;
    std::optional<Json> state_;
    std::optional<Json> before_;
    std::chrono::steady_clock::time_point taken_;
    double seconds_ = 0;
    std::string selected_;
    std::string foot_;
    std::string question_;  // that a key has to answer
    std::function<void()> answer_;
    TopScreen screen_;
    std::unique_ptr<EvidenceJob> evidence_;  // while there is one
};

/// A descriptor that is readable when the terminal has another size.
Result<UniqueFd> resizes() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGWINCH);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    UniqueFd fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!fd) {
        return fail_errno("cannot create a signalfd");
    }
    return fd;
}

Result<void> interact() {
    if (::isatty(STDOUT_FILENO) == 0 || ::isatty(STDIN_FILENO) == 0) {
        return fail_as(ErrorKind::kUsage,
                       "`ivmm top` needs a terminal; --once prints one picture, --json what is in "
                       "it");
    }
    const EndSignals blocked;
    IVMM_ASSIGN(auto loop, EventLoop::create());
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto resized, resizes());
    Top top(*loop);
    IVMM_ASSIGN(const auto signal_watch, loop->watch(signals.get(), EPOLLIN, [&](uint32_t) {
        if (EndSignals::take(signals.get())) {
            loop->stop();
        }
    }));
    IVMM_ASSIGN(const auto resize_watch, loop->watch(resized.get(), EPOLLIN, [&](uint32_t) {
        EndSignals::take(resized.get());
        top.draw();
    }));
    IVMM_ASSIGN(auto timer, Timer::create(*loop, [&] { top.refresh(); }));
    timer.set_every(std::chrono::seconds(1));
    IVMM_ASSIGN(const auto key_watch,
                loop->watch(STDIN_FILENO, EPOLLIN, [&](uint32_t) { top.take_keys(); }));
    top.refresh();
    loop->run();
    return {};
}

Result<void> print_once(const TopOptions& options) {
    RunningProcesses processes;
    IVMM_ASSIGN(const auto state, host_state(processes));
    if (options.as_json) {
        cli::print("{}\n", state.dump(2, ' ', false, Json::error_handler_t::replace));
        return {};
    }
    TopView view;
    view.state = &state;
    for (const auto& line : draw_top(view)) {
        cli::print("{}\n", line.text);
    }
    return {};
}

}  // namespace

int run_top(const TopOptions& options) {
    const auto outcome = options.once || options.as_json ? print_once(options) : interact();
    return outcome ? 0 : cli::report(outcome.error());
}

}  // namespace ivmm::live
