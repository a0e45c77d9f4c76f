#include "vmm/fork/disk_fork.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>

#include "base/log.h"
#include "base/utc_time.h"
#include "vmm/config/validate.h"
#include "vmm/fork/clone_removal.h"
#include "vmm/overlay/mount_table.h"

namespace ivmm {
namespace {

using overlay::ServedFile;

constexpr const char* kOverlay = "overlay";
constexpr const char* kReflink = "reflink";
constexpr const char* kCopy = "copy";
constexpr const char* kShared = "shared";

/// Refuses the name of a clone that is there; whoever has the claim may take an empty folder.
Result<void> check_is_new(const std::string& clone) {
    if (::access(clone_record_path(clone).c_str(), F_OK) == 0) {
        return fail(
            "there is a clone '{}' already; give the new one another name, or remove it "
            "with `ivmm rm {}`",
            clone, clone);
    }
    return {};
}

Result<void> check_is_file(const std::string& disk) {
    struct stat info {};
    if (::stat(disk.c_str(), &info) != 0) {
        return fail_errno("disk '{}' cannot be forked", disk);
    }
    if (S_ISBLK(info.st_mode)) {
        return fail(
            "disk '{}' is a block device that the guest writes, which cannot be forked; "
            "put the disk as a file on an overlay (`ivmm overlay mount`), or make it "
            "read-only",
            disk);
    }
    if (!S_ISREG(info.st_mode)) {
        return fail("disk '{}' cannot be forked: it is not a file", disk);
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<DiskFork>> DiskFork::prepare(const std::vector<DiskConfig>& disks,
                                                    const std::string& primary,
                                                    const std::string& clone,
                                                    const rpc::Json& cause) {
    IVMM_TRY(check_guest_name(clone));
    IVMM_ASSIGN(auto claim, CloneClaim::take(clone));
    IVMM_TRY(check_is_new(clone));
    // From here on what was made is removed when this object is.
    std::unique_ptr<DiskFork> self(new DiskFork(std::move(claim)));
    self->record_.clone = clone;
    self->record_.primary = primary;
    self->record_.created = utc_time();
    self->record_.cause = cause;
    for (const auto& disk : disks) {
        IVMM_TRY(self->add(disk));
    }
    IVMM_TRY(self->check_space());
    IVMM_TRY(self->prepare_views());
    return self;
}

Result<void> DiskFork::add(const DiskConfig& disk) {
    IVMM_ASSIGN(const auto source, overlay::resolve(disk.path));
    if (disk.read_only) {
        record_.disks.push_back({kShared, source, source});
        return {};
    }
    IVMM_TRY(check_is_file(source));
    IVMM_ASSIGN(auto file, overlay::find_mount_of_file(source));
    return file ? add_to_overlay(source, *std::move(file)) : add_copy(source);
}

Result<void> DiskFork::add_to_overlay(const std::string& source, ServedFile file) {
    auto fork = std::ranges::find_if(
        views_, [&](const ViewFork& other) { return other.is_of(file.mount); });
    if (fork == views_.end()) {
        CloneView view;
        view.store = file.mount.server.status.value("store", "");
        view.server_pid = file.mount.server.status.value("pid", 0);
        view.mountpoint = fmt::format("{}/{}", claim_.folder(), views_.size());
        const bool taken = std::ranges::any_of(
            views_, [&](const ViewFork& other) { return other.view().store == view.store; });
        view.view = taken ? fmt::format("{}.{}", record_.clone, views_.size()) : record_.clone;
        if (::mkdir(view.mountpoint.c_str(), 0700) != 0 && errno != EEXIST) {
            return fail_errno("cannot create the clone's mount point '{}'", view.mountpoint);
        }
        record_.views.push_back(view);
        fork = views_.insert(views_.end(), ViewFork(std::move(file.mount), std::move(view)));
    }
    record_.disks.push_back({kOverlay, source, fork->view().mountpoint + file.path});
    return {};
}

Result<void> DiskFork::add_copy(const std::string& source) {
    IVMM_ASSIGN(auto copy, DiskCopy::create(source, source + "." + record_.clone));
    const bool shares = copy.method() == DiskCopy::Method::kReflink;
    record_.disks.push_back({shares ? kReflink : kCopy, source, copy.path()});
    if (!shares) {
        log::info(
            "disk '{}': its file system cannot share blocks: the pause of the fork contains "
            "a copy of {} bytes; on an overlay it would not",
            source, copy.bytes());
    }
    copies_.push_back(std::move(copy));
    return {};
}

Result<void> DiskFork::check_space() const {
    std::map<dev_t, uint64_t> wanted;
    for (const auto& copy : copies_) {
        auto& sum = wanted[copy.file_system()];
        sum += copy.bytes();
        IVMM_ASSIGN(const uint64_t left, copy.free_bytes());
        if (sum > left) {
            return fail(
                "there is too little space for '{}': the clone's copies of disks on this "
                "file system need {} bytes, it has {}; free some, or put the disk on an "
                "overlay (`ivmm overlay mount`)",
                copy.path(), sum, left);
        }
    }
    return {};
}

Result<void> DiskFork::prepare_views() {
    IVMM_TRY(write_clone_record(record_));
    for (auto& view : views_) {
        IVMM_TRY(view.prepare());
    }
    return {};
}

Result<void> DiskFork::commit_views() {
    // Servers work side by side; each is waited for, so that it is known what there is.
    Result<void> first;
    std::vector<ViewFork*> asked;
    const auto note = [&](Result<void> outcome) {
        const bool good = outcome.has_value();
        if (!good && first) {
            first = std::move(outcome);
        }
        return good;
    };
    for (auto& view : views_) {
        if (first && note(view.begin_commit())) {
            asked.push_back(&view);
        }
    }
    for (auto* const view : asked) {
        if (note(view->end_commit())) {
            times_.overlay_pause_us += view->pause_us();
        }
    }
    return first;
}

Result<void> DiskFork::commit() {
    const auto begin = std::chrono::steady_clock::now();
    // What is more likely to fail comes first.
    for (auto& copy : copies_) {
        IVMM_TRY(copy.make());
    }
    IVMM_TRY(commit_views());
    const std::chrono::duration<double, std::micro> taken =
        std::chrono::steady_clock::now() - begin;
    times_.commit_us = taken.count();
    return {};
}

Result<std::vector<ForkedDisk>> DiskFork::finish() {
    for (size_t i = 0; i < views_.size(); ++i) {
        IVMM_TRY(views_[i].mount());
        record_.views[i] = views_[i].view();
    }
    std::vector<ForkedDisk> forked;
    for (const auto& disk : record_.disks) {
        if (::access(disk.path.c_str(), F_OK) != 0) {
            return fail_errno(
                "the clone's disk '{}' is not there (does the overlay's server run "
                "in another mount namespace?)",
                disk.path);
        }
        forked.push_back({disk.path, disk.method});
    }
    record_.complete = true;
    IVMM_TRY(write_clone_record(record_));
    kept_ = true;
    return forked;
}

void DiskFork::roll_back() {
    CloneRecord made = record_;
    // A view that commit() has not made is not the clone's, whoever made it meanwhile.
    made.views.clear();
    for (const auto& view : views_) {
        if (view.may_exist()) {
            made.views.push_back(view.view());
        }
    }
    if (const auto removed = remove_claimed_clone_disks(made, /*force=*/true); !removed) {
        std::ignore = write_clone_record(made);
        log::error("{}; `ivmm rm {}` tries it again", removed.error().message, record_.clone);
    }
    views_.clear();
    copies_.clear();
    kept_ = true;
}

DiskFork::~DiskFork() {
    if (!kept_) {
        roll_back();
    }
}

}  // namespace ivmm
