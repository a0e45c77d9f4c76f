#include <CLI/CLI.hpp>
#include <memory>

#include "storage/tools/export.h"
#include "vmm/cli/overlay.h"
#include "vmm/cli/progress.h"
#include "vmm/cli/signals.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

struct OverlayExportOptions {
    std::string store;
    std::string view;
    std::string path;
    std::string out;
    std::string format = "raw";
    std::string base;
};

Result<void> export_to(const OverlayExportOptions& options) {
    const EndSignals signals;
    IVMM_ASSIGN(const UniqueFd end, EndSignals::open());
    IVMM_ASSIGN(const auto found, overlay::find_store(options.store));
    IVMM_ASSIGN(const auto store, storage::Store::open(found.directory));
    IVMM_ASSIGN(const auto tree, storage::open_tree(*store, options.view));
    if (tree.live) {
        say(
            fmt::format("{} is in use: the image may lack what is not flushed yet, and is of no "
                        "one instant; fork the view and export the frozen layer for one that is",
                        tree.name));
    }
    Progress progress(options.path);
    storage::ExportOptions how;
    how.format =
        options.format == "raw" ? storage::ImageFormat::kRaw : storage::ImageFormat::kQcow2;
    how.base = options.base;
    how.progress = [&](double done) {
        progress.show(done);
        return !EndSignals::take(end.get());
    };
    return storage::export_file(tree, options.path, options.out, how);
}

}  // namespace

void add_overlay_export(CLI::App& overlay, Action& action) {
    auto* const command =
        overlay.add_subcommand("export", "Write a file of a view as a disk image of its own");
    const auto options = std::make_shared<OverlayExportOptions>();
    command->add_option("STORE|MNT", options->store, "The upper, or where a view of it is mounted")
        ->required();
    command
        ->add_option("VIEW", options->view,
                     "A view, or the number of a layer, as `ivmm overlay ls` shows them")
        ->required();
    command->add_option("PATH", options->path, "The file, from the root of the view")->required();
    command->add_option("OUT", options->out, "The image, which must not exist")->required();
    command->add_option("--format", options->format, "raw (with holes), or qcow2, by qemu-img")
        ->check(CLI::IsMember({"raw", "qcow2"}))
        ->capture_default_str();
    command->add_option("--base", options->base,
                        "A raw image: the qcow2 image has what differs from it, and needs it");
    command->footer(
        "Examples:\n  ivmm overlay export /srv/web main disk.img /srv/disk.img\n"
        "  ivmm overlay export /srv/web 256 disk.img /srv/delta.qcow2 --format qcow2 \\\n"
        "      --base /srv/base/disk.img");
    command->callback(
        [&action, options] { action = [options] { return finish(export_to(*options)); }; });
}

}  // namespace ivmm::cli
