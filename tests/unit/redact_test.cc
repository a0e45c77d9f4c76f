#include "vmm/redact/search.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cctype>

#include "base/hex.h"
#include "tests/support/temp_file.h"
#include "vmm/fork/memory_changes.h"
#include "vmm/redact/secrets.h"

namespace ivmm {
namespace {

using redact::Secret;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(Hex, ThereAndBack) {
    const std::string text = "\x01\xfe z";
    EXPECT_EQ(encode_hex(std::as_bytes(std::span(text))), "01fe207a");
    EXPECT_EQ(encode_hex(*decode_hex("00FfaB")), "00ffab");
    EXPECT_TRUE(decode_hex("")->empty());
    for (const char* const bad : {"0", "0g", "g0", "0 ", "-1", "0x12"}) {
        EXPECT_FALSE(decode_hex(bad)) << bad;
    }
}

TEST(MemoryChanges, AreLines) {
    const auto changes = parse_memory_changes("memory 4096 00ff\nmemory 1 7a\n");
    ASSERT_TRUE(changes) << changes.error().message;
    ASSERT_EQ(changes->size(), 2u);
    EXPECT_EQ((*changes)[0], (MemoryChange{4096, {std::byte{0}, std::byte{0xff}}}));
    EXPECT_EQ(to_line(1, (*changes)[1].bytes), "memory 1 7a\n");
    EXPECT_TRUE(parse_memory_changes("")->empty());
    const std::string long_line = "memory 0 " + std::string(2 * kMostChangedBytes + 2, '0');
    for (const std::string& bad :
         {std::string("memory"), std::string("memory 1"), std::string("memory 1 "),
          std::string("memory x 00"), std::string("memory -1 00"), std::string("memory 1 0"),
          std::string("memory 18446744073709551616 00"), std::string("hello\n"),
          std::string("\nmemory 1 00"), long_line}) {
        const auto refused = parse_memory_changes(bad);
        ASSERT_FALSE(refused) << bad.substr(0, 60);
        EXPECT_THAT(refused.error().message, HasSubstr("line 1"));
    }
    EXPECT_THAT(parse_memory_changes("memory 1 00\nno\n").error().message, HasSubstr("line 2"));
}

TEST(MemoryChanges, AreAppliedOnBothSidesOfTheHole) {
    const auto memory = *GuestMemory::create(kLowRamEnd + (uint64_t{16} << 20));
    const std::vector<std::byte> bytes(4, std::byte{0x5a});
    ASSERT_TRUE(apply({{16, bytes}, {kLowRamEnd - 2, bytes}, {kLowRamEnd + 4096, bytes}}, *memory));
    EXPECT_EQ(memory->read<uint32_t>(16), 0x5a5a5a5au);
    EXPECT_EQ(memory->read<uint16_t>(kLowRamEnd - 2), 0x5a5a);
    EXPECT_EQ(memory->read<uint16_t>(kHighRamStart), 0x5a5a);
    EXPECT_EQ(memory->read<uint32_t>(kHighRamStart + 4096), 0x5a5a5a5au);
    for (const uint64_t offset : {memory->size() - 2, memory->size(), UINT64_MAX, UINT64_MAX - 1}) {
        EXPECT_FALSE(apply({{offset, bytes}}, *memory)) << offset;
    }
}

TEST(Secrets, OneALine) {
    const auto secrets = redact::parse_secrets("hunter2!\n\nabcdef\tuvwxyz\nlonger secret\n");
    ASSERT_TRUE(secrets) << secrets.error().message;
    ASSERT_EQ(secrets->size(), 3u);
    EXPECT_EQ((*secrets)[0].bytes, "longer secret");
    EXPECT_EQ((*secrets)[1].bytes, "hunter2!");
    EXPECT_EQ((*secrets)[2], (Secret{"abcdef", "uvwxyz"}));
}

TEST(Secrets, AreNotInMessages) {
    for (const char* const bad : {"", "\n", "short", "abcdefg\tabc", "abcdefg\t"}) {
        const auto refused = redact::parse_secrets(bad);
        ASSERT_FALSE(refused) << bad;
        EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
        EXPECT_EQ(refused.error().message.find("short"), std::string::npos);
        EXPECT_EQ(refused.error().message.find("abcdefg"), std::string::npos);
    }
    EXPECT_FALSE(redact::load_secrets("/nonexistent"));
}

TEST(Secrets, DecoysLookAlike) {
    const std::string secret = "Pass-word_1234567890.ABCDEF";
    const std::string decoy = redact::make_decoy(secret);
    ASSERT_EQ(decoy.size(), secret.size());
    EXPECT_NE(decoy, secret);
    for (size_t i = 0; i < secret.size(); ++i) {
        const auto is = [&](int (*kind)(int)) {
            return (kind(static_cast<unsigned char>(secret[i])) != 0) ==
                   (kind(static_cast<unsigned char>(decoy[i])) != 0);
        };
        EXPECT_TRUE(is(std::isdigit) && is(std::islower) && is(std::isupper)) << i;
    }
}

class SearchTest : public testing::Test {
 protected:
    /// Into a file that is sparse besides.
    void put(uint64_t offset, std::string_view text) {
        ASSERT_EQ(::pwrite(file_.get(), text.data(), text.size(), static_cast<off_t>(offset)),
                  std::ssize(text));
    }
    std::vector<std::pair<size_t, uint64_t>> matches(const std::vector<Secret>& secrets) {
        std::vector<std::pair<size_t, uint64_t>> found;
        const auto done = redact::search(file_.get(), secrets, [&](size_t i, uint64_t offset) {
            found.emplace_back(i, offset);
            return Result<void>();
        });
        EXPECT_TRUE(done);
        std::ranges::sort(found, {}, &std::pair<size_t, uint64_t>::second);
        return found;
    }

    static constexpr off_t kSize = off_t{8} << 20;
    test::TempFile temp_{static_cast<uint64_t>(kSize)};
    UniqueFd file_{::open(temp_.path().c_str(), O_RDWR | O_CLOEXEC)};
};

TEST_F(SearchTest, FindsAllOfThem) {
    put(0, "secret");
    put((256 << 10) - 3, "secret");  // across two pieces
    put((1 << 20) + 4094, "secret");
    put(kSize - 6, "secret");
    put(kSize - 100, "secre");
    EXPECT_THAT(matches({{"secret", "xxxxxx"}}),
                ElementsAre(Pair(0, 0), Pair(0, (256 << 10) - 3), Pair(0, (1 << 20) + 4094),
                            Pair(0, kSize - 6)));
}

TEST_F(SearchTest, AShorterOneIsNotFoundInALongerOne) {
    put(5000, "my secret word; secret");
    EXPECT_THAT(matches({{"secret word", "xxxxxxxxxxx"}, {"secret", "yyyyyy"}}),
                ElementsAre(Pair(0, 5003), Pair(1, 5016)));
}

TEST_F(SearchTest, NothingAndErrors) {
    EXPECT_THAT(matches({{"secret", "xxxxxx"}}), ElementsAre());
    put(5000, "secret secret");
    size_t calls = 0;
    const auto failed = redact::search(file_.get(), {{"secret", "xxxxxx"}}, [&](size_t, uint64_t) {
        ++calls;
        return Result<void>(fail("enough"));
    });
    EXPECT_FALSE(failed);
    EXPECT_EQ(calls, 1u);
    EXPECT_FALSE(redact::search(-1, {{"secret", "xxxxxx"}},
                                [](size_t, uint64_t) { return Result<void>(); }));
}

}  // namespace
}  // namespace ivmm
