#include "vmm/evidence/confined.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <memory>

#include "base/printable.h"
#include "base/unique_fd.h"

namespace ivmm::evidence {
namespace {

constexpr size_t kMostLine = size_t{1} << 20;
// What a line begins with.
constexpr char kLine = ' ';
constexpr char kError = '!';

constexpr std::array kAllowed = {
    SCMP_SYS(read),
    SCMP_SYS(pread64),
    SCMP_SYS(write),
    SCMP_SYS(lseek),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(mprotect),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(sched_yield),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    // What the sanitizers' own code does, as in looking whether memory can be read.
    SCMP_SYS(pipe2),
    SCMP_SYS(close),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(readlink),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
#endif
};

/// What is not allowed fails with EPERM.
bool filter_system_calls() {
    const std::unique_ptr<void, void (*)(void*)> filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)),
                                                        ::seccomp_release);
    if (!filter) {
        return false;
    }
    for (const int call : kAllowed) {
        if (::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0) != 0) {
            return false;
        }
    }
    return ::seccomp_load(filter.get()) == 0;
}

bool limit(__rlimit_resource_t what, uint64_t most) {
    const rlimit value{most, most};
    return ::setrlimit(what, &value) == 0;
}

void close_others(std::vector<int> kept) {
    std::ranges::sort(kept);
    unsigned next = 0;
    for (const int descriptor : kept) {
        const auto number = static_cast<unsigned>(descriptor);
        if (number > next) {
            ::close_range(next, number - 1, 0);
        }
        next = number + 1;
    }
    ::close_range(next, ~0U, 0);
}

bool confine(const Confinement& confinement, int output) {
    auto kept = confinement.descriptors;
    kept.push_back(output);
    close_others(std::move(kept));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    // A sanitizer's shadow takes more addresses than there may be.
    if (!limit(RLIMIT_AS, confinement.memory_bytes)) {
        return false;
    }
#endif
    return ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::prctl(PR_SET_DUMPABLE, 0) == 0 &&
           limit(RLIMIT_CPU, confinement.cpu_s) && limit(RLIMIT_CORE, 0) &&
           limit(RLIMIT_FSIZE, 0) && filter_system_calls();
}

bool write_line(int output, char kind, std::string_view text) {
    std::string line(1, kind);
    line += text;
    line += '\n';
    for (std::string_view rest = line; !rest.empty();) {
        const ssize_t n = ::write(output, rest.data(), rest.size());
        if (n < 0 && errno != EINTR) {
            return false;
        }
        rest.remove_prefix(n > 0 ? static_cast<size_t>(n) : 0);
    }
    return true;
}

[[noreturn]] void be_the_child(const Confinement& confinement, int output,
                               const std::function<Result<void>(const TellLine&)>& work) {
    if (!confine(confinement, output)) {
        write_line(output, kError, "this host cannot confine a process (seccomp)");
        ::_exit(1);
    }
    const auto done = work([&](std::string_view text) { return write_line(output, kLine, text); });
    if (!done) {
        write_line(output, kError, printable(done.error().message));
    }
    ::_exit(done ? 0 : 1);
}

/// A child process, which ends when this object does.
class Child {
 public:
    explicit Child(pid_t pid) : pid_(pid) {}
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            wait();
        }
    }
    int wait() {
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
        return status;
    }

 private:
    pid_t pid_;
};

/// Takes the whole lines out of `text`.
Result<void> take_lines(std::string* text,
                        const std::function<Result<void>(std::string_view)>& on_line,
                        std::string* error) {
    size_t begin = 0;
    for (size_t end = 0; (end = text->find('\n', begin)) != text->npos; begin = end + 1) {
        const std::string_view line(text->data() + begin, end - begin);
        if (line.starts_with(kLine)) {
            IVMM_TRY(on_line(line.substr(1)));
        } else if (error->empty()) {
            *error = printable(std::string(line.substr(std::min<size_t>(line.size(), 1))));
        }
    }
    text->erase(0, begin);
    return text->size() > kMostLine ? fail("a line of it is too long") : Result<void>();
}

Unexpected broken_off(int status) {
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) {
        return fail("it takes too much time");
    }
    return WIFSIGNALED(status)
               ? fail("the process that reads it was ended by signal {}", WTERMSIG(status))
               : fail("the process that reads it has ended (too little memory?)");
}

}  // namespace

Result<void> run_confined(const Confinement& confinement,
                          const std::function<Result<void>(const TellLine&)>& work,
                          const std::function<Result<void>(std::string_view)>& on_line) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return fail_errno("cannot make a pipe");
    }
    const UniqueFd output(ends[0]);
    UniqueFd input(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) {
        return fail_errno("cannot start a process");
    }
    if (pid == 0) {
        be_the_child(confinement, input.get(), work);
    }
    Child child(pid);
    input.reset();
    std::string text;
    std::string error;
    std::array<char, 65536> buffer{};
    while (true) {
        const ssize_t n = ::read(output.get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        text.append(buffer.data(), static_cast<size_t>(n));
        IVMM_TRY(take_lines(&text, on_line, &error));
    }
    const int status = child.wait();
    if (!error.empty()) {
        return fail("{}", error);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return broken_off(status);
    }
    return {};
}

}  // namespace ivmm::evidence
