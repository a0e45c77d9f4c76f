#include "vmm/cli/cli.h"

int main(int argc, char** argv) {
    return ivmm::cli::run_command_line(argc, argv);
}
