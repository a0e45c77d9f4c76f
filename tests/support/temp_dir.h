#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace ivmm::test {

/// An empty folder with a short path (it may hold sockets), removed at the end.
class TempDir {
 public:
    TempDir() {
        std::string pattern = "/tmp/ivmm-test-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        path_ = pattern;
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& path() const { return path_; }
    /// Writes a file into the folder; its path.
    std::string file(const std::string& name, const std::string& contents = "") const {
        const std::string path = path_ + "/" + name;
        std::ofstream(path) << contents;
        return path;
    }

 private:
    std::string path_;
};

}  // namespace ivmm::test
