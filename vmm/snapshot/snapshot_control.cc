#include "vmm/snapshot/snapshot_control.h"

#include "vmm/control/parameters.h"
#include "vmm/snapshot/snapshot_transaction.h"

namespace ivmm {
namespace {

using rpc::Json;

Result<std::string> path_parameter(const Json& params, const char* name) {
    IVMM_ASSIGN(auto path, rpc::text_parameter(params, name));
    if (!path.starts_with('/')) {
        return fail_as(ErrorKind::kUsage, "{} must be an absolute path, not '{}'", name, path);
    }
    return path;
}

Result<SnapshotRequest> request_from(const Json& params) {
    IVMM_TRY(rpc::check_parameters(params, {"folder", "base", "stop"}));
    SnapshotRequest request;
    IVMM_ASSIGN(request.folder, path_parameter(params, "folder"));
    if (params.contains("base")) {
        IVMM_ASSIGN(request.base, path_parameter(params, "base"));
    }
    IVMM_ASSIGN(request.stop, rpc::flag_parameter(params, "stop", false));
    return request;
}

Json to_json(const SnapshotReport& report) {
    Json disks = Json::array();
    for (const auto& disk : report.disks) {
        disks.push_back({{"path", disk.path}, {"method", disk.method}});
    }
    return {{"folder", report.folder},
            {"disks_of", report.disks_of},
            {"rounds", report.rounds},
            {"pause_us", report.pause_us},
            {"stop_us", report.stop_us},
            {"residual_pages", report.residual_pages},
            {"residual_copy_us", report.residual_copy_us},
            {"state_us", report.state_us},
            {"disk_fork_us", report.disk_fork_us},
            {"memory_bytes", report.memory_bytes},
            {"written_bytes", report.written_bytes},
            {"disks", std::move(disks)}};
}

}  // namespace

SnapshotControl::SnapshotControl(Machine& machine, StandbyKeeper& keeper, ControlServer& server,
                                 EventLoop& control)
    : machine_(machine), keeper_(keeper), control_(control) {
    server.add_deferred_method(
        "snapshot",
        [this](const Json& params, const ControlServer::Answer& answer) { begin(params, answer); });
    server.add_method("snapshot.status",
                      [this](ControlConnection&, const Json& params) -> Result<Json> {
                          IVMM_TRY(rpc::check_parameters(params, {}));
                          return Json{{"busy", work_->busy.load()}, {"done", work_->done.load()}};
                      });
    server.add_method("snapshot.cancel",
                      [this](ControlConnection&, const Json& params) -> Result<Json> {
                          IVMM_TRY(rpc::check_parameters(params, {}));
                          cancel();
                          return Json::object();
                      });
}

void SnapshotControl::begin(const Json& params, const ControlServer::Answer& answer) {
    auto request = request_from(params);
    if (!request) {
        answer(Unexpected{std::move(request).error()});
        return;
    }
    if (work_->busy.exchange(true)) {
        answer(fail("a snapshot of this guest is being made; wait for it"));
        return;
    }
    work_->cancelled = false;
    work_->done = 0;
    keeper_.use_synchroniser([this, work = work_, request = *std::move(request),
                              answer](Result<Synchroniser*> synchroniser) {
        const auto run = [&]() -> Result<SnapshotReport> {
            IVMM_ASSIGN(Synchroniser* const in_sync, std::move(synchroniser));
            return SnapshotTransaction(machine_, control_, *in_sync).run(request, [&](double done) {
                work->done = done;
                return !work->cancelled;
            });
        };
        auto report = run();
        work->busy = false;
        const bool stop = report && request.stop;
        answer(report ? Result<Json>(to_json(*report))
                      : Result<Json>(Unexpected{std::move(report).error()}));
        if (stop) {
            control_.post([this] { machine_.stop(); });
        }
    });
}

}  // namespace ivmm
