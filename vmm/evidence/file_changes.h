#pragma once

#include <functional>

#include "base/result.h"
#include "vmm/control/json_rpc.h"

namespace ivmm::evidence {

/// What has become different in a file system between two images of it: an object for each file
/// (docs/evidence.md), in the order of their paths. Content is compared where a block of it is not
/// the same, whatever the file's times say. Both images are read in a confined process
/// (confined.h), as anybody may have made them.
///
/// `before` and `after`: descriptors of the images. Errors: there is no ext2, ext3 or ext4 file
/// system in one; it is too large.
Result<void> list_file_changes(int before, int after,
                               const std::function<Result<void>(rpc::Json)>& on_change);

}  // namespace ivmm::evidence
