#pragma once

#include <string>

#include "base/result.h"
#include "vmm/fork/clone_record.h"

/// A clone's disks over those of a primary on another host: a view of an overlay whose branch is
/// the primary's directory, as this host sees it.
namespace ivmm::peer {

/// The store, in `folder`, of the views over the directory that the file is in. Created by the
/// first mount. Errors: there is no folder.
Result<std::string> shared_store(const std::string& folder, const std::string& file);

/// Makes and mounts the view, over `branch`. Gives the pid of the server. Waits for it.
Result<int> mount_shared_view(const std::string& branch, const CloneView& view);

}  // namespace ivmm::peer
