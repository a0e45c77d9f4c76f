#include "storage/tools/qemu_img.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>

#include "base/spawn_settings.h"
#include "base/unique_fd.h"

namespace ivmm::storage {
namespace {

/// Starts it with both outputs led to `output`.
Result<pid_t> start(const std::vector<std::string>& arguments, int inherited, int output) {
    SpawnSettings settings;
    auto* const actions = &settings.actions;
    int error = ::posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    for (const int target : {STDOUT_FILENO, STDERR_FILENO}) {
        error = error != 0 ? error : ::posix_spawn_file_actions_adddup2(actions, output, target);
    }
    if (inherited >= 0 && error == 0) {
        // Onto itself: it is not closed then.
        error = ::posix_spawn_file_actions_adddup2(actions, inherited, inherited);
    }
    settings.in_a_session_of_its_own();  // Ctrl-C is for us
    std::vector<std::string> words{"qemu-img"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& word : words) {
        argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    pid_t process = -1;
    if (error == 0) {
        error = ::posix_spawnp(&process, argv.front(), actions, &settings.attributes, argv.data(),
                               environ);
    }
    if (error == ENOENT) {
        return fail_as(ErrorKind::kHost,
                       "qcow2 images are made by qemu-img, which is not installed (Debian: "
                       "qemu-utils)");
    }
    if (error != 0) {
        errno = error;
        return fail_errno("cannot start qemu-img");
    }
    return process;
}

/// The last of the "(12.34/100%)" in its output.
double parse_progress(std::string_view text) {
    const size_t end = text.rfind("/100%)");
    const size_t begin = end == text.npos ? end : text.rfind('(', end);
    double percent = 0;
    if (begin != text.npos) {
        std::from_chars(text.data() + begin + 1, text.data() + end, percent);
    }
    return percent / 100;
}

/// What it has said besides its progress, in one line.
std::string parse_complaint(std::string_view text) {
    const size_t begin = text.rfind("qemu-img: ");
    std::string complaint(begin == text.npos ? text : text.substr(begin + 10));
    while (!complaint.empty() && complaint.back() == '\n') {
        complaint.pop_back();
    }
    return complaint;
}

int wait_for(pid_t process) {
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

/// Reads what it says until it ends. Whether it was let.
bool follow(int output, const std::function<bool(double)>& progress, std::string* said) {
    constexpr int kIntervalMs = 200;
    constexpr size_t kKept = 4096;
    while (progress(parse_progress(*said))) {
        pollfd event{output, POLLIN, 0};
        if (::poll(&event, 1, kIntervalMs) <= 0) {
            continue;
        }
        std::array<char, 1024> buffer{};
        const ssize_t n = ::read(output, buffer.data(), buffer.size());
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return true;
        }
        said->append(buffer.data(), n < 0 ? 0 : static_cast<size_t>(n));
        said->erase(0, said->size() - std::min(said->size(), kKept));
    }
    return false;
}

}  // namespace

Result<void> run_qemu_img(const std::vector<std::string>& arguments, int inherited,
                          const std::function<bool(double)>& progress) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return fail_errno("cannot make a pipe");
    }
    const UniqueFd output(ends[0]);
    UniqueFd input(ends[1]);
    IVMM_ASSIGN(const pid_t process, start(arguments, inherited, input.get()));
    input.reset();
    std::string said;
    if (!follow(output.get(), progress, &said)) {
        ::kill(process, SIGTERM);
        wait_for(process);
        return fail("interrupted");
    }
    const int status = wait_for(process);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        const std::string complaint = parse_complaint(said);
        return fail("qemu-img has failed{}{}", complaint.empty() ? "" : ": ", complaint);
    }
    return {};
}

}  // namespace ivmm::storage
