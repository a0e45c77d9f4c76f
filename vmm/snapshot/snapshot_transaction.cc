#include "vmm/snapshot/snapshot_transaction.h"

#include <algorithm>
#include <filesystem>

#include "base/utc_time.h"
#include "vmm/fork/stopwatch.h"
#include "vmm/snapshot/snapshot_disks.h"

namespace ivmm {
namespace {

Unexpected at_step(Error error, const char* step) {
    return annotate(std::move(error), step);
}

/// What the disks of a snapshot are called: the guest's name and the folder's, as far as a guest's
/// name may be like that.
std::string name_of_disks(const std::string& guest, const std::string& folder) {
    constexpr size_t kMaxName = 64;
    std::string name = guest + "-" + std::filesystem::path(folder).filename().string();
    for (char& c : name) {
        const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '.' || c == '_';
        c = good ? c : '-';
    }
    return name.substr(0, kMaxName);
}

}  // namespace

Result<SnapshotReport> SnapshotTransaction::run(const SnapshotRequest& request,
                                                const MemoryProgress& progress) {
    if (auto done = prepare(request); !done) {
        return at_step(std::move(done).error(), "preparing the snapshot");
    }
    auto rounds = synchroniser_.approach();
    if (!rounds) {
        return at_step(std::move(rounds).error(), "copying the memory");
    }
    report_.rounds = *rounds;
    IVMM_TRY(take_instant(request.stop));
    auto written = write(request, progress);
    if (!written && request.stop && was_running_) {
        control_.call([&] { std::ignore = machine_.resume(); });
    }
    if (!written) {
        if (disks_) {
            disks_->roll_back();
        }
        return at_step(std::move(written).error(), "writing the snapshot");
    }
    return std::move(report_);
}

Result<void> SnapshotTransaction::prepare(const SnapshotRequest& request) {
    IVMM_ASSIGN(auto folder, SnapshotFolder::create(request.folder));
    folder_.emplace(std::move(folder));
    report_.folder = folder_->path();
    const GuestConfig& config = machine_.config();
    if (!request.base.empty()) {
        IVMM_ASSIGN(const auto base, read_snapshot(request.base));
        IVMM_ASSIGN(auto chain, MemoryChain::open(request.base, base));
        if (chain.bytes() != config.memory_bytes) {
            return fail("the base '{}' has {} bytes of memory, the guest {}", request.base,
                        chain.bytes(), config.memory_bytes);
        }
        if (chain.depth() >= MemoryChain::kMaxDepth) {
            return fail(
                "the base '{}' is the last of {} snapshots that build on each other, "
                "which is the most; make one without a base",
                request.base, chain.depth());
        }
        base_.emplace(std::move(chain));
        std::error_code error;
        const auto there = std::filesystem::canonical(request.base, error);
        base_name_ = {there.lexically_relative(folder_->path()).string(), base.guest.id};
    }
    const bool writes =
        std::ranges::any_of(config.disks, [](const DiskConfig& disk) { return !disk.read_only; });
    if (writes && !request.stop) {
        report_.disks_of = name_of_disks(config.name, report_.folder);
        IVMM_ASSIGN(disks_, DiskFork::prepare(config.disks, config.name, report_.disks_of));
    }
    return {};
}

Result<void> SnapshotTransaction::take_instant(bool stop) {
    Result<void> done;
    control_.call([&] { done = instant(stop); });
    return done;
}

Result<void> SnapshotTransaction::instant(bool stop) {
    // Whoever has paused the guest will resume it.
    was_running_ = machine_.state() == RunState::kRunning;
    const Stopwatch pause;
    if (auto paused = machine_.pause(); !paused) {
        return at_step(std::move(paused).error(), "pausing the guest");
    }
    report_.stop_us = pause.us();
    auto done = instant_while_paused();
    auto resumed = was_running_ && (!stop || !done) ? machine_.resume() : Result<void>();
    report_.pause_us = pause.us();
    IVMM_TRY(std::move(done));
    if (!resumed) {
        return at_step(std::move(resumed).error(), "resuming the guest");
    }
    return {};
}

Result<void> SnapshotTransaction::instant_while_paused() {
    auto round = synchroniser_.last_round();
    if (!round) {
        return at_step(std::move(round).error(), "copying the last pages");
    }
    report_.residual_pages = round->dirty;
    report_.residual_copy_us = round->us;
    const Stopwatch saving;
    auto state = machine_.save();
    if (!state) {
        return at_step(std::move(state).error(), "saving the machine's state");
    }
    snapshot_.machine = *std::move(state);
    report_.state_us = saving.us();
    if (!disks_) {
        auto described = describe_disks();
        return described ? Result<void>() : at_step(std::move(described).error(), "its disks");
    }
    const Stopwatch forking;
    if (auto forked = disks_->commit(); !forked) {
        return at_step(std::move(forked).error(), "forking the disks");
    }
    report_.disk_fork_us = forking.us();
    return {};
}

Result<void> SnapshotTransaction::describe_disks() {
    for (const auto& disk : machine_.config().disks) {
        IVMM_ASSIGN(auto described, describe_disk(disk.path, false));
        report_.disks.push_back({described.path, "kept"});
        snapshot_.guest.disks.push_back(std::move(described));
    }
    return {};
}

Result<void> SnapshotTransaction::write(const SnapshotRequest& request,
                                        const MemoryProgress& progress) {
    if (disks_) {
        IVMM_ASSIGN(const auto forked, disks_->finish());
        for (const auto& disk : forked) {
            IVMM_ASSIGN(auto described, describe_disk(disk.path, disk.method != "shared"));
            report_.disks.push_back({described.path, disk.method});
            snapshot_.guest.disks.push_back(std::move(described));
        }
    }
    SnapshotGuest& guest = snapshot_.guest;
    guest.id = new_snapshot_id();
    guest.created = utc_time();
    guest.config = machine_.config();
    for (size_t i = 0; i < guest.disks.size(); ++i) {
        guest.config.disks[i].path = guest.disks[i].path;
    }
    IVMM_ASSIGN(const auto image, synchroniser_.replica().open_for_reading());
    IVMM_ASSIGN(const auto file, folder_->create_memory());
    auto written = write_memory(file.get(), image.get(), guest.config.memory_bytes,
                                base_ ? &*base_ : nullptr, progress);
    if (!written) {
        return annotate(std::move(written).error(),
                        fmt::format("'{}/{}'", folder_->path(), kMemoryFile));
    }
    snapshot_.memory = std::move(written->memory);
    snapshot_.memory.base = base_name_;
    report_.memory_bytes = guest.config.memory_bytes;
    report_.written_bytes = written->written_bytes;
    IVMM_TRY(folder_->write_machine(encode_snapshot(snapshot_)));
    if (request.stop) {
        Result<void> still;
        control_.call([&] { still = check_still_paused(); });
        IVMM_TRY(std::move(still));
    }
    return folder_->publish();
}

Result<void> SnapshotTransaction::check_still_paused() const {
    if (machine_.state() != RunState::kPaused) {
        return fail("the guest has been resumed or stopped before its snapshot was complete");
    }
    for (const auto& disk : snapshot_.guest.disks) {
        IVMM_TRY(check_disk(disk, disk.path));
    }
    return {};
}

}  // namespace ivmm
