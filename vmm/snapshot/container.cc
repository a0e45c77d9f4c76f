#include "vmm/snapshot/container.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <string_view>

namespace ivmm {
namespace {

constexpr std::string_view kMagic = "IVMMSNAP";

struct Prefix {
    std::array<char, 8> magic{};
    uint32_t version = kContainerVersion;
    uint32_t sections = 0;
};
static_assert(sizeof(Prefix) == 16);

struct Entry {
    std::array<char, kMaxSectionName> name{};
    uint64_t length = 0;
    uint64_t checksum = 0;
};
static_assert(sizeof(Entry) == 32);

uint64_t checksum(ConstByteSpan bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

void append(std::vector<std::byte>& out, ConstByteSpan bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
}

/// Empty unless the name is good.
std::string name_of(const Entry& entry) {
    const auto end = std::ranges::find(entry.name, '\0');
    const bool good =
        std::all_of(entry.name.begin(), end, [](char c) { return c > ' ' && c <= '~'; }) &&
        std::all_of(end, entry.name.end(), [](char c) { return c == '\0'; });
    return good ? std::string(entry.name.begin(), end) : std::string();
}

}  // namespace

std::vector<std::byte> encode_container(const std::vector<Section>& sections) {
    Prefix prefix;
    std::ranges::copy(kMagic, prefix.magic.begin());
    prefix.sections = static_cast<uint32_t>(sections.size());
    std::vector<std::byte> file;
    append(file, bytes_of(prefix));
    for (const auto& section : sections) {
        assert(!section.name.empty() && section.name.size() <= kMaxSectionName);
        Entry entry;
        std::ranges::copy(section.name, entry.name.begin());
        entry.length = section.bytes.size();
        entry.checksum = checksum(section.bytes);
        append(file, bytes_of(entry));
    }
    const uint64_t sum = checksum(file);
    append(file, bytes_of(sum));
    for (const auto& section : sections) {
        append(file, section.bytes);
    }
    return file;
}

Result<std::vector<Section>> decode_container(ConstByteSpan file) {
    constexpr size_t kVersionEnd = sizeof(Prefix) - sizeof(uint32_t);
    const auto has_magic = [&] {
        return std::equal(kMagic.begin(), kMagic.end(), file.begin(),
                          [](char c, std::byte b) { return static_cast<std::byte>(c) == b; });
    };
    if (file.size() >= kMagic.size() && !has_magic()) {
        return fail("this is no snapshot of ivmm");
    }
    // The version before all else: what follows may be different in another.
    if (file.size() >= kVersionEnd) {
        const auto version = load_at<uint32_t>(file, kMagic.size());
        if (version > kContainerVersion) {
            return fail("format version {}, this ivmm reads up to version {}: use a newer ivmm",
                        version, kContainerVersion);
        }
    }
    if (file.size() < sizeof(Prefix)) {
        return fail("truncated: the header is not complete");
    }
    const auto prefix = load_at<Prefix>(file, 0);
    const size_t table_end = sizeof(Prefix) + size_t{prefix.sections} * sizeof(Entry);
    if (prefix.version == 0 || prefix.sections > kMaxSections) {
        return fail("damaged: version {} with {} sections", prefix.version, prefix.sections);
    }
    if (file.size() < table_end + sizeof(uint64_t)) {
        return fail("truncated: the table of its sections is not complete");
    }
    if (load_at<uint64_t>(file, table_end) != checksum(file.first(table_end))) {
        return fail("damaged: the checksum of the header does not match");
    }
    std::vector<Section> sections;
    auto rest = file.subspan(table_end + sizeof(uint64_t));
    for (size_t i = 0; i < prefix.sections; ++i) {
        const auto entry = load_at<Entry>(file, sizeof(Prefix) + i * sizeof(Entry));
        const std::string name = name_of(entry);
        if (name.empty() || find_section(sections, name)) {
            return fail("damaged: section {} has no name of its own", i);
        }
        if (entry.length > rest.size()) {
            return fail("truncated: section '{}' has {} of {} bytes", name, rest.size(),
                        entry.length);
        }
        const auto bytes = rest.first(static_cast<size_t>(entry.length));
        if (checksum(bytes) != entry.checksum) {
            return fail("damaged: the checksum of section '{}' does not match", name);
        }
        sections.push_back({name, {bytes.begin(), bytes.end()}});
        rest = rest.subspan(bytes.size());
    }
    if (!rest.empty()) {
        return fail("damaged: {} bytes too many after the last section", rest.size());
    }
    return sections;
}

Result<const Section*> find_section(const std::vector<Section>& sections, const std::string& name) {
    const auto found = std::ranges::find(sections, name, &Section::name);
    if (found == sections.end()) {
        return fail("damaged: there is no section '{}'", name);
    }
    return &*found;
}

}  // namespace ivmm
