#include "vmm/redact/secrets.h"

#include <algorithm>
#include <fstream>
#include <random>

namespace ivmm::redact {
namespace {

constexpr size_t kMostText = size_t{8} << 20;

Result<Secret> parse_secret(std::string_view line, size_t number) {
    const size_t tab = line.find('\t');
    Secret secret{std::string(line.substr(0, tab)), {}};
    if (secret.bytes.size() < kLeastSecret || secret.bytes.size() > kMostSecret) {
        return fail_as(ErrorKind::kUsage, "line {}: a secret has {} to {} bytes, this one {}",
                       number, kLeastSecret, kMostSecret, secret.bytes.size());
    }
    secret.decoy = tab == std::string_view::npos ? make_decoy(secret.bytes)
                                                 : std::string(line.substr(tab + 1));
    if (secret.decoy.size() != secret.bytes.size()) {
        return fail_as(ErrorKind::kUsage,
                       "line {}: what is to be there instead must be as long as the secret: {} "
                       "bytes, not {}",
                       number, secret.bytes.size(), secret.decoy.size());
    }
    return secret;
}

}  // namespace

std::string make_decoy(std::string_view secret) {
    std::random_device chance;
    std::string decoy(secret);
    const auto one_of = [&](char first, unsigned count) {
        return static_cast<char>(first + static_cast<int>(chance() % count));
    };
    for (char& c : decoy) {
        if (c >= '0' && c <= '9') {
            c = one_of('0', 10);
        } else if (c >= 'a' && c <= 'z') {
            c = one_of('a', 26);
        } else if (c >= 'A' && c <= 'Z') {
            c = one_of('A', 26);
        }
    }
    return decoy;
}

Result<std::vector<Secret>> parse_secrets(std::string_view text) {
    std::vector<Secret> secrets;
    for (size_t number = 1; !text.empty(); ++number) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        if (line.empty()) {
            continue;
        }
        if (secrets.size() == kMostSecrets) {
            return fail_as(ErrorKind::kUsage, "there are more than {} secrets", kMostSecrets);
        }
        IVMM_ASSIGN(auto secret, parse_secret(line, number));
        secrets.push_back(std::move(secret));
    }
    if (secrets.empty()) {
        return fail_as(ErrorKind::kUsage, "there is no secret in it");
    }
    // So that a part of one is not taken for another.
    std::ranges::stable_sort(secrets, std::ranges::greater{},
                             [](const Secret& secret) { return secret.bytes.size(); });
    return secrets;
}

Result<std::vector<Secret>> load_secrets(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text(kMostText + 1, '\0');
    if (!file || (!file.read(text.data(), std::ssize(text)) && !file.eof())) {
        return fail_as(ErrorKind::kUsage, "cannot read the secrets '{}'", path);
    }
    text.resize(static_cast<size_t>(file.gcount()));
    if (text.size() > kMostText) {
        return fail_as(ErrorKind::kUsage, "the secrets '{}' are longer than {} bytes", path,
                       kMostText);
    }
    auto secrets = parse_secrets(text);
    if (!secrets) {
        return annotate(std::move(secrets).error(), fmt::format("the secrets '{}'", path));
    }
    return secrets;
}

}  // namespace ivmm::redact
