#include "vmm/peer/openssl.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <array>

namespace ivmm::peer {

std::string openssl_error() {
    const auto code = ERR_peek_last_error();
    ERR_clear_error();
    const char* const reason = ERR_reason_error_string(code);
    return reason != nullptr ? reason : "unknown reason";
}

Result<CertificatePtr> read_certificate(const std::string& file) {
    const BioPtr bio(BIO_new_file(file.c_str(), "r"));
    if (!bio) {
        ERR_clear_error();
        return fail_errno("cannot read the key '{}'", file);
    }
    CertificatePtr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!certificate || X509_get0_pubkey(certificate.get()) == nullptr) {
        return fail("'{}' is not a public key that `ivmm keys` has made: {}", file,
                    openssl_error());
    }
    return certificate;
}

std::string fingerprint(const X509& certificate) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    X509_pubkey_digest(&certificate, EVP_sha256(), digest.data(), &length);
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
        text += fmt::format("{:02x}", digest[i]);
    }
    return text;
}

}  // namespace ivmm::peer
