#include "vmm/live/evidence_job.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/spawn_settings.h"

namespace ivmm::live {
namespace {

constexpr size_t kKept = 4096;

void wait_for(pid_t process) {
    while (::waitpid(process, nullptr, 0) < 0 && errno == EINTR) {
    }
}

/// The last line that is not empty.
std::string last_line(std::string text) {
    while (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    return text.substr(text.rfind('\n') + 1);
}

}  // namespace

Result<std::unique_ptr<EvidenceJob>> EvidenceJob::start(EventLoop& loop, const std::string& clone,
                                                        const std::string& folder,
                                                        std::function<void(std::string)> on_end) {
    std::unique_ptr<EvidenceJob> job(new EvidenceJob(std::move(on_end)));
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return fail_errno("cannot make a pipe");
    }
    job->output_.reset(ends[0]);
    const UniqueFd input(ends[1]);
    SpawnSettings settings;
    for (const int output : {STDOUT_FILENO, STDERR_FILENO}) {
        ::posix_spawn_file_actions_adddup2(&settings.actions, input.get(), output);
    }
    ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    settings.in_a_session_of_its_own();
    std::array<std::string, 4> words{"ivmm", "evidence", clone, folder};
    std::array<char*, words.size() + 1> argv{};
    for (size_t i = 0; i < words.size(); ++i) {
        argv[i] = words[i].data();
    }
    const int error = ::posix_spawn(&job->pid_, "/proc/self/exe", &settings.actions,
                                    &settings.attributes, argv.data(), environ);
    if (error != 0) {
        job->pid_ = -1;
        errno = error;
        return fail_errno("cannot start `ivmm evidence`");
    }
    IVMM_ASSIGN(job->watch_, loop.watch(job->output_.get(), EPOLLIN,
                                        [raw = job.get()](uint32_t) { raw->read(); }));
    return job;
}

EvidenceJob::~EvidenceJob() {
    if (pid_ > 0) {
        ::kill(pid_, SIGTERM);
        wait_for(pid_);
    }
}

void EvidenceJob::read() {
    std::array<char, 1024> buffer{};
    const ssize_t n = ::read(output_.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
        return;
    }
    if (n > 0) {
        said_.append(buffer.data(), static_cast<size_t>(n));
        said_.erase(0, said_.size() - std::min(said_.size(), kKept));
        return;
    }
    watch_ = {};
    wait_for(std::exchange(pid_, -1));
    const auto on_end = std::move(on_end_);  // it may destroy this
    on_end(last_line(said_));
}

}  // namespace ivmm::live
