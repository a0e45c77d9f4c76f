#include "vmm/snapshot/container.h"

#include <gmock/gmock.h>

#include "tests/support/temp_dir.h"
#include "vmm/snapshot/snapshot.h"

namespace ivmm {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr size_t kVersionAt = 8;

std::vector<Section> some_sections() {
    return {{"guest", std::vector<std::byte>(100, std::byte{1})},
            {"empty", {}},
            {"memory", std::vector<std::byte>(3, std::byte{2})}};
}

std::string refusal(ConstByteSpan file) {
    const auto decoded = decode_container(file);
    return decoded ? "accepted" : decoded.error().message;
}

Snapshot small_snapshot() {
    Snapshot snapshot;
    snapshot.guest.id = {1, 2, 3};
    snapshot.guest.config.name = "web";
    snapshot.guest.config.memory_bytes = uint64_t{16} << 20;
    snapshot.guest.config.disks = {{.path = "/srv/disk", .read_only = true, .serial = "s"}};
    snapshot.guest.disks = {{"/srv/disk", 512, 77, false}};
    snapshot.memory.bytes = snapshot.guest.config.memory_bytes;
    snapshot.machine.vcpus.resize(1);
    return snapshot;
}

std::string snapshot_refusal(const Snapshot& snapshot) {
    const auto decoded = decode_snapshot(encode_snapshot(snapshot));
    return decoded ? "accepted" : decoded.error().message;
}

TEST(SnapshotContainer, GivesBackWhatItGot) {
    const auto decoded = decode_container(encode_container(some_sections()));
    ASSERT_TRUE(decoded);
    EXPECT_EQ(*decoded, some_sections());
    EXPECT_TRUE(find_section(*decoded, "memory"));
    EXPECT_THAT(find_section(*decoded, "disk").error().message, HasSubstr("'disk'"));
}

TEST(SnapshotContainer, RefusesEveryTruncation) {
    const auto file = encode_container(some_sections());
    for (size_t length = 0; length < file.size(); ++length) {
        EXPECT_THAT(refusal(ConstByteSpan(file).first(length)), HasSubstr("truncated")) << length;
    }
    EXPECT_THAT(refusal(ConstByteSpan(file).first(file.size() - 1)), HasSubstr("'memory'"));
}

TEST(SnapshotContainer, RefusesEveryFlippedBit) {
    auto file = encode_container(some_sections());
    for (size_t bit = 0; bit < file.size() * 8; ++bit) {
        const auto mask = static_cast<std::byte>(1 << bit % 8);
        file[bit / 8] ^= mask;
        EXPECT_THAT(refusal(file), AnyOf(HasSubstr("damaged"), HasSubstr("no snapshot"),
                                         HasSubstr("newer"), HasSubstr("truncated")))
            << bit;
        file[bit / 8] ^= mask;
    }
    file.back() ^= std::byte{1};
    EXPECT_THAT(refusal(file), HasSubstr("section 'memory'"));
}

TEST(SnapshotContainer, RefusesANewerVersionWhateverElseIsDifferent) {
    auto file = encode_container(some_sections());
    store_le(ByteSpan(file).subspan(kVersionAt, 4), kContainerVersion + 1);
    EXPECT_THAT(refusal(file), HasSubstr("use a newer ivmm"));
    EXPECT_THAT(refusal(ConstByteSpan(file).first(12)), HasSubstr("use a newer ivmm"));
}

TEST(SnapshotContainer, RefusesWhatIsTooMuch) {
    auto file = encode_container(some_sections());
    file.push_back({});
    EXPECT_THAT(refusal(file), HasSubstr("1 bytes too many"));
    EXPECT_THAT(refusal(encode_container({{"twice", {}}, {"twice", {}}})),
                HasSubstr("no name of its own"));
    EXPECT_THAT(refusal(encode_container({{"\n", {}}})), HasSubstr("no name of its own"));
    EXPECT_THAT(refusal(encode_container(std::vector<Section>(kMaxSections + 1, {"a", {}}))),
                HasSubstr("17 sections"));
}

TEST(Snapshot, GivesBackWhatItGot) {
    const auto decoded = decode_snapshot(encode_snapshot(small_snapshot()));
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(encode_state(decoded->guest), encode_state(small_snapshot().guest));
    EXPECT_EQ(decoded->memory, small_snapshot().memory);
    EXPECT_EQ(encode_state(decoded->machine), encode_state(small_snapshot().machine));
}

TEST(Snapshot, RefusesPartsThatDoNotFitTogether) {
    auto snapshot = small_snapshot();
    snapshot.memory.bytes += 4096;
    EXPECT_THAT(snapshot_refusal(snapshot), HasSubstr("section 'memory'"));
    snapshot = small_snapshot();
    snapshot.memory.pages = {0};
    EXPECT_THAT(snapshot_refusal(snapshot), HasSubstr("section 'memory'"));
    snapshot = small_snapshot();
    snapshot.guest.config.memory_bytes = snapshot.memory.bytes = uint64_t{17} << 20 | 4096;
    snapshot.memory.base.emplace();
    snapshot.memory.pages.assign(69, 0);
    EXPECT_EQ(snapshot_refusal(snapshot), "accepted");
    snapshot.memory.pages.back() = 2;
    EXPECT_THAT(snapshot_refusal(snapshot), HasSubstr("section 'memory'"));
    snapshot = small_snapshot();
    snapshot.guest.disks.clear();
    EXPECT_THAT(snapshot_refusal(snapshot), HasSubstr("section 'guest'"));
    snapshot = small_snapshot();
    snapshot.machine.vcpus.clear();
    EXPECT_THAT(snapshot_refusal(snapshot), HasSubstr("section 'machine'"));
}

TEST(Snapshot, NamesTheFileThatIsNotGood) {
    const test::TempDir dir;
    EXPECT_THAT(read_snapshot(dir.path()).error().message, HasSubstr(dir.path() + "/machine"));
    dir.file("machine", "a shopping list");
    EXPECT_THAT(read_snapshot(dir.path()).error().message,
                HasSubstr(dir.path() + "/machine': this is no snapshot"));
    const auto file = encode_snapshot(small_snapshot());
    std::string text(reinterpret_cast<const char*>(file.data()), file.size());
    dir.file("machine", text);
    EXPECT_TRUE(read_snapshot(dir.path()));
    text.back() = static_cast<char>(text.back() ^ 1);
    dir.file("machine", text);
    EXPECT_THAT(read_snapshot(dir.path()).error().message, HasSubstr("section 'machine'"));
}

}  // namespace
}  // namespace ivmm
