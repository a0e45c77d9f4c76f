#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

/// Trees of files: made at random for the lower branches, and taken down to be compared.
namespace ivmm::test {

/// Names that start so are hard links in a lower branch. The kernel's overlayfs (index=off) parts
/// them when one is copied up, and we do not: so a comparison only reads them.
constexpr const char* kHardLinkPrefix = "hl_";

/// A name that is fit for print.
std::string printable(const std::string& text);

/// Fills one of the directories `branches` (topmost first) each: the same trees for the same seed.
/// With whiteouts and opaque directories in all but the lowest.
void make_branches(const std::vector<std::string>& branches, uint64_t seed);

/// What a file system object looks like from outside.
struct Entry {
    mode_t mode = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    uint64_t size = 0;   ///< of what is no directory
    uint64_t links = 0;  ///< of what is no directory
    dev_t device = 0;
    timespec modified{};
    std::string target;    ///< of a symbolic link
    uint64_t content = 0;  ///< hash of a regular file
    std::map<std::string, std::string> xattrs;
};
using Tree = std::map<std::string, Entry>;  ///< by path from the root ("" is the root)

/// The whole tree. What cannot be read, or does not fit together (a d_type that is not the type, a
/// hole with data in it), is put into `problems`.
Tree take_down(const std::string& root, std::vector<std::string>& problems);

/// How `actual` differs from `expected`, a line each, at most ten. `skip` says which paths not to
/// look at. Times older than kOld must be equal, newer ones only both newer: each side has its own
/// "now".
std::vector<std::string> differences(
    const Tree& expected, const Tree& actual,
    const std::function<bool(const std::string&)>& skip = [](const std::string&) { return false; });
constexpr time_t kOld = 1'500'000'000;

}  // namespace ivmm::test
