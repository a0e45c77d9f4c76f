#include "base/printable.h"

#include <gtest/gtest.h>

namespace ivmm {
namespace {

TEST(Printable, HasNoControlCharacters) {
    EXPECT_EQ(printable("name-1 \xc3\xa4"), "name-1 \xc3\xa4");
    EXPECT_EQ(printable(std::string("\x1b[2J\r\n\t\x7f\0.", 10)), "?[2J?????.");
    EXPECT_EQ(printable("\xc2\x9b"
                        "2J"),
              "??2J");
    EXPECT_EQ(printable(std::string(5000, 'x')).size(), 1000U);
}

}  // namespace
}  // namespace ivmm
