#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "vmm/control/json_rpc.h"
#include "vmm/evidence/bundle.h"
#include "vmm/fork/clone_record.h"

/// What is put into a bundle. What is not to be had is said in the manifest, and is no error; what
/// cannot be read or written is one.
namespace ivmm::evidence {

/// Called with what is being done and 0 to 1; false stops it.
using OnProgress = std::function<bool(const std::string& what, double done)>;

/// The record of the clone; `status`: of the clone that runs, or null.
Result<void> add_record(Bundle& bundle, const CloneRecord& record, const rpc::Json& status);
/// Memory and registers of a snapshot of the clone.
Result<void> add_memory(Bundle& bundle, const std::string& snapshot, const OnProgress& progress);
/// A disk as an image that stands alone (qcow2, by qemu-img).
Result<void> add_disk(Bundle& bundle, size_t number, const std::string& path,
                      const OnProgress& progress);
/// Captures, flows and events of the clone's port, as its switch has them, and the log of its
/// process.
Result<void> add_network(Bundle& bundle, const std::string& clone);
Result<void> add_log(Bundle& bundle, const std::string& clone);

}  // namespace ivmm::evidence
