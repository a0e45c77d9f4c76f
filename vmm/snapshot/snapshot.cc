#include "vmm/snapshot/snapshot.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/unique_fd.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "vmm/config/validate.h"
#include "vmm/snapshot/container.h"

namespace ivmm {
namespace {

constexpr const char* kGuestSection = "guest";
constexpr const char* kMemorySection = "memory";
constexpr const char* kMachineSection = "machine";

template <StateStruct State>
Result<State> decode_section(const std::vector<Section>& sections, const char* name) {
    IVMM_ASSIGN(const Section* const section, find_section(sections, name));
    auto state = decode_state<State>(section->bytes);
    if (!state) {
        return annotate(std::move(state).error(), fmt::format("section '{}'", name));
    }
    return state;
}

Result<void> check_memory(const SnapshotMemory& memory, const GuestConfig& config) {
    if (memory.bytes != config.memory_bytes || memory.bytes < kMinMemory ||
        memory.bytes % kPageSize != 0) {
        return fail("section 'memory': {} bytes of memory for a guest of {}", memory.bytes,
                    config.memory_bytes);
    }
    const uint64_t pages = memory.bytes / kPageSize;
    const uint64_t words = (pages + PageSet::kPagesPerWord - 1) / PageSet::kPagesPerWord;
    const uint64_t last_bits = pages % PageSet::kPagesPerWord;
    if (memory.pages.size() != (memory.base ? words : 0) ||
        (memory.base && last_bits != 0 && memory.pages.back() >> last_bits != 0)) {
        return fail("section 'memory': its list of pages is not that of {} pages", pages);
    }
    return {};
}

}  // namespace

SnapshotId new_snapshot_id() {
    SnapshotId id{};
    // As few bytes as these are never interrupted, nor refused once the host has booted.
    std::ignore = ::getrandom(id.data(), id.size(), 0);
    return id;
}

std::vector<std::byte> encode_snapshot(const Snapshot& snapshot) {
    return encode_container({{kGuestSection, encode_state(snapshot.guest)},
                             {kMemorySection, encode_state(snapshot.memory)},
                             {kMachineSection, encode_state(snapshot.machine)}});
}

Result<Snapshot> decode_snapshot(ConstByteSpan file) {
    IVMM_ASSIGN(const auto sections, decode_container(file));
    Snapshot snapshot;
    IVMM_ASSIGN(snapshot.guest, decode_section<SnapshotGuest>(sections, kGuestSection));
    IVMM_ASSIGN(snapshot.memory, decode_section<SnapshotMemory>(sections, kMemorySection));
    IVMM_ASSIGN(snapshot.machine, decode_section<MachineState>(sections, kMachineSection));
    const GuestConfig& config = snapshot.guest.config;
    IVMM_TRY(check_memory(snapshot.memory, config));
    if (snapshot.guest.disks.size() != config.disks.size()) {
        return fail("section 'guest': {} disks for a guest with {}", snapshot.guest.disks.size(),
                    config.disks.size());
    }
    if (snapshot.machine.vcpus.size() != config.cpus) {
        return fail("section 'machine': {} vCPUs for a guest with {}",
                    snapshot.machine.vcpus.size(), config.cpus);
    }
    return snapshot;
}

Result<Snapshot> read_snapshot(const std::string& folder) {
    const std::string path = folder + "/" + kMachineFile;
    UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat info {};
    if (!file || ::fstat(file.get(), &info) != 0) {
        return fail_errno("cannot read '{}' (is '{}' the folder of a snapshot?)", path, folder);
    }
    if (!S_ISREG(info.st_mode) || static_cast<uint64_t>(info.st_size) > kMaxContainerSize) {
        return fail("'{}': this is no snapshot of ivmm", path);
    }
    std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
    size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t n = ::read(file.get(), bytes.data() + done, bytes.size() - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("cannot read '{}'", path);
        }
        if (n == 0) {
            break;
        }
        done += static_cast<size_t>(n);
    }
    auto snapshot = decode_snapshot(ConstByteSpan(bytes).first(done));
    if (!snapshot) {
        return annotate(std::move(snapshot).error(), "'" + path + "'");
    }
    return snapshot;
}

}  // namespace ivmm
