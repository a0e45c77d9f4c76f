#include "vmm/evidence/memory.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/hex.h"
#include "base/unique_fd.h"
#include "vmm/evidence/core_file.h"
#include "vmm/evidence/exec_stack.h"
#include "vmm/guest/clone_witness.h"
#include "vmm/snapshot/file_pages.h"
#include "vmm/snapshot/memory_chain.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;

using Programs = std::set<StartedProgram>;

constexpr size_t kMostPrograms = 10'000;
/// The memory is told in so many parts of the same size.
constexpr uint64_t kParts = 256;

struct Past {
    UniqueFd memory;
    uint64_t bytes = 0;
    Registers registers;
};

Result<Past> open_past(const Json& fork_point) {
    Past past;
    const std::string path = fork_point.value("memory", "");
    past.memory.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!past.memory || ::fstat(past.memory.get(), &status) != 0) {
        return fail_errno("cannot open '{}'", path);
    }
    const auto encoded = decode_hex(fork_point.value("registers", ""));
    past.bytes = static_cast<uint64_t>(status.st_size);
    if (past.bytes % kPageSize != 0 || !encoded) {
        return fail("what the clone's process says of its fork makes no sense");
    }
    IVMM_ASSIGN(past.registers, decode_state<Registers>(*encoded));
    return past;
}

void find_programs(ConstByteSpan page, Programs& programs) {
    if (programs.size() < kMostPrograms) {
        if (auto program = find_started_program(page)) {
            programs.insert(*std::move(program));
        }
    }
}

/// What is different between two states of a memory, as they are read.
class Difference {
 public:
    explicit Difference(uint64_t pages)
        : pages_in_part_(std::max<uint64_t>(1, (pages + kParts - 1) / kParts)),
          parts_((pages + pages_in_part_ - 1) / pages_in_part_) {}

    void compare(uint64_t first, ConstByteSpan before, ConstByteSpan after) {
        for (size_t at = 0; at < after.size(); at += kPageSize) {
            const auto old = before.subspan(at, kPageSize);
            const auto now = after.subspan(at, kPageSize);
            find_programs(old, before_);
            if (std::memcmp(old.data(), now.data(), kPageSize) != 0) {
                ++changed_;
                ++parts_[(first + at / kPageSize) / pages_in_part_];
                find_programs(now, after_);
            }
        }
    }

    Json describe(uint64_t bytes) const {
        Json programs = Json::array();
        for (const auto& program : after_) {
            if (!before_.contains(program)) {
                programs.push_back({{"file", program.file},
                                    {"arguments", program.arguments},
                                    {"environment", program.environment},
                                    {"is_cut", program.is_cut}});
            }
        }
        return {{"bytes", bytes},
                {"changed_bytes", changed_ * kPageSize},
                {"part_bytes", pages_in_part_ * kPageSize},
                {"changed_pages_of_parts", parts_},
                {"programs", std::move(programs)}};
    }

 private:
    const uint64_t pages_in_part_;
    uint64_t changed_ = 0;
    std::vector<uint64_t> parts_;
    Programs before_;
    Programs after_;  // of pages that have changed
};

}  // namespace

Result<void> add_fork_memory(Bundle& bundle, const Json& fork_point, const OnProgress& progress) {
    if (!fork_point.is_object()) {
        bundle.add_missing("memory at the fork: the machine's process does not have it");
        return {};
    }
    IVMM_ASSIGN(const auto past, open_past(fork_point));
    IVMM_ASSIGN(const auto path,
                bundle.add("memory-fork.elf", "memory and registers at the instant of the fork"));
    const auto read = [&](uint64_t first, uint64_t /*count*/, ByteSpan out) {
        return read_pages(past.memory.get(), first, out);
    };
    return write_core(path, past.bytes, past.registers.vcpus, read,
                      [&](double done) { return progress("memory at the fork", done); });
}

Result<Json> add_memory(Bundle& bundle, const std::string& folder, const Json& fork_point,
                        const OnProgress& progress) {
    IVMM_ASSIGN(const auto snapshot, read_snapshot(folder));
    IVMM_ASSIGN(const auto memory, MemoryChain::open(folder, snapshot));
    IVMM_ASSIGN(const auto now_path,
                bundle.add("memory.elf", "memory and registers, as an ELF core"));
    if (!fork_point.is_object()) {
        const auto read = [&](uint64_t first, uint64_t count, ByteSpan out) {
            return memory.read(first, count, out);
        };
        IVMM_TRY(write_core(now_path, memory.bytes(), snapshot.machine.vcpus, read,
                            [&](double done) { return progress("memory", done); }));
        return Json();
    }
    IVMM_ASSIGN(const auto past, open_past(fork_point));
    if (past.bytes != memory.bytes()) {
        return fail("its memory at the fork had another size than it has");
    }
    Difference difference(memory.bytes() / kPageSize);
    std::vector<std::byte> before(kPagesAtOnce * kPageSize);
    const auto read_now = [&](uint64_t first, uint64_t count, ByteSpan out) -> Result<void> {
        IVMM_TRY(memory.read(first, count, out));
        const auto old = ByteSpan(before).first(count * kPageSize);
        IVMM_TRY(read_pages(past.memory.get(), first, old));
        difference.compare(first, old, out);
        return {};
    };
    IVMM_TRY(write_core(now_path, memory.bytes(), snapshot.machine.vcpus, read_now,
                        [&](double done) { return progress("memory", done); }));
    const Json changes = difference.describe(memory.bytes());
    IVMM_TRY(bundle.add_text("memory.json",
                             "how much of the memory has changed, and the programs that were "
                             "started, since the fork",
                             to_text(changes)));
    return changes;
}

}  // namespace ivmm::evidence
