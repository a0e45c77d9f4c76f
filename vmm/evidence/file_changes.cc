#include "vmm/evidence/file_changes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <unordered_map>

#include "base/utc_time.h"
#include "storage/block/block_file.h"
#include "vmm/evidence/confined.h"
#include "vmm/evidence/ext_tree.h"
#include "vmm/evidence/sha256.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;
using storage::BlockFile;
using storage::ByteRange;

using Files = std::map<std::string, ExtFile>;

Result<Files> all_files(const ExtTree& tree) {
    Files files;
    IVMM_TRY(tree.walk([&](const std::string& path, const ExtFile& file) -> Result<void> {
        files.emplace(path, file);
        return {};
    }));
    return files;
}

/// Both states, and what is told of them.
class Comparison {
 public:
    Comparison(ExtTree before, ExtTree after, std::vector<ByteRange> ranges, const TellLine& tell)
        : before_(std::move(before)),
          after_(std::move(after)),
          ranges_(std::move(ranges)),
          tell_(tell) {}

    Result<void> run() {
        IVMM_ASSIGN(old_, all_files(before_));
        IVMM_ASSIGN(new_, all_files(after_));
        for (auto file = old_.begin(); file != old_.end(); ++file) {
            if (!new_.contains(file->first)) {
                gone_.emplace(file->second.inode, file);
            }
        }
        auto left = old_.begin();
        auto right = new_.begin();
        while (left != old_.end() || right != new_.end()) {
            const bool only_old =
                right == new_.end() || (left != old_.end() && left->first < right->first);
            const bool only_new =
                left == old_.end() || (right != new_.end() && right->first < left->first);
            if (only_old) {
                IVMM_TRY(removed(left->first, left->second));
            } else if (only_new) {
                IVMM_TRY(added(right->first, right->second));
            } else {
                IVMM_TRY(compare(left->first, left->second, right->second));
            }
            left = only_new ? left : std::next(left);
            right = only_old ? right : std::next(right);
        }
        return {};
    }

 private:
    Result<void> tell(const Json& change) {
        const std::string line = change.dump(-1, ' ', true, Json::error_handler_t::replace);
        return tell_(line) ? Result<void>() : fail("nobody listens");
    }

    static Json describe(const char* kind, const std::string& path, const ExtFile& file) {
        Json change{{"kind", kind},
                    {"path", path},
                    {"type", storage::type_name(file.mode)},
                    {"mode", fmt::format("{:04o}", file.mode & 07777)},
                    {"uid", file.uid},
                    {"gid", file.gid},
                    {"bytes", file.bytes},
                    {"modified", utc_time(file.modified)},
                    {"changed", utc_time(file.changed)}};
        if (file.created != 0) {
            change["created"] = utc_time(file.created);
        }
        return change;
    }

    static void add_content(Json& change, const char* name, ExtTree& tree, const ExtFile& file) {
        if (S_ISREG(file.mode)) {
            if (auto digest = tree.sha256(file)) {
                change[name] = *std::move(digest);
            }
        } else if (S_ISLNK(file.mode)) {
            if (auto target = tree.link_target(file)) {
                change["target"] = *std::move(target);
            }
        }
    }

    Result<void> removed(const std::string& path, const ExtFile& file) {
        Json change = describe("removed", path, file);
        add_content(change, "sha256_before", before_, file);
        const auto folder = new_.find(path.substr(0, path.rfind('/')));
        if (folder != new_.end()) {
            change["folder_modified"] = utc_time(folder->second.modified);
        }
        return tell(change);
    }

    Result<void> added(const std::string& path, const ExtFile& file) {
        Json change = describe("added", path, file);
        add_content(change, "sha256", after_, file);
        const auto old = gone_.find(file.inode);
        if (old != gone_.end() && old->second->second.is_same_inode(file)) {
            change["renamed_from"] = old->second->first;
        }
        return tell(change);
    }

    Result<void> compare(const std::string& path, const ExtFile& old, const ExtFile& now) {
        if ((old.mode & S_IFMT) != (now.mode & S_IFMT)) {
            IVMM_TRY(removed(path, old));
            return added(path, now);
        }
        const bool is_regular = S_ISREG(now.mode);
        if (old == now && !(is_regular && after_.is_in(now, ranges_))) {
            return {};
        }
        Json change = describe("changed", path, now);
        if (is_regular) {
            add_content(change, "sha256", after_, now);
            add_content(change, "sha256_before", before_, old);
            change["bytes_before"] = old.bytes;
        } else {
            add_content(change, "sha256", after_, now);
        }
        const bool content =
            is_regular && change.value("sha256", "") != change.value("sha256_before", "");
        if (S_ISDIR(now.mode) && old.mode == now.mode && old.uid == now.uid && old.gid == now.gid &&
            old.is_same_inode(now)) {
            return {};  // its files tell what has happened in it
        }
        if (!content && old == now) {
            return {};
        }
        change["content"] = content;
        if (old.mode != now.mode) {
            change["mode_before"] = fmt::format("{:04o}", old.mode & 07777);
        }
        return tell(change);
    }

    ExtTree before_;
    ExtTree after_;
    const std::vector<ByteRange> ranges_;
    const TellLine& tell_;
    Files old_;
    Files new_;
    std::unordered_map<uint32_t, Files::iterator> gone_;  // of old_, whose names are gone, by inode
};

Result<std::vector<ByteRange>> ranges_between(int before, int after) {
    std::vector<std::shared_ptr<BlockFile>> files;
    for (const int descriptor : {before, after}) {
        IVMM_ASSIGN(auto file, BlockFile::bottom(UniqueFd(::dup(descriptor))));
        files.push_back(std::move(file));
    }
    auto ranges = storage::changed_ranges(*files[0], *files[1], false);
    if (!ranges) {
        return fail("the images cannot be compared: {}", error_text(ranges.error().code));
    }
    return *std::move(ranges);
}

}  // namespace

Result<void> list_file_changes(int before, int after,
                               const std::function<Result<void>(Json)>& on_change) {
    IVMM_ASSIGN(auto ranges, ranges_between(before, after));
    // What OpenSSL reads when it is used first cannot be read in the child.
    Sha256().update({});
    const auto work = [&](const TellLine& tell) -> Result<void> {
        IVMM_ASSIGN(auto old, ExtTree::open(before));
        IVMM_ASSIGN(auto now, ExtTree::open(after));
        return Comparison(std::move(old), std::move(now), std::move(ranges), tell).run();
    };
    return run_confined(
        {.descriptors = {before, after}}, work, [&](std::string_view line) -> Result<void> {
            Json change = Json::parse(line, nullptr, false);
            return change.is_object() ? on_change(std::move(change)) : fail("a line of it is none");
        });
}

}  // namespace ivmm::evidence
