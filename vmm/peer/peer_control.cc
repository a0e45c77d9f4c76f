#include "vmm/peer/peer_control.h"

#include "vmm/control/parameters.h"
#include "vmm/peer/keys.h"
#include "vmm/peer/remote_target.h"

namespace ivmm::peer {
namespace {

using rpc::Json;

Result<RemoteTarget::Options> options_from(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"to", "keys"}));
    RemoteTarget::Options options;
    IVMM_ASSIGN(options.address, rpc::text_parameter(params, "to"));
    IVMM_TRY(parse_address(options.address));
    options.keys = kDefaultKeys;
    if (params.contains("keys")) {
        IVMM_ASSIGN(options.keys, rpc::text_parameter(params, "keys"));
    }
    return options;
}

}  // namespace

Result<std::unique_ptr<PeerControl>> PeerControl::create(Machine& machine, StandbyKeeper& keeper,
                                                         ControlServer& server) {
    IVMM_ASSIGN(auto interrupt, EventFd::create());
    std::unique_ptr<PeerControl> control(new PeerControl(std::move(interrupt)));
    const int interrupt_fd = control->interrupt_.fd();
    server.add_deferred_method("replicate", [&machine, &keeper, interrupt_fd](
                                                const Json& params, ControlServer::Answer answer) {
        auto options = options_from(params);
        if (!options) {
            answer(Unexpected{std::move(options).error()});
            return;
        }
        options->interrupt = interrupt_fd;
        keeper.keep_target(
            options->address,
            [&machine, options = *options] { return RemoteTarget::create(machine, options); },
            [answer = std::move(answer)](Result<void> outcome) {
                answer(outcome ? Result<Json>(Json::object())
                               : Result<Json>(Unexpected{std::move(outcome).error()}));
            });
    });
    return control;
}

}  // namespace ivmm::peer
