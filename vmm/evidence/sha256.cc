#include "vmm/evidence/sha256.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "base/hex.h"
#include "base/unique_fd.h"

namespace ivmm::evidence {

Sha256::Sha256()
    : context_(::EVP_MD_CTX_new(), ::EVP_MD_CTX_free),
      good_(context_ && ::EVP_DigestInit_ex(context_.get(), ::EVP_sha256(), nullptr) == 1) {}

void Sha256::update(ConstByteSpan bytes) {
    good_ = good_ && ::EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1;
}

Result<std::string> Sha256::finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    if (!good_ || ::EVP_DigestFinal_ex(context_.get(), digest.data(), &length) != 1) {
        return fail("OpenSSL cannot make a SHA-256");
    }
    return encode_hex(std::as_bytes(std::span(digest).first(length)));
}

Result<std::string> sha256_of(const std::string& path) {
    constexpr size_t kPiece = size_t{1} << 20;
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) {
        return fail_errno("cannot open '{}'", path);
    }
    Sha256 digest;
    std::vector<std::byte> buffer(kPiece);
    while (true) {
        const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("cannot read '{}'", path);
        }
        if (n == 0) {
            return digest.finish();
        }
        digest.update(ConstByteSpan(buffer).first(static_cast<size_t>(n)));
    }
}

}  // namespace ivmm::evidence
