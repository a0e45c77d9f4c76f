#include "vmm/snapshot/snapshot_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "vmm/snapshot/snapshot.h"

namespace ivmm {
namespace {

Unexpected exists(const std::string& path) {
    return fail("'{}' exists already; a snapshot goes into a new folder", path);
}

Result<void> sync_folder(const std::string& path) {
    const UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || ::fsync(folder.get()) != 0) {
        return fail_errno("cannot write the folder '{}' to the disk", path);
    }
    return {};
}

}  // namespace

Result<SnapshotFolder> SnapshotFolder::create(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code error;
    const fs::path wanted(path);
    const fs::path parent = fs::canonical(wanted.parent_path(), error);
    if (error || !wanted.has_filename()) {
        return fail("no snapshot in '{}': the folder '{}': {}", path, wanted.parent_path().string(),
                    error.message());
    }
    const std::string whole = (parent / wanted.filename()).string();
    struct stat there {};
    if (::lstat(whole.c_str(), &there) == 0) {
        return exists(whole);
    }
    std::string temporary = (parent / ("." + wanted.filename().string() + ".ivmm-XXXXXX")).string();
    if (::mkdtemp(temporary.data()) == nullptr) {
        return fail_errno("cannot create a folder in '{}'", parent.string());
    }
    return SnapshotFolder(whole, temporary);
}

SnapshotFolder::SnapshotFolder(SnapshotFolder&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, {})) {}

SnapshotFolder::~SnapshotFolder() {
    if (!temporary_.empty()) {
        for (const char* const name : {kMachineFile, kMemoryFile}) {
            ::unlink((temporary_ + "/" + name).c_str());
        }
        ::rmdir(temporary_.c_str());
    }
}

Result<UniqueFd> SnapshotFolder::create_file(const char* name) const {
    const std::string file = temporary_ + "/" + name;
    UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) {
        return fail_errno("cannot create '{}/{}'", path_, name);
    }
    return fd;
}

Result<UniqueFd> SnapshotFolder::create_memory() const {
    return create_file(kMemoryFile);
}

Result<void> SnapshotFolder::write_machine(ConstByteSpan content) const {
    IVMM_ASSIGN(const auto file, create_file(kMachineFile));
    while (!content.empty()) {
        const ssize_t n = ::write(file.get(), content.data(), content.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fail_errno("cannot write '{}/{}'", path_, kMachineFile);
        }
        content = content.subspan(static_cast<size_t>(n));
    }
    if (::fsync(file.get()) != 0) {
        return fail_errno("cannot write '{}/{}' to the disk", path_, kMachineFile);
    }
    return {};
}

Result<void> SnapshotFolder::publish() {
    IVMM_TRY(sync_folder(temporary_));
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
        if (errno == EEXIST) {
            return exists(path_);
        }
        return fail_errno("cannot give the folder '{}' its name", path_);
    }
    temporary_.clear();
    return sync_folder(std::filesystem::path(path_).parent_path().string());
}

}  // namespace ivmm
