#include "vmm/evidence/disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/unique_fd.h"
#include "storage/tools/export.h"
#include "storage/tools/qemu_img.h"
#include "vmm/evidence/file_changes.h"
#include "vmm/evidence/journal_replay.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;
using storage::run_qemu_img;

/// The view in which a path is; without a name: none.
CloneView view_of(const CloneRecord& record, const std::string& path) {
    for (const auto& view : record.views) {
        if (path.starts_with(view.mountpoint + "/")) {
            return view;
        }
    }
    return {};
}

/// What was written is in the layer's files: the server that has it in memory brings it there.
void flush(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    // A server that has died has brought there what it could.
    static_cast<void>(file && ::fsync(file.get()) == 0);
}

/// A raw image as qemu-img is told of it, whoever has it locked: nobody writes it.
std::string raw_without_locks(const std::string& path) {
    std::string name;
    for (const char c : path) {
        name += c == ',' ? ",," : std::string(1, c);
    }
    return "driver=raw,file.driver=file,file.locking=off,file.filename=" + name;
}

}  // namespace

DiskExport::DiskExport(Bundle& bundle, const CloneRecord& record, size_t number)
    : bundle_(bundle),
      number_(number),
      name_(fmt::format("disk{}", number)),
      disk_(record.disks.at(number)),
      view_(view_of(record, disk_.path)) {}

Result<void> DiskExport::read_state(const CloneView& view, const std::string& tree,
                                    const std::string& path, const std::string& out,
                                    const OnProgress& progress) const {
    IVMM_ASSIGN(const auto store, storage::Store::open(view.store));
    IVMM_ASSIGN(const auto state, storage::open_tree(*store, tree));
    if (tree != view.view && state.name != "layer " + tree) {
        return fail("a view has the number {} for a name, which is that of the layer", tree);
    }
    storage::ExportOptions options;
    options.progress = [&](double part) { return progress(name_, part / 2); };
    return storage::export_file(state, path.substr(view.mountpoint.size()), out, options);
}

Result<void> DiskExport::add_past(const OnProgress& progress) {
    if (disk_.method == "shared") {
        return {};
    }
    if (view_.view.empty() || view_.fork_point == 0) {
        bundle_.add_missing(
            fmt::format("{}: what it was at the fork, and the files that have changed since then: "
                        "only disks on "
                        "an overlay keep that (docs/clone-disks.md)",
                        name_));
        return {};
    }
    IVMM_TRY(
        read_state(view_, std::to_string(view_.fork_point), disk_.path, past_image(), progress));
    IVMM_ASSIGN(const auto out, bundle_.add(name_ + "-fork.qcow2", "the disk at the fork"));
    IVMM_TRY(run_qemu_img({"convert", "-p", "-f", "raw", "-O", "qcow2", past_image(), out}, -1,
                          [&](double done) { return progress(name_, (1 + done) / 2); }));
    has_past_ = true;
    return {};
}

Result<void> DiskExport::add_present(const CloneRecord& now, const OnProgress& progress) {
    const CloneDisk& disk = now.disks.at(number_);
    const CloneView view = view_of(now, disk.path);
    if (!has_past_ || view.store != view_.store) {
        IVMM_ASSIGN(const auto out,
                    bundle_.add(name_ + ".qcow2", fmt::format("the disk '{}'", disk.path)));
        return run_qemu_img({"convert", "-p", "-U", "--image-opts", "-O", "qcow2", "-S", "4k",
                             raw_without_locks(disk.path), out},
                            -1, [&](double done) { return progress(name_, done); });
    }
    flush(disk.path);
    IVMM_TRY(read_state(view, view.view, disk.path, present_image(), progress));
    has_both_ = true;
    const std::string past = name_ + "-fork.qcow2";
    IVMM_ASSIGN(
        const auto out,
        bundle_.add(name_ + ".qcow2",
                    fmt::format("the disk: what is different from {}, which it needs beside "
                                "it",
                                past)));
    const std::string below = std::filesystem::path(out).parent_path().string() + "/" + past;
    // An image with nothing of its own, which then gets what makes the difference.
    const auto more = [&](double done) { return progress(name_, (1 + done) / 2); };
    IVMM_TRY(run_qemu_img({"create", "-q", "-f", "qcow2", "-b", present_image(), "-F", "raw", out},
                          -1, more));
    IVMM_TRY(
        run_qemu_img({"rebase", "-p", "-f", "qcow2", "-b", below, "-F", "qcow2", out}, -1, more));
    // Wherever the folder is: the one beside it.
    return run_qemu_img({"rebase", "-u", "-f", "qcow2", "-b", past, "-F", "qcow2", out}, -1, more);
}

Result<Json> DiskExport::add_files() {
    if (!has_both_) {
        return Json::array();
    }
    for (const auto& image : {past_image(), present_image()}) {
        if (const auto replayed = replay_journal(image); !replayed) {
            bundle_.add_missing(
                fmt::format("{}: what is only in the journal of its file system: {}", name_,
                            replayed.error().message));
        }
    }
    const UniqueFd before(::open(past_image().c_str(), O_RDONLY | O_CLOEXEC));
    const UniqueFd after(::open(present_image().c_str(), O_RDONLY | O_CLOEXEC));
    if (!before || !after) {
        return fail_errno("cannot open the images of {}", name_);
    }
    IVMM_ASSIGN(const auto path, bundle_.add(name_ + "-files.jsonl",
                                             "the files that have changed since the fork, a line "
                                             "each"));
    std::ofstream lines(path);
    Json all = Json::array();
    const auto listed = list_file_changes(before.get(), after.get(), [&](Json change) {
        lines << change.dump(-1, ' ', true, Json::error_handler_t::replace) << '\n';
        all.push_back(std::move(change));
        return Result<void>();
    });
    lines.close();
    if (!lines) {
        return fail("cannot write '{}'", path);
    }
    if (!listed) {
        bundle_.add_missing(fmt::format("{}: the files that have changed, or some of them: {}",
                                        name_, listed.error().message));
    }
    return all;
}

}  // namespace ivmm::evidence
