#include "tests/storage/load.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/result.h"
#include "tests/storage/stamp.h"

namespace ivmm::test {
namespace {

constexpr size_t kBigUnit = 4096;
constexpr size_t kSmallUnit = 512;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kMostUnits = 400;
constexpr size_t kMostDeleted = 8;

void append_units(std::string& data, const Change& change, uint64_t id, size_t unit) {
    for (uint64_t i = 0; i < change.count; ++i) {
        append_stamp(data, {id, change.index + i, change.version}, unit);
    }
}

std::string compare(const FileState& expected, const std::vector<Stamp>& stamps) {
    if (expected.versions.size() != stamps.size()) {
        return fmt::format("should have {} units, has {}", expected.versions.size(), stamps.size());
    }
    for (size_t i = 0; i < stamps.size(); ++i) {
        const uint64_t version = expected.versions[i];
        if (stamps[i].version != version || (version != 0 && stamps[i].file != expected.id)) {
            return fmt::format("unit {} should be version {} of file {}, is version {} of file {}",
                               i, version, expected.id, stamps[i].version, stamps[i].file);
        }
    }
    return {};
}

}  // namespace

uint64_t now() {
    static std::atomic<uint64_t> moments = 0;
    return ++moments;
}

size_t unit_of(const std::string& path) {
    const size_t name = path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1;
    return path[name] == 'b' ? kBigUnit : kSmallUnit;
}

void replay(FolderState& state, const Change& change) {
    using Kind = Change::Kind;
    switch (change.kind) {
        case Kind::kCreate:
            state[change.path] = {change.id, {}};
            break;
        case Kind::kWrite:
        case Kind::kAppend:
        case Kind::kZero: {
            auto& versions = state[change.path].versions;
            versions.resize(std::max(versions.size(), change.index + change.count));
            std::fill_n(versions.begin() + static_cast<ptrdiff_t>(change.index), change.count,
                        change.version);
            break;
        }
        case Kind::kTruncate:
            state[change.path].versions.resize(change.index);
            break;
        case Kind::kRename:
            state[change.other] = state[change.path];
            state.erase(change.path);
            break;
        case Kind::kUnlink:
            state.erase(change.path);
            break;
        case Kind::kRenameFolder: {
            FolderState renamed;
            for (const auto& [path, file] : state) {
                const bool inside = path.starts_with(change.path + "/");
                renamed[inside ? change.other + path.substr(change.path.size()) : path] = file;
            }
            state = std::move(renamed);
        }
    }
}

std::string describe(const Change& change) {
    static const std::vector<std::string> kNames = {"create", "write",  "append", "truncate",
                                                    "zero",   "rename", "unlink", "rename folder"};
    return fmt::format("{} {} {} index {} count {} version {} id {} from {} to {}",
                       kNames.at(static_cast<size_t>(change.kind)), change.path, change.other,
                       change.index, change.count, change.version, change.id, change.begun,
                       change.ended);
}

FolderState make_folder(const std::string& path) {
    std::filesystem::create_directories(path + "/sub");
    FolderState state;
    uint64_t id = 1;
    for (const auto& [name, units] : std::vector<std::pair<std::string, uint64_t>>{{"big", 256},
                                                                                   {"b2", 40},
                                                                                   {"small", 8},
                                                                                   {"s2", 120},
                                                                                   {"s3", 1},
                                                                                   {"sub/s", 3},
                                                                                   {"sub/big", 64},
                                                                                   {"append", 2}}) {
        Change change;
        change.kind = Change::Kind::kWrite;
        change.path = name;
        change.count = units;
        change.version = 1;
        state[name].id = id;
        replay(state, change);
        std::string data;
        append_units(data, change, id++, unit_of(name));
        const UniqueFd fd(
            ::open((path + "/" + name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        if (::write(fd.get(), data.data(), data.size()) != static_cast<ssize_t>(data.size())) {
            return {};
        }
    }
    return state;
}

std::string difference(const FolderState& expected, const std::string& folder) {
    std::string found;
    std::error_code error;
    size_t files = 0;
    std::filesystem::recursive_directory_iterator entries(folder, error);
    for (; !error && entries != std::filesystem::end(entries); entries.increment(error)) {
        if (entries->is_regular_file(error)) {
            const std::string path = entries->path().string().substr(folder.size() + 1);
            ++files;
            if (!expected.contains(path)) {
                return path + " should not exist";
            }
        }
    }
    if (error) {
        return folder + " cannot be listed: " + error.message();
    }
    for (const auto& [path, file] : expected) {
        std::string problem;
        const auto stamps = read_stamps(folder + "/" + path, unit_of(path), problem);
        if (problem.empty()) {
            problem = compare(file, stamps);
        }
        if (!problem.empty()) {
            return path + " " + problem;
        }
    }
    return files == expected.size() ? "" : "a file that can be opened is not listed";
}

Writer::Writer(std::string folder, FolderState state, uint64_t seed)
    : folder_(std::move(folder)), base_(std::move(state)), state_(base_), random_(seed) {
    for (const auto& [path, file] : base_) {
        next_id_ = std::max(next_id_, file.id + 1);
        for (const uint64_t version : file.versions) {
            next_version_ = std::max(next_version_, version + 1);
        }
        if (const size_t slash = path.find('/'); slash != std::string::npos) {
            subfolder_ = path.substr(0, slash);
        }
    }
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Writer::~Writer() {
    stop();
}

void Writer::stop() {
    if (!thread_.joinable()) {
        return;
    }
    thread_.request_stop();
    thread_.join();
    for (const auto& file : deleted_) {
        std::string problem;
        const auto stamps = read_stamps(file.fd.get(), file.unit, problem);
        if (problem.empty()) {
            problem = compare(file.state, stamps);
        }
        if (!problem.empty() && problem_.empty()) {
            problem_ = "an open deleted file " + problem;
        }
    }
    deleted_.clear();
    open_.clear();
}

void Writer::run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
        Change change = propose();
        size_t place = 0;
        {
            const std::scoped_lock lock(mutex_);
            change.begun = now();
            place = log_.size();
            log_.push_back(change);
        }
        if (!perform(change)) {
            problem_ = folder_ + ": " + describe(change) + ": " + error_text(errno);
            return;
        }
        replay(state_, change);
        {
            const std::scoped_lock lock(mutex_);
            log_[place].ended = now();
        }
        ++count_;
    }
}

std::string Writer::some_file() {
    return std::next(state_.begin(), static_cast<ptrdiff_t>(random_.below(state_.size())))->first;
}

Change Writer::propose() {
    using Kind = Change::Kind;
    Change change;
    change.path = some_file();
    change.version = next_version_++;
    const uint64_t units = state_[change.path].versions.size();
    const uint64_t dice = random_.below(100);
    const auto new_name = [&](char first) {
        return (random_.one_in(2) ? "" : subfolder_ + "/") + first + "n" +
               std::to_string(random_.below(12));
    };
    if (dice < 12) {
        const std::string name = new_name(random_.one_in(3) ? 'b' : 's');
        if (!state_.contains(name)) {
            change.kind = Kind::kCreate;
            change.path = name;
            change.id = next_id_++;
            return change;
        }
    } else if (dice < 20) {
        change.kind = Kind::kRename;
        change.other = new_name(unit_of(change.path) == kBigUnit ? 'b' : 's');
        if (change.other != change.path) {
            return change;
        }
    } else if (dice < 26 && state_.size() > 6) {
        change.kind = Kind::kUnlink;
        return change;
    } else if (dice < 30 && units > 0) {
        change.kind = Kind::kTruncate;
        change.index = random_.below(units * 5 / 4 + 1);
        return change;
    } else if (dice < 36 && units > 0) {
        change.kind = Kind::kZero;
        change.index = random_.below(units);
        change.count = 1 + random_.below(std::min<uint64_t>(units - change.index, 8));
        change.version = 0;
        return change;
    } else if (dice < 38) {
        const bool there = std::any_of(state_.begin(), state_.end(), [&](const auto& file) {
            return file.first.starts_with(subfolder_ + "/");
        });
        if (there) {  // so that the next writer finds its name
            change.kind = Kind::kRenameFolder;
            change.path = std::exchange(subfolder_, "sub" + std::to_string(change.version));
            change.other = subfolder_;
            return change;
        }
    }
    change.kind = Kind::kWrite;
    change.other = "";
    change.count = 1 + random_.below(4);
    if (random_.one_in(6) || units == 0) {
        change.kind = Kind::kAppend;
        change.index = units;
    } else {
        change.index = random_.below(units);
    }
    // The kernel may hand a write to the file system page by page, each of which is one operation.
    const uint64_t units_in_page = std::max<uint64_t>(kPage / unit_of(change.path), 1);
    change.count = std::min(change.count, units_in_page - change.index % units_in_page);
    if (change.index + change.count > kMostUnits) {
        change.kind = Kind::kTruncate;
        change.index = kMostUnits / 2;
    }
    return change;
}

/// Most files stay open over everything that happens.
int Writer::open_file(const std::string& path) {
    UniqueFd& fd = open_[state_[path].id];
    if (!fd || random_.one_in(5)) {
        fd.reset(::open((folder_ + "/" + path).c_str(), O_RDWR | O_CLOEXEC));
    }
    return fd.get();
}

bool Writer::write_units(const std::string& path, const Change& change) {
    std::string data;
    const size_t unit = unit_of(path);
    append_units(data, change, state_[path].id, unit);
    int fd = -1;
    UniqueFd appending;
    if (change.kind == Change::Kind::kAppend) {
        appending.reset(::open((folder_ + "/" + path).c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
        fd = appending.get();
    } else {
        fd = open_file(path);
    }
    return ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(change.index * unit)) ==
           static_cast<ssize_t>(data.size());
}

bool Writer::perform(const Change& change) {
    using Kind = Change::Kind;
    const std::string full = folder_ + "/" + change.path;
    const size_t unit = unit_of(change.path);
    switch (change.kind) {
        case Kind::kCreate: {
            if (const size_t slash = change.path.find('/'); slash != std::string::npos) {
                ::mkdir((folder_ + "/" + change.path.substr(0, slash)).c_str(), 0755);
            }
            UniqueFd& fd = open_[change.id];
            fd.reset(::open(full.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
            return static_cast<bool>(fd);
        }
        case Kind::kWrite:
        case Kind::kAppend:
            return write_units(change.path, change);
        case Kind::kTruncate:
            return ::ftruncate(open_file(change.path), static_cast<off_t>(change.index * unit)) ==
                   0;
        case Kind::kZero:
            return ::fallocate(open_file(change.path), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               static_cast<off_t>(change.index * unit),
                               static_cast<off_t>(change.count * unit)) == 0;
        case Kind::kRename:
            if (const size_t slash = change.other.find('/'); slash != std::string::npos) {
                ::mkdir((folder_ + "/" + change.other.substr(0, slash)).c_str(), 0755);
            }
            return ::rename(full.c_str(), (folder_ + "/" + change.other).c_str()) == 0;
        case Kind::kUnlink: {
            const int fd = open_file(change.path);
            const FileState state = state_[change.path];
            if (::unlink(full.c_str()) != 0 || fd < 0) {
                return false;
            }
            if (deleted_.size() < kMostDeleted) {
                deleted_.push_back({std::move(open_[state.id]), state, unit});
            }
            open_.erase(state.id);
            return true;
        }
        case Kind::kRenameFolder:
            return ::rename(full.c_str(), (folder_ + "/" + change.other).c_str()) == 0;
    }
    return false;
}

Writer::Cut Writer::find_cut(const std::string& copy, uint64_t before, uint64_t after) {
    std::vector<Change> log;
    {
        const std::scoped_lock lock(mutex_);
        log = log_;
    }
    Cut cut{{}, base_, 0, UINT64_MAX};
    size_t included = 0;
    while (included < log.size() && log[included].ended < before) {
        replay(cut.state, log[included++]);
    }
    // A change may show nothing, and some undo each other, so several states may be the copy's: the
    // first of them tells what must have been in it, the last what cannot have been.
    FolderState state = cut.state;
    bool found = false;
    std::string tried;
    while (true) {
        const std::string problem = difference(state, copy);
        if (problem.empty()) {
            if (!found) {
                cut.last_in_begun = included == 0 ? 0 : log[included - 1].begun;
                cut.state = state;
            }
            found = true;
            cut.first_out_ended = included == log.size() ? UINT64_MAX : log[included].ended;
        }
        tried += fmt::format("  after {} changes: {}\n", included, problem);
        if (included == log.size() || log[included].begun > after) {
            break;
        }
        replay(state, log[included++]);
    }
    if (found) {
        return cut;
    }
    cut.problem =
        fmt::format("{} is none of the states from {} to {}:\n{}", copy, before, after, tried);
    for (size_t i = included - std::min<size_t>(included, 8);
         i < std::min(log.size(), included + 3); ++i) {
        cut.problem += fmt::format("  {:5} {}\n", i, describe(log[i]));
    }
    return cut;
}

}  // namespace ivmm::test
