#include "storage/tools/export.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <vector>

#include "base/unique_fd.h"
#include "storage/block/file_io.h"
#include "storage/layer/files.h"
#include "storage/tools/qemu_img.h"

namespace ivmm::storage {
namespace {

constexpr uint64_t kCopySize = uint64_t{1} << 20;

Unexpected about(const std::string& path, Errno error) {
    return {{ErrorKind::kFailed, error.code, path + ": " + error_text(error.code)}};
}

Result<std::string> real_path(const std::string& path) {
    std::array<char, PATH_MAX> buffer{};
    if (::realpath(path.c_str(), buffer.data()) == nullptr) {
        return fail_errno("{}", path);
    }
    return std::string(buffer.data());
}

/// A new file that gets its name when it is complete, and is deleted if it never is.
class NewFile {
 public:
    /// `path`: where it is to be in the end.
    static Result<NewFile> create(const std::string& path) {
        const size_t slash = path.rfind('/');
        NewFile file;
        IVMM_ASSIGN(file.folder_, real_path(slash == path.npos ? "."
                                            : slash == 0       ? "/"
                                                               : path.substr(0, slash)));
        file.name_ = path.substr(slash == path.npos ? 0 : slash + 1);
        if (file.name_.empty() || file.name_ == "." || file.name_ == "..") {
            return fail_as(ErrorKind::kUsage, "'{}' is not the name of a file", path);
        }
        struct stat present {};
        if (::lstat(file.final_path().c_str(), &present) == 0) {
            return fail("{} is there already; nothing is overwritten", path);
        }
        IVMM_TRY(file.open());
        return file;
    }
    NewFile(NewFile&&) = default;
    NewFile& operator=(NewFile&&) = delete;
    ~NewFile() { remove(); }

    int fd() const { return fd_.get(); }
    const std::string& path() const { return temporary_; }
    std::string final_path() const { return folder_ + "/" + name_; }

    /// Takes the name away: it lives for as long as it is open.
    void remove() {
        if (fd_ && !temporary_.empty()) {
            ::unlink(temporary_.c_str());
        }
        temporary_.clear();
    }

    Result<void> complete() {
        // Another process may have written it through its name.
        const UniqueFd file(::open(temporary_.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
        if (!file || ::fsync(file.get()) != 0) {
            return fail_errno("cannot sync {}", temporary_);
        }
        if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_path().c_str(),
                        RENAME_NOREPLACE) != 0) {
            return fail_errno("cannot give {} its name", final_path());
        }
        temporary_.clear();
        const auto folder = open_directory(AT_FDCWD, folder_.c_str());
        if (!folder) {
            return about(folder_, folder.error());
        }
        if (const auto synced = sync_fd(folder->get()); !synced) {
            return about(folder_, synced.error());
        }
        return {};
    }

 private:
    NewFile() = default;

    Result<void> open() {
        for (int attempt = 0;; ++attempt) {
            temporary_ = fmt::format("{}/.{}.part-{}-{}", folder_, name_, ::getpid(), attempt);
            fd_.reset(::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                             0666));
            if (fd_) {
                return {};
            }
            if (errno != EEXIST) {
                return fail_errno("cannot make {}", temporary_);
            }
        }
    }

    std::string folder_;
    std::string name_;
    std::string temporary_;
    UniqueFd fd_;
};

/// Writes the data of a file to an empty one.
Result<void> copy(const BlockFile& from, const NewFile& to,
                  const std::function<bool(double)>& progress) {
    const uint64_t size = from.size();
    if (::ftruncate(to.fd(), static_cast<off_t>(size)) != 0) {
        return fail_errno("cannot make {} {} bytes long", to.path(), size);
    }
    std::vector<std::byte> buffer(kCopySize);
    for (uint64_t offset = 0; offset < size;) {
        const auto data = from.seek_data(offset);
        if (!data && data.error().code == ENXIO) {
            break;
        }
        const auto end = data ? from.seek_hole(*data) : data;
        if (!end) {
            return about("cannot find the data", end.error());
        }
        for (offset = *data; offset < *end;) {
            if (!progress(static_cast<double>(offset) / static_cast<double>(size))) {
                return fail("interrupted");
            }
            const ByteSpan part = ByteSpan(buffer).first(std::min(kCopySize, *end - offset));
            const auto n = from.read(offset, part);
            if (!n || *n == 0) {
                return about(fmt::format("cannot read at byte {}", offset),
                             n ? Errno{EIO} : n.error());
            }
            if (const auto written = write_at(to.fd(), offset, part.first(*n)); !written) {
                return about("cannot write " + to.final_path(), written.error());
            }
            offset += *n;
        }
    }
    return {};
}

Result<std::shared_ptr<const BlockFile>> open_path(const StoredTree& tree,
                                                   const std::string& path) {
    const auto found = resolve(tree.stack, path);
    if (!found) {
        return about(fmt::format("{}: {}", tree.name, path), found.error());
    }
    if (!*found) {
        return fail("{} has no {}", tree.name, path);
    }
    if (!S_ISREG((*found)->attributes.st_mode)) {
        return fail(
            "{}: {} is not a regular file{}", tree.name, path,
            S_ISLNK((*found)->attributes.st_mode) ? " but a link; name what it leads to" : "");
    }
    return open_file(tree.stack, (*found)->places.front());
}

/// Turns a raw image into a qcow2 one.
Result<void> convert(const NewFile& raw, const std::string& base, const NewFile& image,
                     const std::function<bool(double)>& progress) {
    const std::string source = fmt::format("/proc/self/fd/{}", raw.fd());
    if (base.empty()) {
        return run_qemu_img({"convert", "-p", "-f", "raw", "-O", "qcow2", source, image.path()},
                            raw.fd(), progress);
    }
    // An image with nothing of its own, which then gets what makes the difference.
    IVMM_TRY(run_qemu_img({"create", "-q", "-f", "qcow2", "-b", source, "-F", "raw", image.path()},
                          raw.fd(), [&](double) { return progress(0); }));
    return run_qemu_img({"rebase", "-p", "-f", "qcow2", "-b", base, "-F", "raw", image.path()},
                        raw.fd(), progress);
}

}  // namespace

Result<void> export_file(const StoredTree& tree, const std::string& path, const std::string& out,
                         const ExportOptions& options) {
    const bool raw = options.format == ImageFormat::kRaw;
    if (raw && !options.base.empty()) {
        return fail_as(ErrorKind::kUsage, "only a qcow2 image can refer to a base");
    }
    std::string base;
    if (!options.base.empty()) {
        IVMM_ASSIGN(base, real_path(options.base));
    }
    IVMM_ASSIGN(const auto file, open_path(tree, path));
    IVMM_ASSIGN(auto image, NewFile::create(out));
    if (raw) {
        IVMM_TRY(copy(*file, image, options.progress));
        return image.complete();
    }
    IVMM_TRY(run_qemu_img({"--version"}, -1, [](double) { return true; }));
    IVMM_ASSIGN(auto source, NewFile::create(out));
    source.remove();
    IVMM_TRY(copy(*file, source, [&](double part) { return options.progress(part / 2); }));
    IVMM_TRY(convert(source, base, image,
                     [&](double part) { return options.progress((1 + part) / 2); }));
    return image.complete();
}

}  // namespace ivmm::storage
