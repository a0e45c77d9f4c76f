#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/timer.h"

namespace ivmm::watch {

/// Follows a file to which lines are appended, from its end on: over its rotation (another file has
/// its name) and its truncation. One that is not there is waited for. One thread.
class EveFile {
 public:
    /// Takes a line without its end; one that was too long is cut off after kMaxEveLine + 1 bytes.
    using Take = std::function<void(std::string_view line)>;

    EveFile(std::string path, Take take);

    /// Reads on, at most a part of what may be there; whether there is more.
    bool read();

 private:
    bool open(bool at_end);
    /// Whether the name leads to the open file, which has not become shorter.
    bool is_current() const;
    void take(std::string_view bytes);

    const std::string path_;
    const Take take_;
    UniqueFd file_;
    uint64_t offset_ = 0;
    std::string line_;  // what has come of it; at most kMaxEveLine + 1 bytes
};

/// Reads a file again and again, on a loop's thread.
class EveFileReader {
 public:
    static Result<std::unique_ptr<EveFileReader>> start(EventLoop& loop, const std::string& path,
                                                        EveFile::Take take);

 private:
    EveFileReader(const std::string& path, EveFile::Take take) : file_(path, std::move(take)) {}

    EveFile file_;
    Timer timer_;
};

}  // namespace ivmm::watch
