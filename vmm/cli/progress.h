#pragma once

#include <string>

namespace ivmm::cli {

/// How far something is that takes long, in per cent on one line of standard error, if that is a
/// terminal. The line goes when this goes.
class Progress {
 public:
    explicit Progress(std::string what);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    /// 0 to 1.
    void show(double done);

 private:
    std::string what_;
    bool terminal_;
    int shown_ = -1;
};

}  // namespace ivmm::cli
