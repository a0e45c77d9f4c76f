#pragma once

namespace ivmm {

/// Puts a terminal into raw mode: every key, Ctrl-C too, arrives as a byte. The destructor puts it
/// back as it was; so do exit(3) and fatal signals of this process (abort, bad memory access).
/// Output processing stays on, so that lines of a log still begin at the left edge.
/// At most one at a time in a process.
class RawTerminal {
 public:
    /// `fd` must stay open as long as the object lives. `farewell`, a constant, is written to it
    /// before it is put back.
    explicit RawTerminal(int fd, const char* farewell = "");
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal();
};

}  // namespace ivmm
