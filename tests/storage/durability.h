#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/storage/random.h"

/// What a crash may leave of a folder, kept up to date with every operation and every fsync.
namespace ivmm::test {

/// One file that a crash test writes.
struct DurableFile {
    static constexpr uint64_t kAbsent = UINT64_MAX;  ///< the version of what is beyond the end
    std::vector<uint64_t> current;                   ///< version of each unit, as last written
    std::vector<std::set<uint64_t>> allowed;         ///< what each unit may be after a crash
    std::string name;                                ///< now; empty when deleted
    std::set<std::string> names;                     ///< that it may have after a crash
    bool may_be_gone = true;                         ///< or it must be there under one of these
};

/// A folder of one view. One thread at a time.
struct DurableFolder {
    std::map<uint64_t, DurableFile> files;  ///< by id
    std::set<std::string> pinned;           ///< names that are only ever replaced: must be there
};

/// Makes a folder for lower branches; what it holds is durable.
DurableFolder make_durable_folder(const std::string& path, uint64_t first_id);

/// Does random operations on a folder and tells the model of them.
class DurableWriter {
 public:
    /// `crashing`: set before a crash begins. A sync that ends after that promises nothing: a file
    /// system that is being shut down may still say that it was done.
    DurableWriter(Random& random, uint64_t& next_number, const std::atomic<bool>& crashing)
        : random_(random), number_(next_number), crashing_(crashing) {}
    enum class Outcome { kDone, kSynced, kFailed };
    /// One operation; errno says why it failed. Nobody else may use `folder` meanwhile.
    Outcome step(DurableFolder& folder, const std::string& path);

 private:
    Outcome write(DurableFile& file, uint64_t id, const std::string& path);
    Outcome resize(DurableFile& file, const std::string& path);
    Outcome zero(DurableFile& file, const std::string& path);
    Outcome create(DurableFolder& folder, const std::string& path);
    Outcome replace(DurableFolder& folder, const std::string& path);
    Outcome rename(DurableFile& file, const std::string& path);
    Outcome remove(DurableFile& file, const std::string& path);
    Outcome sync_file(DurableFile& file, const std::string& path);
    Outcome sync_folder(DurableFolder& folder, const std::string& path);
    bool is_synced(int outcome) const { return outcome == 0 && !crashing_; }
    Random& random_;
    uint64_t& number_;
    const std::atomic<bool>& crashing_;  ///< of the next version or file
};

/// Compares a folder after a crash with what it may be; gives what is wrong. What was found becomes
/// what is durable.
std::vector<std::string> check_after_crash(DurableFolder& folder, const std::string& path);

}  // namespace ivmm::test
