#include <gtest/gtest.h>

#include "tests/storage/mounts.h"
#include "tests/storage/overlay_server.h"
#include "tests/storage/server_process.h"

int main(int argc, char** argv) {
    ivmm::test::serve_if_asked(argc, argv);
    ivmm::test::serve_overlay_if_asked(argc, argv);
    ::testing::InitGoogleTest(&argc, argv);
    ivmm::test::enter_private_mounts();
    return RUN_ALL_TESTS();
}
