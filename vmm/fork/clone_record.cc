#include "vmm/fork/clone_record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/unique_fd.h"
#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm {
namespace {

using rpc::Json;

constexpr int kRecordVersion = 2;
constexpr std::string_view kRecordSuffix = ".clone";
constexpr std::string_view kFolderSuffix = ".disks";

/// Reads members of one object; remembers whether one was missing.
class Members {
 public:
    explicit Members(const Json& json) : json_(json), good_(json.is_object()) {}
    bool good() const { return good_; }

    std::string text(const char* name) {
        const auto* const member = find(name);
        good_ = good_ && member->is_string();
        return good_ ? member->get<std::string>() : std::string();
    }
    int number(const char* name) {
        const auto* const member = find(name);
        good_ = good_ && member->is_number_integer();
        return good_ ? member->get<int>() : 0;
    }
    bool flag(const char* name) {
        const auto* const member = find(name);
        good_ = good_ && member->is_boolean();
        return good_ && member->get<bool>();
    }
    uint64_t natural(const char* name) {
        const auto* const member = find(name);
        good_ = good_ && member->is_number_unsigned();
        return good_ ? member->get<uint64_t>() : 0;
    }
    Json object(const char* name) {
        const auto* const member = find(name);
        good_ = good_ && member->is_object();
        return good_ ? *member : Json::object();
    }
    const Json& list(const char* name) {
        const auto* const member = find(name);
        good_ = good_ && member->is_array();
        return good_ ? *member : empty_;
    }

 private:
    const Json* find(const char* name) {
        const auto found = good_ ? json_.find(name) : json_.end();
        good_ = good_ && found != json_.end();
        return good_ ? &*found : nullptr;
    }

    const Json& json_;
    const Json empty_ = Json::array();
    bool good_;
};

Result<void> write_file(const std::string& path, const std::string& text) {
    const std::string next = path + ".new";
    {
        const UniqueFd file(
            ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!file || ::write(file.get(), text.data(), text.size()) != std::ssize(text)) {
            return fail_errno("cannot write '{}'", next);
        }
    }
    if (std::rename(next.c_str(), path.c_str()) != 0) {
        return fail_errno("cannot rename '{}' to '{}'", next, path);
    }
    return {};
}

/// The part before the suffix, if that is a name that a clone can have.
std::string stem_of(const std::string& name, std::string_view suffix) {
    if (!name.ends_with(suffix)) {
        return {};
    }
    std::string stem = name.substr(0, name.size() - suffix.size());
    return is_guest_name(stem) ? stem : std::string();
}

Unexpected no_clone(const std::string& clone) {
    const auto names = clone_names();
    return names.empty()
               ? fail("there is no clone '{}', and no other one", clone)
               : fail("there is no clone '{}'; there are: {}", clone, fmt::join(names, ", "));
}

}  // namespace

Json to_json(const CloneRecord& record) {
    Json disks = Json::array();
    for (const auto& disk : record.disks) {
        disks.push_back({{"method", disk.method}, {"source", disk.source}, {"path", disk.path}});
    }
    Json views = Json::array();
    for (const auto& view : record.views) {
        views.push_back({{"store", view.store},
                         {"view", view.view},
                         {"mountpoint", view.mountpoint},
                         {"server_pid", view.server_pid},
                         {"fork_point", view.fork_point}});
    }
    return {{"version", kRecordVersion}, {"clone", record.clone},       {"primary", record.primary},
            {"created", record.created}, {"complete", record.complete}, {"disks", std::move(disks)},
            {"views", std::move(views)}, {"cause", record.cause}};
}

Result<CloneRecord> clone_record_from(const Json& json) {
    Members members(json);
    const int version = members.number("version");
    if (members.good() && version != kRecordVersion) {
        return fail("it has version {}, this ivmm knows version {}", version, kRecordVersion);
    }
    CloneRecord record;
    record.clone = members.text("clone");
    record.primary = members.text("primary");
    record.created = members.text("created");
    record.complete = members.flag("complete");
    bool good = true;
    for (const auto& item : members.list("disks")) {
        Members disk(item);
        record.disks.push_back({disk.text("method"), disk.text("source"), disk.text("path")});
        good = good && disk.good();
    }
    for (const auto& item : members.list("views")) {
        Members view(item);
        record.views.push_back({view.text("store"), view.text("view"), view.text("mountpoint"),
                                view.number("server_pid"), view.natural("fork_point")});
        good = good && view.good();
    }
    record.cause = members.object("cause");
    if (!good || !members.good()) {
        return fail("it is not the record of a clone");
    }
    return record;
}

std::string clone_record_path(const std::string& clone) {
    return fmt::format("{}/{}{}", RuntimeDir::find().path(), clone, kRecordSuffix);
}

std::string clone_folder(const std::string& clone) {
    return fmt::format("{}/{}{}", RuntimeDir::find().path(), clone, kFolderSuffix);
}

std::string clone_testimony_path(const std::string& clone) {
    return fmt::format("{}/{}.testimony", RuntimeDir::find().path(), clone);
}

Result<void> write_clone_record(const CloneRecord& record) {
    const std::string text = to_json(record).dump(2, ' ', false, Json::error_handler_t::replace);
    const auto read_back = clone_record_from(Json::parse(text, nullptr, false));
    if (!read_back || !(*read_back == record)) {
        return fail_as(ErrorKind::kUsage,
                       "a path of a disk of clone '{}' is not UTF-8; rename the file or the folder",
                       record.clone);
    }
    return write_file(clone_record_path(record.clone), text + "\n");
}

Result<CloneRecord> read_clone_record(const std::string& clone) {
    IVMM_TRY(check_guest_name(clone));
    const std::string path = clone_record_path(clone);
    const std::string folder = clone_folder(clone);
    std::ifstream file(path);
    if (!file) {
        if (::access(path.c_str(), F_OK) == 0) {
            return fail_errno("cannot read '{}'", path);
        }
        if (::access(folder.c_str(), F_OK) != 0) {
            return no_clone(clone);
        }
        CloneRecord record;
        record.clone = clone;
        return record;
    }
    std::ostringstream text;
    text << file.rdbuf();
    auto record = clone_record_from(Json::parse(text.str(), nullptr, false));
    if (record && record->clone != clone) {
        record = fail("it is of clone '{}'", record->clone);
    }
    if (!record) {
        return fail(
            "the record '{}' cannot be used: {}; what is mounted below '{}' and the views "
            "that `ivmm overlay ls` shows are the clone's: unmount and remove them, then "
            "these two",
            path, record.error().message, folder);
    }
    return record;
}

std::string free_clone_name(const std::string& primary) {
    const std::string folder = RuntimeDir::find().path();
    for (uint32_t i = 1;; ++i) {
        std::string name = fmt::format("{}-clone-{}", primary, i);
        const std::string base = fmt::format("{}/{}", folder, name);
        if (::access((base + ".clone").c_str(), F_OK) != 0 &&
            ::access((base + ".lock").c_str(), F_OK) != 0) {
            return name;
        }
    }
}

std::vector<std::string> clone_names() {
    std::set<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(RuntimeDir::find().path(), error), end;
         !error && entry != end; entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        names.insert(stem_of(name, kRecordSuffix));
        names.insert(stem_of(name, kFolderSuffix));
    }
    names.erase("");
    return {names.begin(), names.end()};
}

}  // namespace ivmm
