#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include <functional>

#include "tests/support/fake_machine.h"
#include "tests/support/temp_dir.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/run_guest.h"
#include "vmm/console/raw_terminal.h"
#include "vmm/control/control_client.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm {
namespace {

using ::testing::HasSubstr;

constexpr int kPatience = 20'000;  // milliseconds; only a failing test waits for so long

GuestConfig guest(const std::string& cmdline = "") {
    GuestConfig config;
    config.name = "g";
    config.cmdline = cmdline;
    return config;
}

int run_fake(const GuestConfig& config, bool detach = false) {
    return run_guest(config, detach, &test::FakeMachine::create);
}

/// Exit code of a process; minus the signal that killed it.
int wait_for(pid_t process) {
    int status = 0;
    EXPECT_EQ(::waitpid(process, &status, 0), process);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Reads until a text has come or nothing comes any more; all that was read.
std::string read_until(int fd, std::string_view text) {
    std::string seen;
    pollfd wanted{fd, POLLIN, 0};
    while (seen.find(text) == std::string::npos && ::poll(&wanted, 1, kPatience) == 1) {
        char buffer[1024];
        const ssize_t n = ::read(fd, buffer, sizeof buffer);
        if (n <= 0) {
            break;
        }
        seen.append(buffer, static_cast<size_t>(n));
    }
    EXPECT_THAT(seen, HasSubstr(std::string(text)));
    return seen;
}

class TerminalTest : public testing::Test {
 protected:
    TerminalTest() {
        ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1);
        int master = -1;
        int slave = -1;
        EXPECT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
        master_ = UniqueFd(master);
        slave_ = UniqueFd(slave);
        ::tcgetattr(slave, &before_);
    }

    /// Runs a program in a session of its own with the terminal.
    pid_t start(const std::function<int()>& program) {
        const pid_t process = ::fork();
        if (process == 0) {
            master_.reset();
            ::setsid();
            // Fails for a second session on the terminal, which only has it open then.
            ::ioctl(slave_.get(), TIOCSCTTY, 0);
            for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
                ::dup2(slave_.get(), descriptor);
            }
            slave_.reset();
            ::_exit(program());
        }
        return process;
    }
    void type(std::string_view text) {
        EXPECT_EQ(::write(master_.get(), text.data(), text.size()), std::ssize(text));
    }
    std::string expect(std::string_view text) { return read_until(master_.get(), text); }
    bool is_raw() const {
        termios now{};
        ::tcgetattr(slave_.get(), &now);
        return (now.c_lflag & (ICANON | ECHO | ISIG)) == 0;
    }
    void expect_restored() const {
        termios now{};
        ASSERT_EQ(::tcgetattr(slave_.get(), &now), 0);
        EXPECT_EQ(now.c_lflag, before_.c_lflag);
        EXPECT_EQ(now.c_iflag, before_.c_iflag);
        EXPECT_EQ(now.c_oflag, before_.c_oflag);
        EXPECT_EQ(now.c_cflag, before_.c_cflag);
    }
    /// Waits until the guest's process has cleaned up.
    void expect_gone() const {
        const auto runtime = RuntimeDir::find();
        for (int i = 0; i < kPatience / 10 && !runtime.running()->empty(); ++i) {
            ::usleep(10'000);
        }
        EXPECT_TRUE(std::filesystem::is_empty(runtime.path()));
    }

    test::TempDir dir_;
    UniqueFd master_;
    UniqueFd slave_;
    termios before_{};
};

TEST_F(TerminalTest, ConsoleUntilThePowerOff) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    EXPECT_TRUE(is_raw());
    type("\x03");  // Ctrl-C is the guest's
    expect("\x03");
    type("\rpoweroff\r");
    expect("the fake guest powered off");
    EXPECT_EQ(wait_for(process), 0);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, PanicIsAFailure) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    type("panic\r");
    expect("the fake guest panicked");
    EXPECT_EQ(wait_for(process), 1);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, DetachAndComeBack) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    type("abc\x1d");
    expect("detached; guest 'g' goes on");
    EXPECT_EQ(wait_for(process), 0);
    expect_restored();
    EXPECT_TRUE(std::filesystem::exists(RuntimeDir::find().log_path("g")));

    const char* const argv[] = {"ivmm", "console", "g"};
    const auto console = [&] { return cli::run_command_line(3, const_cast<char**>(argv)); };
    const pid_t second = start(console);
    expect("fake guest ready");  // what has scrolled by is shown
    EXPECT_TRUE(is_raw());
    type("\x1d");
    expect("detached from guest 'g'");
    EXPECT_EQ(wait_for(second), 0);
    expect_restored();

    const pid_t third = start(console);
    expect("fake guest ready");
    type("\rpoweroff\r");
    expect("the fake guest powered off");
    EXPECT_EQ(wait_for(third), 0);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, SignalsStopTheGuest) {
    for (const int signal : {SIGTERM, SIGHUP, SIGINT}) {
        const pid_t process = start([] { return run_fake(guest()); });
        expect("fake guest ready");
        ::kill(process, signal);
        EXPECT_EQ(wait_for(process), 0);
        expect("stopped");
        expect_restored();
        expect_gone();
    }
}

TEST_F(TerminalTest, SignalToTheGuestsProcessStopsItCleanly) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    const auto status = ControlClient(*RuntimeDir::find().connect("g")).call("status");
    ::kill((*status)["pid"].get<pid_t>(), SIGTERM);
    EXPECT_EQ(wait_for(process), 0);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, KilledConsoleTakesTheGuestAlong) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    ::kill(process, SIGKILL);
    EXPECT_EQ(wait_for(process), -SIGKILL);
    expect_gone();
}

TEST_F(TerminalTest, HangUpTakesTheGuestAlong) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    slave_.reset();
    master_.reset();
    wait_for(process);
    expect_gone();
}

TEST_F(TerminalTest, KilledGuestProcess) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    type("crash\r");
    expect("the process of guest 'g' was killed: Killed");
    EXPECT_EQ(wait_for(process), 1);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, ErrorsBeforeTheStart) {
    pid_t process = start([] { return run_fake(guest("fail-create")); });
    expect("ivmm: no /dev/kvm on this fake host");
    EXPECT_EQ(wait_for(process), 2);
    process = start([] { return run_fake(guest("fail-start")); });
    expect("ivmm: the fake guest does not start");
    EXPECT_EQ(wait_for(process), 1);
    process = start([] { return run_fake(guest("fail-create"), true); });
    expect("ivmm: no /dev/kvm on this fake host");
    EXPECT_EQ(wait_for(process), 2);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, ASecondGuestOfTheNameIsRefused) {
    const pid_t process = start([] { return run_fake(guest()); });
    expect("fake guest ready");
    const pid_t second = start([] { return run_fake(guest(), true); });
    expect("a guest named 'g' is running (pid ");
    EXPECT_EQ(wait_for(second), 1);
    type("poweroff\r");
    EXPECT_EQ(wait_for(process), 0);
}

TEST_F(TerminalTest, InputAndOutputArePipes) {
    int input[2];
    int output[2];
    ASSERT_EQ(::pipe2(input, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(output, O_CLOEXEC), 0);
    std::fflush(nullptr);  // or the child writes what the test program has buffered
    const pid_t process = ::fork();
    if (process == 0) {
        ::dup2(input[0], STDIN_FILENO);
        ::dup2(output[1], STDOUT_FILENO);
        ::close(input[1]);
        ::_exit(run_fake(guest()));
    }
    ::close(input[0]);
    ::close(output[1]);
    // More than the fake guest takes at once; a Ctrl-] in a pipe is a byte like any other.
    const std::string text = std::string(1000, 'a') + "\x1d\rpoweroff\r";
    EXPECT_EQ(::write(input[1], text.data(), text.size()), std::ssize(text));
    ::close(input[1]);
    EXPECT_EQ(read_until(output[0], "poweroff\r"), "fake guest ready\r\n" + text);
    EXPECT_EQ(wait_for(process), 0);
    ::close(output[0]);
}

TEST_F(TerminalTest, ReaderOfTheOutputGoesAway) {
    int output[2];
    ASSERT_EQ(::pipe2(output, O_CLOEXEC), 0);
    const pid_t process = start([&] {
        ::dup2(output[1], STDOUT_FILENO);
        ::close(output[0]);
        ::close(output[1]);
        return run_fake(guest());
    });
    ::close(output[1]);
    read_until(output[0], "fake guest ready");
    ::close(output[0]);
    type("x");
    EXPECT_EQ(wait_for(process), 0);
    expect_restored();
    expect_gone();
}

TEST_F(TerminalTest, RawTerminalIsRestoredByFatalSignalsAndExit) {
    const auto die = [&](const std::function<void()>& how) {
        const pid_t process = ::fork();
        if (process == 0) {
            const RawTerminal raw(slave_.get());
            how();
            ::_exit(0);
        }
        return wait_for(process);
    };
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGQUIT}) {
        EXPECT_EQ(die([&] {
                      EXPECT_TRUE(is_raw());
                      ::raise(signal);
                  }),
                  -signal);
        expect_restored();
    }
    const pid_t process = ::fork();
    if (process == 0) {
        const RawTerminal raw(slave_.get());
        ::exit(3);  // NOLINT(concurrency-mt-unsafe): what is tested
    }
    EXPECT_EQ(wait_for(process), 3);
    expect_restored();
}

TEST_F(TerminalTest, RawTerminalRestoresAtTheEndOfItsScope) {
    {
        const RawTerminal raw(slave_.get());
        EXPECT_TRUE(is_raw());
    }
    expect_restored();
    const RawTerminal no_terminal(-1);  // does nothing
}

}  // namespace
}  // namespace ivmm
