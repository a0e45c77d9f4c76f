#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "vmm/redact/secrets.h"

namespace ivmm::redact {

/// Called with the number of a secret in the list, and where in the file it is.
using OnMatch = std::function<Result<void>(size_t secret, uint64_t offset)>;

/// Finds all secrets in a file or block device, which nobody else changes; holes are passed over.
/// What `on_match` changes behind the offset that it is called with may be found or not. Errors: of
/// reading, and those of `on_match`.
Result<void> search(int fd, const std::vector<Secret>& secrets, const OnMatch& on_match);

}  // namespace ivmm::redact
