#include "tests/storage/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "tests/storage/random.h"

namespace ivmm::test {
namespace {

constexpr size_t kBuffer = 1U << 16U;

/// Fails the test, because a fixture could not be made.
void must(bool done, const std::string& what) {
    if (!done) {
        ADD_FAILURE() << "fixture: " << printable(what) << ": " << error_text(errno);
    }
}

void age(const std::string& path, Random& random) {
    std::array<timespec, 2> times{};
    for (auto& time : times) {
        time.tv_sec = static_cast<time_t>(1'000'000'000 + random.below(kOld - 1'000'000'000));
        time.tv_nsec = static_cast<long>(random.below(1'000'000'000));
    }
    must(::utimensat(AT_FDCWD, path.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) == 0, path);
}

/// A regular file with random data; of the sparse ones most are holes.
void make_file(const std::string& path, uint64_t size, bool sparse, Random& random) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    must(fd.get() >= 0 && ::ftruncate(fd.get(), static_cast<off_t>(size)) == 0, path);
    std::string data(4096, '\0');
    for (uint64_t offset = 0; offset < size; offset += data.size()) {
        if (sparse && !random.one_in(8)) {
            continue;
        }
        const auto letter = static_cast<char>('!' + random.below(90));
        std::fill(data.begin(), data.end(), letter);
        const size_t length = std::min<uint64_t>(data.size(), size - offset);
        must(::pwrite(fd.get(), data.data(), length, static_cast<off_t>(offset)) ==
                 static_cast<ssize_t>(length),
             path);
    }
}

void set_attributes(const std::string& path, bool is_directory, Random& random) {
    constexpr std::array<mode_t, 6> kFileModes{0644, 0600, 0666, 0755, 0444, 04755};
    constexpr std::array<mode_t, 5> kDirectoryModes{0755, 0777, 0700, 01777, 02775};
    const uid_t owner = random.one_in(3) ? 1000 : 0;
    must(::lchown(path.c_str(), owner, owner) == 0, path);
    const mode_t mode = is_directory ? kDirectoryModes.at(random.below(kDirectoryModes.size()))
                                     : kFileModes.at(random.below(kFileModes.size()));
    must(::chmod(path.c_str(), mode) == 0, path);
    if (random.one_in(3)) {
        const std::string value(random.below(100), 'v');
        must(::lsetxattr(path.c_str(), "user.lower", value.data(), value.size(), 0) == 0, path);
    }
}

class BranchMaker {
 public:
    BranchMaker(Random& random, bool lowest) : random_(random), lowest_(lowest) {}

    void fill(const std::string& directory, int depth) {
        static const std::vector<std::string> kNames = {"a",
                                                        "b",
                                                        "c",
                                                        "d",
                                                        "e",
                                                        "f",
                                                        "g",
                                                        "h",
                                                        "i",
                                                        "new\nline",
                                                        "ünï",
                                                        " s p",
                                                        "-dash",
                                                        ".hidden",
                                                        ".wh.x",
                                                        "b\\s,:",
                                                        std::string(255, 'L'),
                                                        "dir1",
                                                        "dir2",
                                                        "dir3",
                                                        "\xff\xfe\x01"};
        for (const auto& name : kNames) {
            if (!random_.one_in(3)) {
                continue;
            }
            const std::string path = directory + "/" + name;
            const bool likely_directory = name.starts_with("dir") || name.size() == 1;
            if (depth < 4 && random_.one_in(likely_directory ? 2 : 8) && path.size() < 2000) {
                must(::mkdir(path.c_str(), 0755) == 0, path);
                fill(path, depth + 1);
                set_attributes(path, true, random_);
                if (!lowest_ && random_.one_in(6)) {
                    must(::lsetxattr(path.c_str(), "trusted.overlay.opaque", "y", 1, 0) == 0, path);
                }
                age(path, random_);
                continue;
            }
            make_leaf(path);
        }
    }

 private:
    void make_leaf(const std::string& path) {
        const char* const name = path.c_str();
        switch (random_.below(10)) {
            case 0:
                must(::symlink("a", name) == 0, path);
                break;
            case 1:
                must(::symlink("/nonexistent/target", name) == 0, path);
                break;
            case 2:
                must(::symlink("dir1/b", name) == 0, path);
                break;
            case 3:
                must(::mkfifo(name, 0644) == 0, path);
                break;
            default:
                make_file(path, random_.one_in(2) ? random_.below(300) : random_.below(70'000),
                          random_.one_in(5), random_);
                set_attributes(path, false, random_);
        }
        age(path, random_);
    }

    Random& random_;
    bool lowest_;
};

/// What every run is to meet, whatever the seed.
void make_specials(const std::string& branch, size_t index, Random& random) {
    const auto in = [&](const std::string& name) { return branch + "/" + name; };
    const std::string number = std::to_string(index);
    make_file(in("big" + number), 200'000 + random.below(1'000'000), false, random);
    make_file(in("big-sparse" + number), 3'000'000 + random.below(1'000'000), true, random);
    make_file(in("exactly-64k-" + number), 65'536, false, random);
    make_file(in("just-over-64k-" + number), 65'537, false, random);
    make_file(in(kHardLinkPrefix + number), 5000, false, random);
    must(::link(in(kHardLinkPrefix + number).c_str(),
                in(kHardLinkPrefix + number + "_b").c_str()) == 0,
         "link");
    must(::mkfifo(in("fifo" + number).c_str(), 0640) == 0, "fifo");
    must(::mknod(in("dev" + number).c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0, "char device");
    must(::mknod(in("devb" + number).c_str(), S_IFBLK | 0600, makedev(7, 99)) == 0, "block device");
    must(::mknod(in("sock" + number).c_str(), S_IFSOCK | 0600, 0) == 0, "socket");
    // A directory here, a file there, and one that is merged of all.
    const std::string both = in("file-or-dir");
    if (index % 2 == 0) {
        must(::mkdir(both.c_str(), 0755) == 0, both);
        make_file(both + "/inside" + number, 100, false, random);
    } else {
        make_file(both, 100, false, random);
    }
    std::string deep = in("deep");
    must(::mkdir(deep.c_str(), 0755) == 0, deep);
    for (int level = 0; level < 8; ++level) {
        make_file(deep + "/file" + number, 100 + random.below(1000), false, random);
        make_file(deep + "/same", 10 + index, false, random);
        deep += "/deeper";
        must(::mkdir(deep.c_str(), 0755) == 0, deep);
    }
    make_file(deep + "/big", 300'000, false, random);
    const std::string many = in("many");
    must(::mkdir(many.c_str(), 0777) == 0, many);
    for (int i = 0; i < 40; ++i) {
        make_file(many + "/entry" + std::to_string(i * 2 + static_cast<int>(index)), 5, false,
                  random);
    }
}

/// Whiteouts in the directories that are merged with those below, for names that are there and for
/// others. (Elsewhere overlayfs would list them: it makes none there.)
void add_whiteouts(const std::string& upper, const std::string& lower, Random& random) {
    char opaque = 0;
    struct stat status {};
    if (::lstat(lower.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) ||
        ::lgetxattr(upper.c_str(), "trusted.overlay.opaque", &opaque, 1) == 1) {
        return;
    }
    std::array<timespec, 2> times{};
    must(::lstat(upper.c_str(), &status) == 0, upper);
    times = {status.st_atim, status.st_mtim};
    std::vector<std::string> names{"never-there"};
    for (const auto& entry : std::filesystem::directory_iterator(lower)) {
        names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    for (const auto& name : names) {
        const std::string path = upper + "/" + name;
        if (::lstat(path.c_str(), &status) != 0) {
            // Not the special ones of make_specials(): they would all be gone.
            if (!random.one_in(6) || std::isdigit(static_cast<unsigned char>(name.back())) != 0) {
                continue;
            }
            must(::mknod(path.c_str(), S_IFCHR, makedev(0, 0)) == 0, path);
        } else if (S_ISDIR(status.st_mode)) {
            add_whiteouts(path, lower + "/" + name, random);
        }
    }
    must(::utimensat(AT_FDCWD, upper.c_str(), times.data(), 0) == 0, upper);
}

class TreeReader {
 public:
    TreeReader(std::string root, std::vector<std::string>& problems)
        : root_(std::move(root)), problems_(problems) {}

    Tree read() {
        add("", DT_DIR);
        return std::move(tree_);
    }

 private:
    void problem(const std::string& path, const std::string& what) {
        problems_.push_back(printable(path) + ": " + what);
    }
    void failed(const std::string& path, const std::string& call) {
        problem(path, call + ": " + error_text(errno));
    }

    void add(const std::string& path, unsigned char type) {
        const std::string full = root_ + path;
        struct stat status {};
        if (::lstat(full.c_str(), &status) != 0) {
            failed(path, "lstat");
            return;
        }
        if (type != IFTODT(status.st_mode)) {
            problem(path, fmt::format("d_type {} but mode {:o}", type, status.st_mode));
        }
        Entry entry;
        entry.mode = status.st_mode;
        entry.uid = status.st_uid;
        entry.gid = status.st_gid;
        entry.modified = status.st_mtim;
        if (!S_ISDIR(status.st_mode)) {
            entry.size = static_cast<uint64_t>(status.st_size);
            entry.links = status.st_nlink;
        }
        if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
            entry.device = status.st_rdev;
        } else if (S_ISLNK(status.st_mode)) {
            read_target(path, full, entry);
        } else if (S_ISREG(status.st_mode)) {
            read_content(path, full, entry);
        }
        read_xattrs(path, full, entry);
        tree_[path] = std::move(entry);
        if (S_ISDIR(status.st_mode)) {
            add_children(path, full);
        }
    }

    void read_target(const std::string& path, const std::string& full, Entry& entry) {
        entry.target.resize(PATH_MAX);
        const ssize_t size = ::readlink(full.c_str(), entry.target.data(), entry.target.size());
        entry.target.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
        if (size < 0) {
            failed(path, "readlink");
        }
    }

    void read_content(const std::string& path, const std::string& full, Entry& entry) {
        const UniqueFd fd(::open(full.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
        if (!fd) {
            failed(path, "open");
            return;
        }
        const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(),
                                                                            XXH3_freeState);
        XXH3_64bits_reset(hash.get());
        uint64_t total = 0;
        uint64_t hole_end = 0;  // up to here all must be zeroes
        std::vector<char> buffer(kBuffer);
        while (true) {
            const ssize_t size =
                ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(total));
            if (size < 0) {
                failed(path, fmt::format("read at {}", total));
            }
            if (size <= 0) {
                break;
            }
            XXH3_64bits_update(hash.get(), buffer.data(), static_cast<size_t>(size));
            if (hole_end <= total) {
                const off_t data = ::lseek(fd.get(), static_cast<off_t>(total), SEEK_DATA);
                if (data < 0 && errno != ENXIO) {
                    failed(path, "SEEK_DATA");
                }
                hole_end = data < 0 ? entry.size : static_cast<uint64_t>(data);
            }
            const auto in_hole = static_cast<ssize_t>(
                std::min(hole_end - std::min(hole_end, total), static_cast<uint64_t>(size)));
            if (std::any_of(buffer.begin(), buffer.begin() + in_hole,
                            [](char byte) { return byte != 0; })) {
                problem(path, fmt::format("data in the hole from {} to {}", total, hole_end));
            }
            total += static_cast<uint64_t>(size);
        }
        if (total != entry.size) {
            problem(path, fmt::format("size {} but {} bytes to read", entry.size, total));
        }
        entry.content = XXH3_64bits_digest(hash.get());
    }

    void read_xattrs(const std::string& path, const std::string& full, Entry& entry) {
        std::vector<char> names(kBuffer);
        const ssize_t size = ::llistxattr(full.c_str(), names.data(), names.size());
        if (size < 0) {
            failed(path, "llistxattr");
            return;
        }
        std::vector<char> value(kBuffer);
        for (const char* name = names.data(); name < names.data() + size;
             name += std::string_view(name).size() + 1) {
            const ssize_t length = ::lgetxattr(full.c_str(), name, value.data(), value.size());
            if (length < 0) {
                failed(path, std::string("lgetxattr ") + name);
                continue;
            }
            entry.xattrs[name] = std::string(value.data(), static_cast<size_t>(length));
        }
    }

    void add_children(const std::string& path, const std::string& full) {
        std::map<std::string, unsigned char> names;
        const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(full.c_str()), ::closedir);
        if (!directory) {
            failed(path, "opendir");
            return;
        }
        errno = 0;
        // NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is ours alone
        while (const dirent* entry = ::readdir(directory.get())) {
            if (!names.emplace(entry->d_name, entry->d_type).second) {
                problem(path, "listed twice: " + printable(entry->d_name));
            }
        }
        if (errno != 0) {
            failed(path, "readdir");
        }
        if (names.erase(".") + names.erase("..") != 2) {
            problem(path, "no . and .. in the list");
        }
        for (const auto& [name, type] : names) {
            add(path + "/" + name, type);
        }
    }

    std::string root_;
    std::vector<std::string>& problems_;
    Tree tree_;
};

std::string show(const std::map<std::string, std::string>& xattrs) {
    std::string text;
    for (const auto& [name, value] : xattrs) {
        text += name + "=" + printable(value.substr(0, 20)) + fmt::format("({}) ", value.size());
    }
    return text;
}

bool same_time(const timespec& a, const timespec& b) {
    if (a.tv_sec > kOld || b.tv_sec > kOld) {
        return a.tv_sec > kOld && b.tv_sec > kOld;
    }
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

std::string printable(const std::string& text) {
    std::string shown;
    for (const char c : text.substr(0, 300)) {
        if (std::isprint(static_cast<unsigned char>(c)) != 0) {
            shown += c;
        } else {
            shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        }
    }
    // The long names would hide all else.
    size_t run = 0;
    while ((run = shown.find(std::string(20, 'L'))) != std::string::npos) {
        shown.replace(run, shown.find_first_not_of('L', run) - run, "<L…>");
    }
    return shown;
}

void make_branches(const std::vector<std::string>& branches, uint64_t seed) {
    Random random(seed);
    for (size_t i = 0; i < branches.size(); ++i) {
        make_specials(branches[i], i, random);
        BranchMaker(random, i + 1 == branches.size()).fill(branches[i], 0);
    }
    for (size_t i = branches.size() - 1; i > 0; --i) {
        add_whiteouts(branches[i - 1], branches[i], random);
    }
}

Tree take_down(const std::string& root, std::vector<std::string>& problems) {
    return TreeReader(root, problems).read();
}

std::vector<std::string> differences(const Tree& expected, const Tree& actual,
                                     const std::function<bool(const std::string&)>& skip) {
    std::vector<std::string> found;
    const auto add = [&](const std::string& path, const std::string& what) {
        found.push_back("'" + printable(path) + "': " + what);
    };
    constexpr size_t kMost = 10;
    for (const auto& [path, entry] : actual) {
        if (!expected.contains(path) && !skip(path) && found.size() < kMost) {
            add(path, fmt::format("should not exist (mode {:o})", entry.mode));
        }
    }
    for (const auto& [path, one] : expected) {
        if (found.size() >= kMost) {
            break;
        }
        if (skip(path)) {
            continue;
        }
        const auto other = actual.find(path);
        if (other == actual.end()) {
            add(path, fmt::format("is missing (mode {:o})", one.mode));
            continue;
        }
        const Entry& two = other->second;
        if (one.mode != two.mode || one.uid != two.uid || one.gid != two.gid ||
            one.device != two.device || one.links != two.links) {
            add(path,
                fmt::format("should be mode {:o} owner {}:{} device {} links {}, is mode {:o} "
                            "owner {}:{} device {} links {}",
                            one.mode, one.uid, one.gid, one.device, one.links, two.mode, two.uid,
                            two.gid, two.device, two.links));
        }
        if (one.size != two.size) {
            add(path, fmt::format("should have size {}, has {}", one.size, two.size));
        } else if (one.content != two.content) {
            add(path, "has other contents");
        }
        if (one.target != two.target) {
            add(path, "points to " + printable(two.target) + " and not " + printable(one.target));
        }
        if (one.xattrs != two.xattrs) {
            add(path, "should have xattrs " + show(one.xattrs) + ", has " + show(two.xattrs));
        }
        if (!path.empty() && !same_time(one.modified, two.modified)) {
            add(path, fmt::format("should have mtime {}.{:09}, has {}.{:09}", one.modified.tv_sec,
                                  one.modified.tv_nsec, two.modified.tv_sec, two.modified.tv_nsec));
        }
    }
    return found;
}

}  // namespace ivmm::test
