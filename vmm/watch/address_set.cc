#include "vmm/watch/address_set.h"

#include <algorithm>
#include <fstream>

namespace ivmm::watch {
namespace {

constexpr size_t kMostLines = 1'000'000;

net::IpAddress masked(net::IpAddress address, uint8_t length) {
    for (size_t i = 0; i < address.bytes.size(); ++i) {
        const size_t bits = std::clamp<size_t>(length, i * 8, i * 8 + 8) - i * 8;
        address.bytes[i] = static_cast<uint8_t>(address.bytes[i] & (0xFF00U >> bits));
    }
    return address;
}

}  // namespace

void AddressSet::add(const net::Prefix& prefix) {
    by_length_[prefix.length].insert(masked(prefix.address, prefix.length));
}

bool AddressSet::contains(const net::IpAddress& address) const {
    return std::ranges::any_of(by_length_, [&](const auto& entry) {
        return entry.second.contains(masked(address, entry.first));
    });
}

Result<void> AddressSet::load(const std::string& path) {
    std::ifstream file(path);
    if (!file) {
        return fail_as(ErrorKind::kUsage, "cannot open the list of addresses '{}'", path);
    }
    std::string line;
    for (size_t number = 1; std::getline(file, line); ++number) {
        line.resize(std::min(line.find('#'), line.size()));
        const size_t start = line.find_first_not_of(" \t\r");
        if (start == std::string::npos) {
            continue;
        }
        const auto prefix =
            net::parse_prefix(line.substr(start, line.find_last_not_of(" \t\r") + 1 - start));
        if (!prefix || number > kMostLines) {
            return fail_as(ErrorKind::kUsage, "{}:{}: {}", path, number,
                           prefix ? "too many lines" : prefix.error().message);
        }
        add(*prefix);
    }
    return {};
}

}  // namespace ivmm::watch
