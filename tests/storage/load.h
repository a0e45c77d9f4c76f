#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "tests/storage/random.h"

/// Threads that write into one folder each and remember every change, so that it can be said what a
/// folder was at any moment.
namespace ivmm::test {

/// What a folder holds: by path in it.
struct FileState {
    uint64_t id = 0;
    std::vector<uint64_t> versions;  ///< of each unit; 0: zeroes
    bool operator==(const FileState&) const = default;
};
using FolderState = std::map<std::string, FileState>;

/// Files whose name starts with 'b' are big and have large units.
size_t unit_of(const std::string& path);

struct Change {
    enum class Kind { kCreate, kWrite, kAppend, kTruncate, kZero, kRename, kUnlink, kRenameFolder };
    Kind kind = Kind::kWrite;
    std::string path;
    std::string other;     ///< new name
    uint64_t index = 0;    ///< first unit, or the size after a truncate
    uint64_t count = 0;    ///< of units
    uint64_t version = 0;  ///< of all of them
    uint64_t id = 0;       ///< of a created file
    uint64_t begun = 0;    ///< moments; see now()
    uint64_t ended = UINT64_MAX;
};
void replay(FolderState& state, const Change& change);
std::string describe(const Change& change);

/// A moment: later ones are greater, whatever the thread.
uint64_t now();

/// Makes a folder for lower branches; gives its state.
FolderState make_folder(const std::string& path);
/// How a folder differs from what it should be, or an empty text.
std::string difference(const FolderState& expected, const std::string& folder);

/// A thread that changes a folder until it is stopped. Its functions: one other thread.
class Writer {
 public:
    Writer(std::string folder, FolderState state, uint64_t seed);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    /// Ends the thread and checks what it can still read through files that it deleted.
    void stop();
    uint64_t changes() const { return count_; }
    const std::string& problem() const { return problem_; }  ///< after stop()
    const FolderState& state() const { return state_; }      ///< after stop()

    /// Where the folder `copy` was forked off between the moments `before` and `after`: its state,
    /// when the first change that is not in it began and the last one that is in it ended.
    struct Cut {
        std::string problem;
        FolderState state;
        uint64_t last_in_begun = 0;
        uint64_t first_out_ended = UINT64_MAX;
    };
    Cut find_cut(const std::string& copy, uint64_t before, uint64_t after);

 private:
    void run(const std::stop_token& stop);
    Change propose();
    bool perform(const Change& change);
    bool write_units(const std::string& path, const Change& change);
    int open_file(const std::string& path);
    std::string some_file();

    struct Deleted {
        UniqueFd fd;
        FileState state;
        size_t unit;
    };

    const std::string folder_;
    FolderState base_;  ///< before log_[0]
    FolderState state_;
    Random random_;
    uint64_t next_version_ = 1000;
    uint64_t next_id_ = 100;
    std::string subfolder_ = "sub";
    std::map<uint64_t, UniqueFd> open_;  ///< by id
    std::vector<Deleted> deleted_;
    std::mutex mutex_;  ///< guards log_
    std::vector<Change> log_;
    std::atomic<uint64_t> count_ = 0;
    std::string problem_;
    std::jthread thread_;
};

}  // namespace ivmm::test
