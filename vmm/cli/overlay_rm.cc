#include <CLI/CLI.hpp>
#include <memory>

#include "storage/layer/store.h"
#include "vmm/cli/overlay.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

/// Deleting many files takes its time.
constexpr std::chrono::hours kRemovalPatience{1};

struct OverlayRmOptions {
    std::string store;
    std::string view;
};

Result<void> remove(const OverlayRmOptions& options) {
    IVMM_ASSIGN(auto found, overlay::find_store(options.store));
    if (!found.servers.empty()) {
        auto& client = found.servers.front().client;
        IVMM_TRY(client.call("remove_view", {{"view", options.view}}, kRemovalPatience));
        return {};
    }
    IVMM_ASSIGN(const auto store, storage::Store::open(found.directory));
    return store->remove_view(options.view);
}

}  // namespace

void add_overlay_rm(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand(
        "rm", "Delete a view that is not mounted, and the layers that no other view needs");
    const auto options = std::make_shared<OverlayRmOptions>();
    command->add_option("STORE|MNT", options->store, "The upper, or where a view of it is mounted")
        ->required();
    command->add_option("VIEW", options->view, "Name of the view, as `ivmm overlay ls` shows it")
        ->required();
    command->footer("Example:\n  ivmm overlay rm /srv/web copy");
    command->callback(
        [&action, options] { action = [options] { return finish(remove(*options)); }; });
}

}  // namespace ivmm::cli
