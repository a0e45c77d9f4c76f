#include "vmm/guest/clone_witness.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/hex.h"
#include "vmm/control/base64.h"
#include "vmm/guest/own_memory.h"

namespace ivmm {
namespace {

using rpc::Json;

/// Then every other one goes, and they are taken half as often.
constexpr size_t kMostSamples = 512;

int64_t to_ms(std::chrono::system_clock::time_point time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

}  // namespace

Result<std::unique_ptr<CloneWitness>> CloneWitness::begin(ForkPoint fork_point, Machine& machine,
                                                          ConsoleHub& console, EventLoop& loop) {
    std::unique_ptr<CloneWitness> self(new CloneWitness(std::move(fork_point), machine, console));
    IVMM_ASSIGN(self->timer_, Timer::create(loop, [raw = self.get()] { raw->look(); }));
    self->look();
    self->timer_.set_every(self->interval_);
    return self;
}

void CloneWitness::look() {
    if (samples_.size() == kMostSamples) {
        for (size_t i = 0; i < kMostSamples / 2; ++i) {
            samples_[i] = samples_[2 * i];
        }
        samples_.resize(kMostSamples / 2);
        interval_ *= 2;
        timer_.set_every(interval_);
    }
    samples_.push_back(
        {std::chrono::system_clock::now(), own_memory_bytes(), machine_.disk_written_bytes()});
}

Json CloneWitness::what_is_known() {
    Json history = Json::array();
    for (const auto& sample : samples_) {
        history.push_back({to_ms(sample.time), sample.memory_bytes, sample.disk_bytes});
    }
    ConsoleHub::Reader reader(console_);
    const auto printed = reader.read(ConsoleHub::kScrollback);
    return {{"console", encode_base64(printed.bytes)}, {"history", std::move(history)}};
}

Json CloneWitness::testify() {
    Json answer = what_is_known();
    answer["fork_point"] = {
        {"memory", fmt::format("/proc/{}/fd/{}", ::getpid(), fork_point_.image.get())},
        {"registers", encode_hex(encode_state(fork_point_.registers))}};
    return answer;
}

Result<void> CloneWitness::leave(const std::string& path) {
    look();
    const std::string text = what_is_known().dump();
    const UniqueFd file(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file || ::write(file.get(), text.data(), text.size()) != std::ssize(text)) {
        return fail_errno("cannot write '{}'", path);
    }
    return {};
}

}  // namespace ivmm
