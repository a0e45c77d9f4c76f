#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "net/address.h"

namespace ivmm::net {

/// What names a clone finds in the DNS: names without a dot at their end, in small letters. One
/// that begins with "*." stands for all names below it, "*" for all; the closest decides.
struct Names {
    static constexpr size_t kMost = 1024;
    static constexpr size_t kMostAddresses = 8;  ///< of a name: an answer has at most 512 bytes

    std::map<std::string, std::vector<IpAddress>, std::less<>> addresses;

    /// Null: there is no such name.
    const std::vector<IpAddress>* find(std::string_view name) const;
};

struct DnsAnswer {
    std::vector<std::byte> message;
    std::string question;  ///< "A www.example.com", as it was asked: anything may be in it
};

/// Answers a DNS query (RFC 1035, section 4; of AAAA, RFC 3596) with the addresses of a name, or
/// that there is no such name. None: the message is no query with one question.
std::optional<DnsAnswer> answer_dns(ConstByteSpan query, const Names& names);

}  // namespace ivmm::net
