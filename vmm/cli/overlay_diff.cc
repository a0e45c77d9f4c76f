#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "storage/tools/diff.h"
#include "vmm/cli/overlay.h"
#include "vmm/control/json_rpc.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;
using storage::DiffEntry;

struct OverlayDiffOptions {
    std::string store;
    std::string from;
    std::string to;
    bool blocks = false;
    bool as_json = false;
};

std::string_view kind_name(DiffEntry::Kind kind) {
    return kind == DiffEntry::Kind::kAdded     ? "added"
           : kind == DiffEntry::Kind::kRemoved ? "removed"
                                               : "changed";
}

Json to_json(const DiffEntry& entry) {
    Json json = {{"kind", kind_name(entry.kind)},
                 {"path", entry.path},
                 {"type", storage::type_name(entry.type)}};
    if (entry.kind == DiffEntry::Kind::kChanged) {
        json["content"] = entry.content;
        json["metadata"] = entry.metadata;
    }
    if (!entry.ranges.empty()) {
        Json& ranges = json["ranges"] = Json::array();
        for (const auto& range : entry.ranges) {
            ranges.push_back({{"offset", range.offset}, {"length", range.length}});
        }
    }
    if (!entry.error.empty()) {
        json["error"] = entry.error;
    }
    return json;
}

void show_difference(const DiffEntry& entry) {
    std::string_view detail;
    if (entry.kind == DiffEntry::Kind::kChanged) {
        detail = !entry.error.empty() ? " (cannot be compared)"
                 : !entry.content     ? " (metadata)"
                 : entry.metadata     ? " (content, metadata)"
                                      : " (content)";
    }
    print("{:<8} {}{}{}\n", kind_name(entry.kind), entry.path,
          entry.type == S_IFDIR && entry.path != "/" ? "/" : "", detail);
    for (const auto& range : entry.ranges) {
        print("         bytes {} to {}\n", range.offset, range.offset + range.length - 1);
    }
}

Result<void> diff(const OverlayDiffOptions& options) {
    IVMM_ASSIGN(const auto found, overlay::find_store(options.store));
    IVMM_ASSIGN(const auto store, storage::Store::open(found.directory));
    IVMM_ASSIGN(const auto from, storage::open_tree(*store, options.from));
    IVMM_ASSIGN(const auto to, storage::open_tree(*store, options.to));
    for (const auto* tree : {&from, &to}) {
        if (tree->live) {
            say(fmt::format("{} is in use: what is not flushed yet is missing", tree->name));
        }
    }
    Json entries = Json::array();
    std::string error;
    IVMM_TRY(storage::diff(from, to, options.blocks, [&](const DiffEntry& entry) -> Result<void> {
        if (options.as_json) {
            entries.push_back(to_json(entry));
        } else {
            show_difference(entry);
        }
        if (!entry.error.empty()) {
            error = fmt::format("{}: {}", entry.path, entry.error);
            say(error);
        }
        return {};
    }));
    if (options.as_json) {
        print("{}\n", entries.dump(2, ' ', false, Json::error_handler_t::replace));
    }
    return error.empty() ? Result<void>() : fail("some files could not be compared");
}

}  // namespace

void add_overlay_diff(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand(
        "diff", "List what differs between two views, or between a view and a fork point");
    const auto options = std::make_shared<OverlayDiffOptions>();
    command->add_option("STORE|MNT", options->store, "The upper, or where a view of it is mounted")
        ->required();
    command
        ->add_option("FROM", options->from,
                     "A view, or the number of a layer: as `ivmm overlay ls` shows them, and "
                     "`fork` the one that it has frozen; 0: the branches alone")
        ->required();
    command->add_option("TO", options->to, "Likewise")->required();
    command->add_flag("--blocks", options->blocks,
                      "The byte ranges of changed files, in steps of 4 KiB");
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm overlay diff /srv/web 256 main --blocks");
    command->callback(
        [&action, options] { action = [options] { return finish(diff(*options)); }; });
}

}  // namespace ivmm::cli
