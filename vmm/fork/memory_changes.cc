#include "vmm/fork/memory_changes.h"

#include <charconv>

#include "base/hex.h"
#include "base/printable.h"

namespace ivmm {
namespace {

constexpr std::string_view kWord = "memory ";
constexpr uint64_t kHole = kHighRamStart - kLowRamEnd;

std::optional<MemoryChange> parse_line(std::string_view line) {
    if (!line.starts_with(kWord)) {
        return std::nullopt;
    }
    line.remove_prefix(kWord.size());
    MemoryChange change;
    const auto [rest, error] =
        std::from_chars(line.data(), line.data() + line.size(), change.offset);
    const auto used = static_cast<size_t>(rest - line.data());
    if (error != std::errc() || used == line.size() || line[used] != ' ') {
        return std::nullopt;
    }
    auto bytes = decode_hex(line.substr(used + 1));
    if (!bytes || bytes->empty() || bytes->size() > kMostChangedBytes) {
        return std::nullopt;
    }
    change.bytes = *std::move(bytes);
    return change;
}

}  // namespace

std::string to_line(uint64_t offset, ConstByteSpan bytes) {
    return fmt::format("{}{} {}\n", kWord, offset, encode_hex(bytes));
}

Result<std::vector<MemoryChange>> parse_memory_changes(std::string_view text) {
    std::vector<MemoryChange> changes;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        auto change = parse_line(line);
        if (!change) {
            return fail("line {} is not \"memory OFFSET HEX\", of 1 to {} bytes: '{}'",
                        changes.size() + 1, kMostChangedBytes,
                        printable(std::string(line.substr(0, 60))));
        }
        changes.push_back(*std::move(change));
    }
    return changes;
}

Result<void> apply(const std::vector<MemoryChange>& changes, GuestMemory& memory) {
    for (const auto& change : changes) {
        ConstByteSpan rest(change.bytes);
        for (uint64_t offset = change.offset; !rest.empty();) {
            // Below the hole and above it is one piece of the file.
            const uint64_t below = offset < kLowRamEnd ? kLowRamEnd - offset : rest.size();
            const ConstByteSpan part = rest.first(std::min<uint64_t>(rest.size(), below));
            const Gpa place = offset < kLowRamEnd ? offset : offset + kHole;
            if (offset >= memory.size() || !memory.write(place, part)) {
                return fail("offset {} is not in the guest's memory of {} bytes", change.offset,
                            memory.size());
            }
            offset += part.size();
            rest = rest.subspan(part.size());
        }
    }
    return {};
}

}  // namespace ivmm
