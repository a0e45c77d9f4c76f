#include "tests/storage/durability.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "tests/storage/stamp.h"

namespace ivmm::test {
namespace {

constexpr size_t kUnit = 4096;
constexpr uint64_t kMostUnits = 300;
constexpr size_t kMostFiles = 24;
constexpr uint64_t kAbsent = DurableFile::kAbsent;

using Outcome = DurableWriter::Outcome;

Outcome done(bool success) {
    return success ? Outcome::kDone : Outcome::kFailed;
}

/// Says that a unit is about to become `version`.
void will_be(DurableFile& file, uint64_t unit, uint64_t version) {
    while (file.allowed.size() <= unit) {
        file.allowed.push_back({kAbsent, 0});  // a hole that nobody wrote is zeroes
    }
    file.allowed[unit].insert(version);
}

void becomes(DurableFile& file, uint64_t unit, uint64_t version) {
    if (file.current.size() <= unit) {
        file.current.resize(unit + 1);
    }
    file.current[unit] = version;
}

void all_is_durable(DurableFile& file) {
    file.allowed.assign(file.current.size(), {});
    for (size_t i = 0; i < file.current.size(); ++i) {
        file.allowed[i] = {file.current[i]};
    }
}

void name_is_durable(DurableFile& file) {
    file.names.clear();
    if (!file.name.empty()) {
        file.names.insert(file.name);
    }
    file.may_be_gone = file.name.empty();
}

std::string stamped(uint64_t file, uint64_t index, uint64_t count, uint64_t version) {
    std::string data;
    for (uint64_t i = 0; i < count; ++i) {
        append_stamp(data, {file, index + i, version}, kUnit);
    }
    return data;
}

UniqueFd open_file(const std::string& path, int flags) {
    return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
}

/// A file's number: of its content, or of its name if it has none.
uint64_t id_of(const std::string& name, const std::vector<Stamp>& stamps) {
    for (const auto& stamp : stamps) {
        if (stamp.version != 0) {
            return stamp.file;
        }
    }
    return name.starts_with('f') ? std::stoull(name.substr(1)) : 0;
}

std::string show(const std::set<uint64_t>& versions) {
    std::string text;
    for (const uint64_t version : versions) {
        text += version == kAbsent ? "absent " : std::to_string(version) + " ";
    }
    return text;
}

}  // namespace

DurableFolder make_durable_folder(const std::string& path, uint64_t first_id) {
    std::filesystem::create_directories(path);
    DurableFolder folder;
    uint64_t id = first_id;
    for (const uint64_t units : {256, 40, 3, 1, 1, 2}) {
        const bool pinned = units <= 2;
        const std::string name =
            pinned ? "pinned" + std::to_string(id - first_id) : "f" + std::to_string(id) + "-0";
        const std::string data = stamped(id, 0, units, 1);
        const UniqueFd fd = open_file(path + "/" + name, O_WRONLY | O_CREAT);
        if (::write(fd.get(), data.data(), data.size()) != static_cast<ssize_t>(data.size())) {
            return {};
        }
        DurableFile file;
        file.current.assign(units, 1);
        file.name = name;
        all_is_durable(file);
        name_is_durable(file);
        folder.files[id++] = file;
        if (pinned) {
            folder.pinned.insert(name);
        }
    }
    return folder;
}

Outcome DurableWriter::step(DurableFolder& folder, const std::string& path) {
    std::vector<uint64_t> ids;
    for (const auto& [id, file] : folder.files) {
        if (!file.name.empty() && !folder.pinned.contains(file.name)) {
            ids.push_back(id);
        }
    }
    if (ids.empty()) {
        return create(folder, path);
    }
    const uint64_t id = random_.pick(ids);
    DurableFile& file = folder.files[id];
    const uint64_t dice = random_.below(100);
    if (dice < 50) {
        return write(file, id, path);
    }
    if (dice < 54) {
        return resize(file, path);
    }
    if (dice < 60) {
        return zero(file, path);
    }
    if (dice < 68 && ids.size() < kMostFiles) {
        return create(folder, path);
    }
    if (dice < 72) {
        return replace(folder, path);
    }
    if (dice < 78) {
        return rename(file, path);
    }
    if (dice < 82 && ids.size() > 4) {
        return remove(file, path);
    }
    return dice < 94 ? sync_file(file, path) : sync_folder(folder, path);
}

Outcome DurableWriter::write(DurableFile& file, uint64_t id, const std::string& path) {
    const uint64_t units = file.current.size();
    const uint64_t count = 1 + random_.below(4);
    const uint64_t index = random_.one_in(5) ? units : random_.below(units + 1);
    if (index + count > kMostUnits) {
        return Outcome::kDone;
    }
    const uint64_t version = number_++;
    for (uint64_t i = 0; i < count; ++i) {
        will_be(file, index + i, version);
    }
    const UniqueFd fd = open_file(path + "/" + file.name, O_WRONLY);
    const std::string data = stamped(id, index, count, version);
    const ssize_t size =
        ::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(index * kUnit));
    for (uint64_t i = 0; i < static_cast<uint64_t>(std::max<ssize_t>(size, 0)) / kUnit; ++i) {
        becomes(file, index + i, version);
    }
    return done(size == static_cast<ssize_t>(data.size()));
}

Outcome DurableWriter::resize(DurableFile& file, const std::string& path) {
    const uint64_t units = file.current.size();
    const uint64_t size = random_.below(units + units / 4 + 2);
    for (uint64_t i = size; i < file.allowed.size(); ++i) {
        file.allowed[i].insert({kAbsent, 0});  // zeroes: if it grows again
    }
    for (uint64_t i = units; i < size; ++i) {
        will_be(file, i, 0);
    }
    if (::truncate((path + "/" + file.name).c_str(), static_cast<off_t>(size * kUnit)) != 0) {
        return Outcome::kFailed;
    }
    file.current.resize(size);
    return Outcome::kDone;
}

Outcome DurableWriter::zero(DurableFile& file, const std::string& path) {
    const uint64_t units = file.current.size();
    if (units == 0) {
        return Outcome::kDone;
    }
    const uint64_t index = random_.below(units);
    const uint64_t count = 1 + random_.below(std::min<uint64_t>(units - index, 10));
    for (uint64_t i = index; i < index + count; ++i) {
        will_be(file, i, 0);
    }
    const UniqueFd fd = open_file(path + "/" + file.name, O_WRONLY);
    if (::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(index * kUnit), static_cast<off_t>(count * kUnit)) != 0) {
        return Outcome::kFailed;
    }
    for (uint64_t i = index; i < index + count; ++i) {
        becomes(file, i, 0);
    }
    return Outcome::kDone;
}

Outcome DurableWriter::create(DurableFolder& folder, const std::string& path) {
    const uint64_t id = number_++;
    DurableFile& file = folder.files[id];
    const std::string name = "f" + std::to_string(id) + "-0";
    file.names = {name};
    const UniqueFd fd = open_file(path + "/" + name, O_WRONLY | O_CREAT | O_EXCL);
    if (!fd) {
        return Outcome::kFailed;
    }
    file.name = name;
    return write(file, id, path);
}

/// As careful programs do it: a new file, made durable, takes the name of the old one.
Outcome DurableWriter::replace(DurableFolder& folder, const std::string& path) {
    const std::string target = *std::next(
        folder.pinned.begin(), static_cast<ptrdiff_t>(random_.below(folder.pinned.size())));
    const uint64_t id = number_++;
    DurableFile& file = folder.files[id];
    const std::string name = "f" + std::to_string(id) + "-0";
    file.names = {name};
    const UniqueFd fd = open_file(path + "/" + name, O_WRONLY | O_CREAT | O_EXCL);
    if (!fd) {
        return Outcome::kFailed;
    }
    file.name = name;
    if (write(file, id, path) == Outcome::kFailed || sync_file(file, path) == Outcome::kFailed) {
        return Outcome::kFailed;
    }
    const auto old = std::find_if(folder.files.begin(), folder.files.end(),
                                  [&](const auto& other) { return other.second.name == target; });
    if (old != folder.files.end()) {
        old->second.may_be_gone = true;
    }
    file.names.insert(target);
    if (::rename((path + "/" + name).c_str(), (path + "/" + target).c_str()) != 0) {
        return Outcome::kFailed;
    }
    file.name = target;
    if (old != folder.files.end()) {
        old->second.name.clear();
    }
    return Outcome::kDone;
}

Outcome DurableWriter::rename(DurableFile& file, const std::string& path) {
    const std::string name =
        file.name.substr(0, file.name.find('-') + 1) + std::to_string(number_++);
    file.names.insert(name);
    if (::rename((path + "/" + file.name).c_str(), (path + "/" + name).c_str()) != 0) {
        return Outcome::kFailed;
    }
    file.name = name;
    return Outcome::kDone;
}

Outcome DurableWriter::remove(DurableFile& file, const std::string& path) {
    file.may_be_gone = true;
    if (::unlink((path + "/" + file.name).c_str()) != 0) {
        return Outcome::kFailed;
    }
    file.name.clear();
    return Outcome::kDone;
}

Outcome DurableWriter::sync_file(DurableFile& file, const std::string& path) {
    const UniqueFd fd = open_file(path + "/" + file.name, O_RDWR);
    const bool data_only = random_.one_in(3);
    if (!fd || !is_synced(data_only ? ::fdatasync(fd.get()) : ::fsync(fd.get()))) {
        return Outcome::kFailed;
    }
    all_is_durable(file);
    if (!data_only) {
        name_is_durable(file);
    }
    return Outcome::kSynced;
}

Outcome DurableWriter::sync_folder(DurableFolder& folder, const std::string& path) {
    const UniqueFd fd = open_file(path, O_RDONLY | O_DIRECTORY);
    if (!fd || !is_synced(::fsync(fd.get()))) {
        return Outcome::kFailed;
    }
    for (auto file = folder.files.begin(); file != folder.files.end();) {
        name_is_durable(file->second);
        file = file->second.name.empty() ? folder.files.erase(file) : std::next(file);
    }
    return Outcome::kSynced;
}

std::vector<std::string> check_after_crash(DurableFolder& folder, const std::string& path) {
    std::vector<std::string> problems;
    std::map<uint64_t, std::string> found;
    std::set<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
    if (!directory) {
        return {path + " cannot be opened: " + error_text(errno)};
    }
    // NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is ours alone
    while (const dirent* entry = ::readdir(directory.get())) {
        if (entry->d_name[0] != '.') {
            names.insert(entry->d_name);
        }
    }
    for (const auto& name : names) {
        std::string problem;
        const auto stamps = read_stamps(path + "/" + name, kUnit, problem);
        if (!problem.empty()) {
            problems.push_back(name + " " + problem);
            continue;
        }
        const uint64_t id = id_of(name, stamps);
        const auto place = folder.files.find(id);
        if (place == folder.files.end()) {
            problems.push_back(fmt::format("{} is file {}, which should not exist", name, id));
            continue;
        }
        DurableFile& file = place->second;
        if (!found.emplace(id, name).second) {
            problems.push_back(fmt::format("{} and {} are both file {}", found[id], name, id));
        }
        if (!file.names.contains(name)) {
            problems.push_back(fmt::format("file {} has the name {}", id, name));
        }
        for (size_t i = 0; i < std::max(file.allowed.size(), stamps.size()); ++i) {
            const uint64_t version = i < stamps.size() ? stamps[i].version : kAbsent;
            const std::set<uint64_t> allowed =
                i < file.allowed.size() ? file.allowed[i] : std::set<uint64_t>{kAbsent};
            if (!allowed.contains(version) ||
                (i < stamps.size() && version != 0 && stamps[i].file != id)) {
                problems.push_back(fmt::format("{} ({} units) has in unit {} version {}, not {}",
                                               name, stamps.size(), i, show({version}),
                                               show(allowed)));
                break;
            }
        }
        file.current.clear();
        for (const auto& stamp : stamps) {
            file.current.push_back(stamp.version);
        }
        file.name = name;
        all_is_durable(file);
    }
    for (auto file = folder.files.begin(); file != folder.files.end();) {
        const bool there = found.contains(file->first);
        if (!there && !file->second.may_be_gone) {
            std::string last_names;
            for (const auto& name : file->second.names) {
                last_names += " " + name;
            }
            problems.push_back(
                fmt::format("file {} is gone; it should be one of{}", file->first, last_names));
        }
        if (there) {
            name_is_durable(file->second);
        }
        file = there ? std::next(file) : folder.files.erase(file);
    }
    for (const auto& name : folder.pinned) {
        if (!names.contains(name)) {
            problems.push_back(name + " is gone");
        }
    }
    return problems;
}

}  // namespace ivmm::test
