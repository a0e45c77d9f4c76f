// What a clone is told when it asks for a name, and what is no question.

#include "net/dns_answer.h"

#include <gtest/gtest.h>

#include "net/wire.h"

namespace ivmm::net {
namespace {

using Bytes = std::vector<std::byte>;

void append(Bytes& bytes, std::string_view text) {
    for (const char c : text) {
        bytes.push_back(static_cast<std::byte>(c));
    }
}

Bytes query(std::string_view name, uint16_t type, uint16_t flags = 0x0100,
            uint16_t address_class = 1) {
    Bytes bytes(12);
    store_be16(bytes, 0, 0xbeef);
    store_be16(bytes, 2, flags);
    store_be16(bytes, 4, 1);
    while (!name.empty()) {
        const auto label = name.substr(0, name.find('.'));
        name.remove_prefix(std::min(name.size(), label.size() + 1));
        bytes.push_back(static_cast<std::byte>(label.size()));
        append(bytes, label);
    }
    bytes.resize(bytes.size() + 5);
    store_be16(bytes, bytes.size() - 4, type);
    store_be16(bytes, bytes.size() - 2, address_class);
    return bytes;
}

Names names() {
    Names some;
    some.addresses["example.com"] = {*parse_ip("203.0.113.1"), *parse_ip("203.0.113.2"),
                                     *parse_ip("2001:db8::1")};
    some.addresses["*.example.com"] = {*parse_ip("203.0.113.3")};
    some.addresses["empty.example.com"] = {};
    return some;
}

struct Told {
    int code = 0;
    int records = 0;
};
Told ask(const Bytes& bytes) {
    const auto answer = answer_dns(bytes, names());
    if (!answer) {
        return {-1, -1};
    }
    EXPECT_EQ(load_be16(answer->message, 0), 0xbeef);
    EXPECT_LE(answer->message.size(), 512U);
    return {load_be16(answer->message, 2) & 0xf, load_be16(answer->message, 6)};
}

void expect(const Bytes& bytes, int code, int records) {
    const Told told = ask(bytes);
    EXPECT_EQ(told.code, code);
    EXPECT_EQ(told.records, records);
}

TEST(DnsAnswer, NamesAreFoundByTheClosest) {
    expect(query("example.com", 1), 0, 2);
    expect(query("EXAMPLE.com", 28), 0, 1);
    expect(query("example.com", 255), 0, 3);
    expect(query("example.com", 16), 0, 0);
    expect(query("a.b.example.com", 1), 0, 1);
    expect(query("empty.example.com", 1), 0, 0);
    expect(query("com", 1), 3, 0);
    expect(query("", 2), 3, 0);
    Names all;
    all.addresses["*"] = {*parse_ip("203.0.113.4")};
    EXPECT_NE(all.find("anything"), nullptr);
    EXPECT_NE(all.find(""), nullptr);
    EXPECT_EQ(names().find("xexample.com"), nullptr);
}

TEST(DnsAnswer, OthersAreRefusedAndWhatIsNoQuestionIsNot) {
    expect(query("example.com", 1, 0x2800), 4, 0);     // an update
    expect(query("example.com", 1, 0x0100, 3), 5, 0);  // CHAOS
    expect(query("example.com", 1, 0x8100), -1, -1);   // an answer
    Bytes two = query("example.com", 1);
    store_be16(two, 4, 2);
    expect(two, -1, -1);
    const Bytes whole = query("example.com", 1);
    for (size_t length = 0; length < whole.size(); ++length) {
        expect(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)), -1, -1);
    }
    Bytes pointer(12);
    store_be16(pointer, 4, 1);
    append(pointer, std::string_view("\xc0\x0c\0\1\0\1", 6));
    expect(pointer, -1, -1);
    std::string longest;  // 4 labels of 63: one byte more than a name may have
    for (int i = 0; i < 4; ++i) {
        longest += std::string(63, 'x') + ".";
    }
    longest.pop_back();
    expect(query(longest, 1), -1, -1);
    expect(query(longest.substr(3), 1), 3, 0);
}

TEST(DnsAnswer, TellsWhatWasAsked) {
    EXPECT_EQ(answer_dns(query("x.example.com", 28), {})->question, "AAAA x.example.com");
    EXPECT_EQ(answer_dns(query("", 99), {})->question, "TYPE99 .");
}

}  // namespace
}  // namespace ivmm::net
