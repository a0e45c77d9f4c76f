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

/// Both states as raw images.
struct Images {
    std::string before;
    std::string after;
};

Result<Images> read_states(const Bundle& bundle, const DiskStates& states,
                           const OnProgress& progress, const std::string& name) {
    flush(states.now.path);
    IVMM_ASSIGN(const auto store, storage::Store::open(states.view.store));
    const std::string path = states.now.path.substr(states.view.mountpoint.size());
    const Images images{bundle.scratch() + "/" + name + "-fork.raw",
                        bundle.scratch() + "/" + name + ".raw"};
    double begin = 0;
    storage::ExportOptions options;
    options.progress = [&](double part) { return progress(name, begin + part / 4); };
    IVMM_ASSIGN(const auto now, storage::open_tree(*store, states.view.view));
    IVMM_TRY(storage::export_file(now, path, images.after, options));
    begin = 0.25;
    const std::string layer = std::to_string(states.fork_point);
    IVMM_ASSIGN(const auto past, storage::open_tree(*store, layer));
    if (past.name != "layer " + layer) {
        return fail("a view has the number {} for a name, which is that of the layer", layer);
    }
    IVMM_TRY(storage::export_file(past, path, images.before, options));
    return images;
}

Result<void> add_images(Bundle& bundle, const Images& images, const std::string& name,
                        const OnProgress& progress) {
    IVMM_ASSIGN(const auto past, bundle.add(name + "-fork.qcow2", "the disk at the fork"));
    IVMM_ASSIGN(
        const auto now,
        bundle.add(name + ".qcow2", fmt::format("the disk: what is different from {}-fork.qcow2, "
                                                "which it needs beside it",
                                                name)));
    IVMM_TRY(run_qemu_img({"convert", "-p", "-f", "raw", "-O", "qcow2", images.before, past}, -1,
                          [&](double done) { return progress(name, 0.5 + done / 4); }));
    // An image with nothing of its own, which then gets what makes the difference.
    const auto more = [&](double done) { return progress(name, 0.75 + done / 4); };
    IVMM_TRY(run_qemu_img({"create", "-q", "-f", "qcow2", "-b", images.after, "-F", "raw", now}, -1,
                          more));
    IVMM_TRY(
        run_qemu_img({"rebase", "-p", "-f", "qcow2", "-b", past, "-F", "qcow2", now}, -1, more));
    // Wherever the folder is: the one beside it.
    return run_qemu_img(
        {"rebase", "-u", "-f", "qcow2", "-b", name + "-fork.qcow2", "-F", "qcow2", now}, -1, more);
}

Result<Json> add_files(Bundle& bundle, const Images& images, const std::string& name) {
    for (const auto& image : {images.before, images.after}) {
        if (const auto replayed = replay_journal(image); !replayed) {
            bundle.add_missing(fmt::format("{}: what is only in the journal of its file system: {}",
                                           name, replayed.error().message));
        }
    }
    const UniqueFd before(::open(images.before.c_str(), O_RDONLY | O_CLOEXEC));
    const UniqueFd after(::open(images.after.c_str(), O_RDONLY | O_CLOEXEC));
    if (!before || !after) {
        return fail_errno("cannot open the images of {}", name);
    }
    IVMM_ASSIGN(const auto path, bundle.add(name + "-files.jsonl",
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
        bundle.add_missing(fmt::format("{}: the files that have changed, or some of them: {}", name,
                                       listed.error().message));
    }
    return all;
}

}  // namespace

DiskStates disk_states(const CloneRecord& record, const CloneRecord& now_record, size_t number) {
    DiskStates states;
    states.now = now_record.disks.at(number);
    states.view = view_of(now_record, states.now.path);
    if (number < record.disks.size()) {
        const CloneView own = view_of(record, record.disks[number].path);
        states.fork_point = own.store == states.view.store ? own.fork_point : 0;
    }
    return states;
}

Result<Json> add_disk(Bundle& bundle, size_t number, const DiskStates& states,
                      const OnProgress& progress) {
    const std::string name = fmt::format("disk{}", number);
    if (states.view.view.empty() || states.fork_point == 0) {
        if (states.now.method != "shared") {
            bundle.add_missing(fmt::format(
                "{}: what it was at the fork, and the files that have changed since then: only "
                "disks on an overlay keep that (docs/clone-disks.md)",
                name));
        }
        IVMM_ASSIGN(const auto out,
                    bundle.add(name + ".qcow2", fmt::format("the disk '{}'", states.now.path)));
        IVMM_TRY(run_qemu_img(
            {"convert", "-p", "-U", "-f", "raw", "-O", "qcow2", "-S", "4k", states.now.path, out},
            -1, [&](double done) { return progress(name, done); }));
        return Json::array();
    }
    IVMM_ASSIGN(const auto images, read_states(bundle, states, progress, name));
    IVMM_TRY(add_images(bundle, images, name, progress));
    return add_files(bundle, images, name);
}

}  // namespace ivmm::evidence
