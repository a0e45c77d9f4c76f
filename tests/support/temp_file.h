#pragma once

#include <cstdint>
#include <string>

namespace ivmm::test {

/// A file of zeroes that exists as long as this object.
class TempFile {
 public:
    explicit TempFile(uint64_t size);
    TempFile(const TempFile&) = delete;
    TempFile& operator=(const TempFile&) = delete;
    ~TempFile();
    const std::string& path() const { return path_; }

 private:
    std::string path_;
};

}  // namespace ivmm::test
