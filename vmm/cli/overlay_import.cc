#include <CLI/CLI.hpp>
#include <memory>

#include "storage/tools/aufs_import.h"
#include "vmm/cli/overlay.h"
#include "vmm/control/json_rpc.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

struct OverlayImportOptions {
    std::string directory;
    bool as_json = false;
};

void show_import(const storage::AufsImportReport& report) {
    print("{} directories: {} whiteouts, {} opaque; {} of aufs's own files deleted\n",
          report.directories, report.whiteouts, report.opaque, report.bookkeeping);
    if (report.pseudo_links != 0) {
        print("{} pseudo-links were not flushed: files with several names are now separate\n",
              report.pseudo_links);
    }
    for (const auto& path : report.refused_paths) {
        print("left as it is, for no aufs makes such a name: {}\n", path);
    }
    if (report.refused > report.refused_paths.size()) {
        print("… and {} more\n", report.refused - report.refused_paths.size());
    }
}

Result<void> import(const OverlayImportOptions& options) {
    IVMM_ASSIGN(const auto report, storage::import_aufs(options.directory));
    if (options.as_json) {
        print("{}\n", Json{{"directories", report.directories},
                           {"whiteouts", report.whiteouts},
                           {"opaque", report.opaque},
                           {"bookkeeping", report.bookkeeping},
                           {"pseudo_links", report.pseudo_links},
                           {"refused", report.refused},
                           {"refused_paths", report.refused_paths}}
                          .dump(2, ' ', false, Json::error_handler_t::replace));
    } else {
        show_import(report);
    }
    return {};
}

}  // namespace

void add_overlay_import(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand(
        "import-aufs", "Turn a branch that aufs has written into one for this overlay, in place");
    const auto options = std::make_shared<OverlayImportOptions>();
    command
        ->add_option("DIR", options->directory,
                     "The branch; nothing else may use it meanwhile. May be stopped and repeated")
        ->required();
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm overlay import-aufs /srv/old-branch");
    command->callback(
        [&action, options] { action = [options] { return finish(import(*options)); }; });
}

}  // namespace ivmm::cli
