#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "vmm/snapshot/container.h"
#include "vmm/snapshot/snapshot.h"

/// The file `machine` of a snapshot, of the input's choice: refused, or what it says is what is
/// written again. The first byte of the input says whether the rest is the file, or a section of
/// one whose checksums match.
using namespace ivmm;

namespace {

bool same(ConstByteSpan a, ConstByteSpan b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

std::vector<Section> good_sections() {
    Snapshot snapshot;
    snapshot.memory.bytes = snapshot.guest.config.memory_bytes;
    snapshot.machine.vcpus.resize(1);
    return *decode_container(encode_snapshot(snapshot));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const auto input = std::as_bytes(std::span(data, size)).subspan(1);
    if (const auto sections = decode_container(input)) {
        if (!same(encode_container(*sections), input)) {
            std::abort();
        }
    }
    std::ignore = decode_snapshot(input);

    auto sections = good_sections();
    sections[data[0] % sections.size()].bytes.assign(input.begin(), input.end());
    const auto file = encode_container(sections);
    if (const auto snapshot = decode_snapshot(file)) {
        if (!same(encode_snapshot(*snapshot), file)) {
            std::abort();
        }
    }
    return 0;
}
