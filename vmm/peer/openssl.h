#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "base/result.h"

/// OpenSSL's objects, which free themselves.
namespace ivmm::peer {

template <auto Free>
struct OpensslDeleter {
    template <class T>
    void operator()(T* object) const {
        Free(object);
    }
};
using SslContextPtr = std::unique_ptr<SSL_CTX, OpensslDeleter<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, OpensslDeleter<SSL_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslDeleter<EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, OpensslDeleter<X509_free>>;
using BioPtr = std::unique_ptr<BIO, OpensslDeleter<BIO_free>>;

/// What OpenSSL says went wrong last in this thread; empties its list.
std::string openssl_error();

/// The certificate in a file. Errors: there is none.
Result<CertificatePtr> read_certificate(const std::string& file);

/// SHA-256 of the public key, in hexadecimal digits.
std::string fingerprint(const X509& certificate);

}  // namespace ivmm::peer
