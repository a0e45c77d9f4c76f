#pragma once

#define FUSE_USE_VERSION 312  // NOLINT(cppcoreguidelines-macro-usage): the library's way to ask
#include <fuse3/fuse_lowlevel.h>

namespace ivmm::storage {

/// The requests of the kernel, each answered by the View that is the session's user data. Inodes
/// are known to the kernel by their addresses.
const fuse_lowlevel_ops& fuse_operations();

}  // namespace ivmm::storage
