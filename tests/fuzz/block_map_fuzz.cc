#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cstdlib>
#include <span>

#include "storage/block/block_file.h"
#include "storage/block/file_io.h"

/// The input is a block map: a list of slots, each with what is in it, where it is, and whether its
/// checksum is right. Whatever it says, a file that can be opened has in each block one of the
/// things that can be there.
using namespace ivmm;
using namespace ivmm::storage;

namespace {

constexpr size_t kSlot = 4096;
constexpr size_t kBlocks = 40;
constexpr std::byte kLower{'l'};
constexpr std::byte kHere{'h'};

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

UniqueFd file_of(std::byte content) {
    UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
    std::array<std::byte, kBlocks * kBlockSize> bytes;
    bytes.fill(content);
    require(write_at(fd.get(), 0, bytes).has_value());
    return fd;
}

void check(const BlockFile& file) {
    static std::array<std::byte, kBlocks * kBlockSize> bytes;
    const auto n = file.read(0, bytes);
    require(n && *n == std::min<uint64_t>(file.size(), bytes.size()));
    for (const std::byte b : std::span(bytes).first(*n)) {
        require(b == kLower || b == kHere || b == std::byte{0});
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    struct Item {
        uint8_t slot;
        uint8_t flags;  // 1: no checksum
        uint8_t generation;
        uint8_t version;
        uint64_t lower_limit;
        uint64_t cut_size;
        std::array<std::byte, 12> states;
    } __attribute__((packed));
    auto input = std::as_bytes(std::span(data, size));
    UniqueFd map(::memfd_create("fuzz", MFD_CLOEXEC));
    for (int i = 0; i < 8 && input.size() >= sizeof(Item); ++i) {
        const auto item = load_at<Item>(input, 0);
        input = input.subspan(sizeof(Item));
        const uint64_t slot = item.slot % 16;
        std::array<std::byte, kSlot> bytes{};
        store_le(std::span(bytes).subspan(8, 8), 0x70616d2d6d6d7669);
        store_le(std::span(bytes).subspan(16, 8), slot / 2);
        store_le(std::span(bytes).subspan(24, 8), item.generation);
        if (slot / 2 == 0) {
            store_le(std::span(bytes).subspan(32, 4), item.version % 3);
            store_le(std::span(bytes).subspan(40, 8), item.lower_limit);
            store_le(std::span(bytes).subspan(48, 8), item.cut_size);
        } else {
            std::ranges::copy(item.states, bytes.begin() + 32);
        }
        if ((item.flags & 1) == 0) {
            store_le(std::span(bytes).first(8), XXH3_64bits(bytes.data() + 8, kSlot - 8));
        }
        require(write_at(map.get(), slot * kSlot, bytes).has_value());
    }
    // What is left of the input is a piece of a map without any sense.
    require(write_at(map.get(), 2 * kSlot * (size % 5), input.first(std::min(input.size(), kSlot)))
                .has_value());

    std::ignore = examine_map(map.get());
    const auto bottom = *BlockFile::bottom(file_of(kLower));
    const UniqueFd own(file_of(kHere));
    const auto open = [&](bool writable) {
        return BlockFile::open(bottom, {UniqueFd(::dup(own.get())), UniqueFd(::dup(map.get()))},
                               writable);
    };
    if (const auto file = open(false)) {
        check(**file);
    }
    if (const auto file = open(true)) {
        check(**file);
        const std::array<std::byte, 5000> content = [] {
            std::array<std::byte, 5000> bytes;
            bytes.fill(kHere);
            return bytes;
        }();
        require((*file)->write(size % 50'000, content).has_value());
        require((*file)->truncate(100'000).has_value());
        require((*file)->flush().has_value());
        check(**file);
        const auto again = open(true);
        require(again && (*again)->size() == 100'000);
        static std::array<std::byte, 100'000> before;
        static std::array<std::byte, 100'000> after;
        require((*file)->read(0, before) && (*again)->read(0, after));
        require(before == after);
    }
    return 0;
}
