#include "vmm/peer/keys.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "vmm/peer/openssl.h"

namespace ivmm::peer {
namespace {

Result<void> make_folder(const std::string& folder) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno("cannot create the folder '{}'", folder);
    }
    return {};
}

/// Never over a file that is there.
Result<void> write_new(const std::string& file, const BioPtr& content, mode_t mode) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(content.get(), &data);
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (!fd || ::write(fd.get(), data, static_cast<size_t>(size)) != size) {
        return fail_errno("cannot write '{}'", file);
    }
    return {};
}

/// What carries the key in TLS. Nobody reads its other fields: no dates, no names.
CertificatePtr certificate_of(const KeyPtr& key) {
    CertificatePtr certificate(X509_new());
    constexpr long kX509v3 = 2;
    X509_set_version(certificate.get(), kX509v3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
    ASN1_TIME_set_string(X509_getm_notBefore(certificate.get()), "20000101000000Z");
    ASN1_TIME_set_string(X509_getm_notAfter(certificate.get()), "99991231235959Z");
    X509_set_pubkey(certificate.get(), key.get());
    X509_NAME* const name = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("ivmm"), -1, -1, 0);
    X509_set_issuer_name(certificate.get(), name);
    return X509_sign(certificate.get(), key.get(), nullptr) != 0 ? std::move(certificate)
                                                                 : CertificatePtr();
}

}  // namespace

Result<void> make_keys(const std::string& folder) {
    const KeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    const CertificatePtr certificate = key ? certificate_of(key) : CertificatePtr();
    const BioPtr secret(BIO_new(BIO_s_mem()));
    const BioPtr open(BIO_new(BIO_s_mem()));
    if (!certificate || !secret || !open ||
        PEM_write_bio_PrivateKey(secret.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) !=
            1 ||
        PEM_write_bio_X509(open.get(), certificate.get()) != 1) {
        return fail("cannot make a key pair: {}", openssl_error());
    }
    IVMM_TRY(make_folder(folder));
    IVMM_TRY(make_folder(folder + "/peers"));
    IVMM_TRY(write_new(folder + "/private.pem", secret, 0600));
    return write_new(folder + "/public.pem", open, 0644);
}

Result<std::string> key_fingerprint(const std::string& public_file) {
    constexpr size_t kShown = 16;
    IVMM_ASSIGN(const auto certificate, read_certificate(public_file));
    return fingerprint(*certificate).substr(0, kShown);
}

}  // namespace ivmm::peer
