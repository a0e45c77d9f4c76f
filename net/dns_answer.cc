#include "net/dns_answer.h"

#include <fmt/core.h>

#include "base/ascii.h"
#include "net/wire.h"

namespace ivmm::net {
namespace {

// RFC 1035, sections 3.1, 3.2 and 4.1.
constexpr size_t kHeader = 12;
constexpr size_t kMostName = 255;
constexpr uint8_t kMostLabel = 63;
constexpr uint16_t kIsResponse = 0x8000;
constexpr uint16_t kOperation = 0x7800;
constexpr uint16_t kWantsRecursion = 0x0100;
constexpr uint16_t kHasRecursion = 0x0080;
enum Code : uint16_t { kNoError = 0, kNoSuchName = 3, kNotImplemented = 4, kRefused = 5 };
enum Type : uint16_t { kA = 1, kAaaa = 28, kAny = 255 };
constexpr uint16_t kInternet = 1;
constexpr uint16_t kNameOfQuestion = 0xc000 | kHeader;
constexpr uint32_t kLifeS = 300;

struct Question {
    std::string name;
    uint16_t type = 0;
    uint16_t address_class = 0;
    size_t end = 0;  // in the message
};

std::optional<Question> read_question(ConstByteSpan message) {
    Question question;
    size_t at = kHeader;
    while (true) {
        if (at >= message.size() || at - kHeader >= kMostName) {
            return std::nullopt;
        }
        const uint8_t length = load8(message, at);
        ++at;
        if (length == 0) {
            break;
        }
        // A question is the first name: there is nothing that it could point to.
        if (length > kMostLabel || message.size() - at < length) {
            return std::nullopt;
        }
        if (!question.name.empty()) {
            question.name += '.';
        }
        for (size_t i = 0; i < length; ++i) {
            question.name += lower(static_cast<char>(load8(message, at + i)));
        }
        at += length;
    }
    if (message.size() - at < 4) {
        return std::nullopt;
    }
    question.type = load_be16(message, at);
    question.address_class = load_be16(message, at + 2);
    question.end = at + 4;
    return question;
}

std::string describe(const Question& question) {
    static const std::map<uint16_t, const char*> known{
        {1, "A"},    {2, "NS"},    {5, "CNAME"}, {6, "SOA"},    {12, "PTR"}, {15, "MX"},
        {16, "TXT"}, {28, "AAAA"}, {33, "SRV"},  {65, "HTTPS"}, {255, "ANY"}};
    const auto found = known.find(question.type);
    const std::string type =
        found == known.end() ? fmt::format("TYPE{}", question.type) : found->second;
    return type + " " + (question.name.empty() ? "." : question.name);
}

void append_address(std::vector<std::byte>& message, const IpAddress& address) {
    const ConstByteSpan all = std::as_bytes(std::span(address.bytes));
    const ConstByteSpan bytes = address.is_v4() ? all.subspan(12) : all;
    const size_t at = message.size();
    message.resize(at + 12 + bytes.size());
    const ByteSpan record = ByteSpan(message).subspan(at);
    store_be16(record, 0, kNameOfQuestion);
    store_be16(record, 2, address.is_v4() ? kA : kAaaa);
    store_be16(record, 4, kInternet);
    store_be32(record, 6, kLifeS);
    store_be16(record, 10, static_cast<uint16_t>(bytes.size()));
    std::memcpy(record.data() + 12, bytes.data(), bytes.size());
}

}  // namespace

const std::vector<IpAddress>* Names::find(std::string_view name) const {
    auto found = addresses.find(name);
    for (size_t dot = name.find('.'); found == addresses.end() && dot != std::string_view::npos;
         dot = name.find('.', dot + 1)) {
        found = addresses.find("*" + std::string(name.substr(dot)));
    }
    if (found == addresses.end()) {
        found = addresses.find("*");
    }
    return found == addresses.end() ? nullptr : &found->second;
}

std::optional<DnsAnswer> answer_dns(ConstByteSpan query, const Names& names) {
    if (query.size() < kHeader) {
        return std::nullopt;
    }
    const uint16_t flags = load_be16(query, 2);
    const auto question = read_question(query);
    if ((flags & kIsResponse) != 0 || load_be16(query, 4) != 1 || !question) {
        return std::nullopt;
    }
    DnsAnswer answer{{query.begin(), query.begin() + static_cast<std::ptrdiff_t>(question->end)},
                     describe(*question)};
    const auto* const found = names.find(question->name);
    uint16_t code = kNoError;
    if ((flags & kOperation) != 0) {
        code = kNotImplemented;
    } else if (question->address_class != kInternet) {
        code = kRefused;
    } else if (found == nullptr) {
        code = kNoSuchName;
    }
    uint16_t records = 0;
    if (code == kNoError) {
        for (const IpAddress& address : *found) {
            const uint16_t type = address.is_v4() ? kA : kAaaa;
            if (question->type == type || question->type == kAny) {
                append_address(answer.message, address);
                ++records;
            }
        }
    }
    const ByteSpan message(answer.message);
    store_be16(message, 2,
               static_cast<uint16_t>(kIsResponse | (flags & (kOperation | kWantsRecursion)) |
                                     kHasRecursion | code));
    store_be16(message, 6, records);
    store_be32(message, 8, 0);  // neither authorities nor more
    return answer;
}

}  // namespace ivmm::net
