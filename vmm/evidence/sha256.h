#pragma once

#include <openssl/evp.h>

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace ivmm::evidence {

/// SHA-256 (FIPS 180-4) of bytes that come in pieces. One thread.
class Sha256 {
 public:
    Sha256();
    void update(ConstByteSpan bytes);
    /// In hexadecimal digits. Once. Errors: OpenSSL cannot do it.
    Result<std::string> finish();

 private:
    std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
    bool good_;
};

/// Of a file's content.
Result<std::string> sha256_of(const std::string& path);

}  // namespace ivmm::evidence
