#pragma once

#include <map>
#include <set>
#include <string>

#include "net/address.h"

namespace ivmm::watch {

/// Many networks, found by an address of theirs in a time that does not grow with their number.
class AddressSet {
 public:
    void add(const net::Prefix& prefix);
    bool contains(const net::IpAddress& address) const;
    bool empty() const { return by_length_.empty(); }

    /// Adds those of a file: one address or network a line, what follows a '#' is a remark.
    /// Errors: kUsage.
    Result<void> load(const std::string& path);

 private:
    std::map<uint8_t, std::set<net::IpAddress>> by_length_;
};

}  // namespace ivmm::watch
