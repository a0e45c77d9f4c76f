#include "tests/support/temp_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace ivmm::test {

TempFile::TempFile(uint64_t size) : path_(::testing::TempDir() + "/ivmm-test-XXXXXX") {
    const int fd = ::mkstemp(path_.data());
    EXPECT_GE(fd, 0);
    EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(size)), 0);
    ::close(fd);
}

TempFile::~TempFile() {
    ::unlink(path_.c_str());
}

}  // namespace ivmm::test
