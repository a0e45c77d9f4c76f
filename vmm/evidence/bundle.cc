#include "vmm/evidence/bundle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <future>

#include "base/unique_fd.h"
#include "vmm/evidence/sha256.h"

namespace ivmm::evidence {
namespace {

/// The file's content and its length are on the medium.
Result<void> sync(const std::string& path, int flags = 0) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags));
    if (!file || ::fsync(file.get()) != 0) {
        return fail_errno("cannot bring '{}' to the disk", path);
    }
    return {};
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
    while (!text.empty()) {
        const ssize_t n = ::write(fd, text.data(), text.size());
        if (n < 0 && errno != EINTR) {
            return fail_errno("cannot write '{}'", path);
        }
        text.remove_prefix(n > 0 ? static_cast<size_t>(n) : 0);
    }
    return {};
}

Result<void> write_file(const std::string& path, std::string_view text) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) {
        return fail_errno("cannot create '{}'", path);
    }
    return write_all(file.get(), text, path);
}

/// Brings it to the disk as well.
Result<rpc::Json> describe_file(const std::string& folder, const std::string& name,
                                const std::string& what) {
    const std::string path = folder + "/" + name;
    IVMM_TRY(sync(path));
    IVMM_ASSIGN(const auto digest, sha256_of(path));
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return fail_errno("cannot look at '{}'", path);
    }
    return rpc::Json{{"name", name},
                     {"what", what},
                     {"bytes", static_cast<uint64_t>(status.st_size)},
                     {"sha256", digest}};
}

}  // namespace

Result<Bundle> Bundle::begin(const std::string& folder) {
    const std::string partial = folder + ".partial";
    struct stat status {};
    if (::lstat(folder.c_str(), &status) == 0) {
        return fail_as(ErrorKind::kUsage, "'{}' is there already", folder);
    }
    if (::mkdir(partial.c_str(), 0700) != 0) {
        if (errno == EEXIST) {
            return fail(
                "'{}' is there: an export that runs, or the rest of one that was killed; remove it",
                partial);
        }
        return fail_errno("cannot create the folder '{}'", partial);
    }
    Bundle bundle(folder, partial);
    if (::mkdir(bundle.scratch().c_str(), 0700) != 0) {
        return fail_errno("cannot create the folder '{}'", bundle.scratch());
    }
    return bundle;
}

Bundle::~Bundle() {
    if (!partial_.empty()) {
        std::error_code ignored;
        std::filesystem::remove_all(partial_, ignored);
    }
}

Result<std::string> Bundle::add(const std::string& name, const std::string& what) {
    std::string path = partial_ + "/" + name;
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
    if (error) {
        return fail("cannot create the folder of '{}': {}", path, error.message());
    }
    const std::scoped_lock lock(*mutex_);
    files_[name] = what;
    return path;
}

void Bundle::add_missing(const std::string& what) {
    const std::scoped_lock lock(*mutex_);
    missing_.push_back(what);
}

Result<void> Bundle::add_text(const std::string& name, const std::string& what,
                              const std::string& text) {
    IVMM_ASSIGN(const auto path, add(name, what));
    return write_file(path, text);
}

Result<rpc::Json> Bundle::describe_files() const {
    // The large ones take their time: several at once.
    std::vector<std::future<Result<rpc::Json>>> described;
    for (const auto& [name, what] : files_) {
        described.push_back(std::async(std::launch::async, describe_file, partial_, name, what));
    }
    rpc::Json files = rpc::Json::array();
    for (auto& one : described) {
        IVMM_ASSIGN(auto file, one.get());
        files.push_back(std::move(file));
    }
    return files;
}

Result<void> Bundle::finish(rpc::Json about) {
    auto removed = std::async(std::launch::async, [this] {
        std::error_code error;
        std::filesystem::remove_all(scratch(), error);
        return error;
    });
    IVMM_ASSIGN(const auto files, describe_files());
    std::error_code error = removed.get();
    if (error) {
        return fail("cannot remove '{}': {}", scratch(), error.message());
    }
    about["files"] = files;
    about["missing"] = missing_;
    const std::string manifest = partial_ + "/manifest.json";
    IVMM_TRY(write_file(manifest,
                        about.dump(2, ' ', false, rpc::Json::error_handler_t::replace) + "\n"));
    IVMM_ASSIGN(const auto digest, sha256_of(manifest));
    std::string sums = fmt::format("{}  manifest.json\n", digest);
    for (const auto& file : files) {
        sums += fmt::format("{}  {}\n", file.value("sha256", ""), file.value("name", ""));
    }
    const std::string sums_path = partial_ + "/SHA256SUMS";
    IVMM_TRY(write_file(sums_path, sums));
    for (const auto& path : {manifest, sums_path}) {
        IVMM_TRY(sync(path));
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(partial_, error)) {
        if (entry.is_directory(error)) {
            IVMM_TRY(sync(entry.path().string(), O_DIRECTORY));
        }
    }
    IVMM_TRY(sync(partial_, O_DIRECTORY));
    // Two of them never become one, whoever makes the other.
    if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, folder_.c_str(), RENAME_NOREPLACE) != 0) {
        return fail_errno("cannot rename '{}' to '{}'", partial_, folder_);
    }
    partial_.clear();
    return sync(std::filesystem::path(folder_).parent_path().string(), O_DIRECTORY);
}

}  // namespace ivmm::evidence
