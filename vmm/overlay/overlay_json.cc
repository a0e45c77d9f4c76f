#include "vmm/overlay/overlay_json.h"

#include "vmm/control/parameters.h"

namespace ivmm::overlay {

using rpc::Json;

Result<storage::MountOptions> mount_options_from(const Json& params) {
    storage::MountOptions options;
    IVMM_ASSIGN(options.mountpoint, rpc::text_parameter(params, "mountpoint"));
    if (!options.mountpoint.starts_with('/')) {
        return fail_as(ErrorKind::kUsage, "mountpoint must be an absolute path");
    }
    IVMM_ASSIGN(options.threads,
                rpc::number_parameter(params, "threads", 1, kMaxThreads, options.threads));
    IVMM_ASSIGN(options.read_only, rpc::flag_parameter(params, "read_only", false));
    return options;
}

Result<std::vector<storage::ForkTarget>> fork_targets_from(const Json& params) {
    const auto list = params.find("targets");
    if (list == params.end() || !list->is_array() || list->empty()) {
        return fail_as(ErrorKind::kUsage, "targets must be a list of views to make");
    }
    std::vector<storage::ForkTarget> targets;
    for (const auto& item : *list) {
        if (!item.is_object()) {
            return fail_as(ErrorKind::kUsage, "each of targets must be an object");
        }
        IVMM_TRY(rpc::check_parameters(item, {"view", "mountpoint", "threads", "read_only"}));
        storage::ForkTarget target;
        IVMM_ASSIGN(target.view, rpc::text_parameter(item, "view"));
        if (item.contains("mountpoint")) {
            IVMM_ASSIGN(target.mount, mount_options_from(item));
        } else if (item.size() > 1) {
            return fail_as(ErrorKind::kUsage, "the target '{}' has no mountpoint for its options",
                           target.view);
        }
        targets.push_back(std::move(target));
    }
    return targets;
}

Json to_json(const storage::MountStatus& status) {
    return {{"view", status.view},       {"mountpoint", status.mountpoint},
            {"layer", status.top_layer}, {"depth", status.depth},
            {"inodes", status.inodes},   {"open_files", status.open_files},
            {"forks", status.forks},     {"error", status.error}};
}

Json to_json(const storage::FlattenReport& report) {
    Json merged = Json::array();
    for (const auto& run : report.merged) {
        merged.push_back({{"layers", run}, {"into", run.front()}});
    }
    return {{"view", report.view},
            {"merged", std::move(merged)},
            {"kept", report.kept},
            {"bytes_before", report.bytes_before},
            {"bytes_after", report.bytes_after}};
}

Json to_json(const storage::ForkReport& report, const std::vector<storage::ForkTarget>& targets) {
    Json made = Json::array();
    for (size_t i = 0; i < targets.size() && i < report.target_layers.size(); ++i) {
        Json target = {{"view", targets[i].view}, {"layer", report.target_layers[i]}};
        if (targets[i].mount) {
            target["mountpoint"] = targets[i].mount->mountpoint;
        }
        made.push_back(std::move(target));
    }
    return {{"view", report.parent_view},  {"frozen_layer", report.frozen_layer},
            {"layer", report.new_layer},   {"targets", std::move(made)},
            {"drain_us", report.drain_us}, {"pause_us", report.pause_us}};
}

}  // namespace ivmm::overlay
