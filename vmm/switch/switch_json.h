#pragma once

#include "net/switch.h"
#include "vmm/control/json_rpc.h"

/// What travels over the control socket of a switch (docs/switch.md).
namespace ivmm {

/// The parameters scope, remote, flow. A flow of which only the far end's address and port are
/// told is looked for among those of the guest. Errors: kUsage.
Result<net::Selector> selector_from(const rpc::Json& params, const net::Switch& net,
                                    net::PortId guest);

rpc::Json to_json(const net::FlowKey& key);
rpc::Json to_json(const net::Switch::PortInfo& port);
rpc::Json to_json(const net::Switch::DiversionInfo& diversion);
rpc::Json to_json(const net::Switch::FlowInfo& flow, uint32_t now_s);
rpc::Json to_json(const net::Switch::TableInfo& table);
rpc::Json to_json(const net::Switch::CloneFlows& clone, uint32_t now_s);

}  // namespace ivmm
