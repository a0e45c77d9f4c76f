#include "storage/tools/aufs_import.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "storage/layer/files.h"
#include "storage/layer/marks.h"

namespace ivmm::storage {

namespace {

constexpr std::string_view kPrefix = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh.opq";
constexpr std::string_view kPseudoLinks = ".wh..wh.plnk";
constexpr std::string_view kBase = ".wh..wh.aufs";
constexpr std::string_view kOrphans = ".wh..wh.orph";
constexpr size_t kRefusedShown = 20;

class Importer {
 public:
    Importer(UniqueFd root, Marks marks) : root_(std::move(root)), marks_(marks) {}

    Result<AufsImportReport> run(const std::string& name) {
        std::vector<std::string> todo = {"."};
        while (!todo.empty()) {
            const auto path = std::move(todo.back());
            todo.pop_back();
            if (const auto done = import_directory(path, todo); !done) {
                return fail("{}/{}: {}", name, path, error_text(done.error().code));
            }
        }
        if (::syncfs(root_.get()) != 0) {
            return fail_errno("{}: cannot sync", name);
        }
        return report_;
    }

 private:
    PosixResult<void> import_directory(const std::string& path, std::vector<std::string>& todo) {
        IVMM_ASSIGN(const auto directory, open_directory(root_.get(), path.c_str()));
        struct stat before {};
        if (::fstat(directory.get(), &before) != 0) {
            return last_posix_error();
        }
        ++report_.directories;
        // First a list: what is made here is not to be looked at.
        std::vector<std::string> marks;
        IVMM_TRY(for_each_entry(directory.get(),
                                [&](const char* name, unsigned char type) -> PosixResult<void> {
                                    if (std::string_view(name).starts_with(kPrefix)) {
                                        marks.emplace_back(name);
                                    } else if (type == DT_DIR) {
                                        todo.push_back(path + "/" + name);
                                    }
                                    return {};
                                }));
        if (marks.empty()) {
            return {};
        }
        for (const auto& mark : marks) {
            IVMM_TRY(import_mark(directory.get(), path, mark));
        }
        const std::array<timespec, 2> times = {before.st_atim, before.st_mtim};
        if (::futimens(directory.get(), times.data()) != 0) {
            return last_posix_error();
        }
        return {};
    }

    PosixResult<void> import_mark(int dir, const std::string& path, const std::string& mark) {
        struct stat attributes {};
        if (::fstatat(dir, mark.c_str(), &attributes, AT_SYMLINK_NOFOLLOW) != 0) {
            return last_posix_error();
        }
        // Only at the root of a branch are the latter aufs's.
        if (path == "." && (mark == kPseudoLinks || mark == kOrphans || mark == kBase)) {
            return drop_bookkeeping(dir, mark, attributes);
        }
        if (!S_ISREG(attributes.st_mode) || attributes.st_size != 0) {
            refuse(path, mark);
            return {};
        }
        if (mark == kOpaque) {
            IVMM_TRY(marks_.set_opaque({dir, ""}));
            ++report_.opaque;
            return remove_mark(dir, mark);
        }
        const auto name = mark.substr(kPrefix.size());
        if (name.empty() || name == "." || name == ".." || name.starts_with(kPrefix)) {
            refuse(path, mark);
            return {};
        }
        return import_whiteout(dir, mark, name);
    }

    /// The whiteout is there before aufs's goes: what is deleted never comes back.
    PosixResult<void> import_whiteout(int dir, const std::string& mark, const std::string& name) {
        if (::mknodat(dir, name.c_str(), S_IFCHR, makedev(0, 0)) != 0) {
            struct stat present {};
            if (errno != EEXIST) {
                return last_posix_error();
            }
            if (::fstatat(dir, name.c_str(), &present, AT_SYMLINK_NOFOLLOW) != 0) {
                return last_posix_error();
            }
            // It hides what is below anyway, except for a directory.
            if (S_ISDIR(present.st_mode)) {
                IVMM_TRY(marks_.set_opaque({dir, name.c_str()}));
            }
        }
        ++report_.whiteouts;
        return remove_mark(dir, mark);
    }

    PosixResult<void> drop_bookkeeping(int dir, const std::string& mark,
                                       const struct stat& attributes) {
        if (mark == kPseudoLinks && S_ISDIR(attributes.st_mode)) {
            IVMM_ASSIGN(const auto links, open_directory(dir, mark.c_str()));
            IVMM_TRY(for_each_entry(links.get(), [&](const char* /*name*/, unsigned char /*type*/) {
                ++report_.pseudo_links;
                return PosixResult<void>();
            }));
        }
        ++report_.bookkeeping;
        return remove_tree(dir, mark.c_str());
    }

    static PosixResult<void> remove_mark(int dir, const std::string& mark) {
        if (::unlinkat(dir, mark.c_str(), 0) != 0) {
            return last_posix_error();
        }
        return {};
    }

    void refuse(const std::string& path, const std::string& mark) {
        ++report_.refused;
        if (report_.refused_paths.size() < kRefusedShown) {
            report_.refused_paths.push_back(path + "/" + mark);
        }
    }

    UniqueFd root_;
    Marks marks_;
    AufsImportReport report_;
};

}  // namespace

Result<AufsImportReport> import_aufs(const std::string& directory) {
    UniqueFd root(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
        return fail_errno("cannot open {}", directory);
    }
    auto style = usable_mark_style(root.get());
    if (!style) {
        return annotate(std::move(style).error(), directory);
    }
    return Importer(std::move(root), Marks(*style)).run(directory);
}

}  // namespace ivmm::storage
