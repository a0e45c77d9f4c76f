#pragma once

#include <string>
#include <vector>

#include "base/result.h"

/// Who a host is to another host: a key pair of its own, and the public parts of those that it
/// trusts. There is no authority: a key is trusted because somebody has put it there.
///
///     FOLDER/private.pem     the key; for the user alone
///     FOLDER/public.pem      its public part, as a certificate that says nothing but the key
///     FOLDER/peers/*.pem     the public.pem of the other hosts
namespace ivmm::peer {

/// Where keys are unless a user says otherwise.
inline constexpr const char* kDefaultKeys = "/etc/ivmm/keys";

/// Makes a key pair in the folder, which is created if need be. Errors: there is one already.
Result<void> make_keys(const std::string& folder);

/// The first 16 hexadecimal digits of the SHA-256 of a public key file's key, for people to
/// compare.
Result<std::string> key_fingerprint(const std::string& public_file);

}  // namespace ivmm::peer
