#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "vmm/control/json_rpc.h"
#include "vmm/evidence/bundle.h"
#include "vmm/evidence/findings.h"
#include "vmm/fork/clone_record.h"

/// What is put into a bundle. What is not to be had is said in the manifest, and is no error; what
/// cannot be read or written is one.
namespace ivmm::evidence {

/// Called with what is being done and 0 to 1; false stops it.
using OnProgress = std::function<bool(const std::string& what, double done)>;

/// As the bundle's files have it, for people as well.
std::string to_text(const rpc::Json& json);

/// The record of the clone; `status`: of the clone that runs, or null.
Result<void> add_record(Bundle& bundle, const CloneRecord& record, const rpc::Json& status);
/// Captures, flows and events of the clone's port, as its switch has them, and the conversations in
/// the captures.
Result<void> add_network(Bundle& bundle, const std::string& clone, Findings& findings);
/// The log of its process.
Result<void> add_log(Bundle& bundle, const std::string& clone);
/// What its process has told of it (docs/control-socket.md, `evidence`), or has left; null:
/// nothing.
Result<void> add_testimony(Bundle& bundle, const rpc::Json& testimony, Findings& findings);
/// The timeline and the report. Last, but for Bundle::finish().
Result<void> add_report(Bundle& bundle, const Findings& findings);

}  // namespace ivmm::evidence
