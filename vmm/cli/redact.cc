#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>

#include "base/unique_fd.h"
#include "vmm/cli/cli.h"
#include "vmm/fork/memory_changes.h"
#include "vmm/redact/search.h"

namespace ivmm::cli {
namespace {

using redact::Secret;

struct RedactOptions {
    std::string secrets;
    std::string memory;
    std::vector<std::string> disks;
};

struct Places {
    size_t memory = 0;
    size_t disks = 0;
};

/// What a hook is told by its environment.
void take_environment(RedactOptions& options) {
    if (!options.memory.empty() || !options.disks.empty()) {
        return;
    }
    // NOLINTBEGIN(concurrency-mt-unsafe): there is one thread
    if (const char* const memory = std::getenv("IVMM_MEMORY")) {
        options.memory = memory;
    }
    constexpr int kMostDisks = 64;
    for (int i = 0; i < kMostDisks; ++i) {
        if (const char* const disk = std::getenv(fmt::format("IVMM_DISK{}", i).c_str())) {
            options.disks.emplace_back(disk);
        }
    }
    // NOLINTEND(concurrency-mt-unsafe)
}

Result<UniqueFd> open_file(const std::string& path, int flags) {
    UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC));
    struct stat status {};
    if (!file || ::fstat(file.get(), &status) != 0) {
        return fail_errno("cannot open '{}'", path);
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return fail_as(ErrorKind::kUsage, "'{}' is neither a file nor a block device", path);
    }
    return file;
}

Result<void> redact_memory(const std::string& path, const std::vector<Secret>& secrets,
                           std::vector<Places>& places) {
    IVMM_ASSIGN(const auto file, open_file(path, O_RDONLY));
    return redact::search(file.get(), secrets, [&](size_t i, uint64_t offset) -> Result<void> {
        ++places[i].memory;
        print("{}", to_line(offset, std::as_bytes(std::span(secrets[i].decoy))));
        return {};
    });
}

Result<void> redact_disk(const std::string& path, const std::vector<Secret>& secrets,
                         std::vector<Places>& places) {
    IVMM_ASSIGN(const auto file, open_file(path, O_RDWR));
    return redact::search(file.get(), secrets, [&](size_t i, uint64_t offset) -> Result<void> {
        ++places[i].disks;
        const std::string& decoy = secrets[i].decoy;
        if (::pwrite(file.get(), decoy.data(), decoy.size(), static_cast<off_t>(offset)) !=
            std::ssize(decoy)) {
            return fail_errno("cannot write to '{}'", path);
        }
        return {};
    });
}

Result<void> redact_all(RedactOptions options) {
    take_environment(options);
    if (options.memory.empty() && options.disks.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "nothing to look into: give --memory or --disk, or run this as a hook of "
                       "`ivmm fork --hook`");
    }
    IVMM_ASSIGN(const auto secrets, redact::load_secrets(options.secrets));
    std::vector<Places> places(secrets.size());
    if (!options.memory.empty()) {
        IVMM_TRY(redact_memory(options.memory, secrets, places));
    }
    for (const auto& disk : options.disks) {
        IVMM_TRY(redact_disk(disk, secrets, places));
    }
    Places all;
    size_t nowhere = 0;
    for (const auto& place : places) {
        all.memory += place.memory;
        all.disks += place.disks;
        nowhere += place.memory + place.disks == 0 ? 1 : 0;
    }
    say(
        fmt::format("{} secrets: {} places in memory and {} on disks have something else now; {} "
                    "secrets were found nowhere",
                    secrets.size(), all.memory, all.disks, nowhere));
    return {};
}

}  // namespace

void add_redact(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "redact", "Replace secrets in the memory and the disks of a clone, as its hook");
    const auto options = std::make_shared<RedactOptions>();
    command
        ->add_option("SECRETS", options->secrets,
                     "File with one secret a line and, if wanted, after a tab what is to be there "
                     "instead, as long as it (default: made up)")
        ->required();
    command->add_option("--memory", options->memory,
                        "File to look for them in; what is to be changed is printed");
    command
        ->add_option("--disk", options->disks,
                     "File or block device to change them in; once for each")
        ->allow_extra_args(false);
    command->footer(
        "Without --memory and --disk, what a hook is told: IVMM_MEMORY, IVMM_DISK0, …\n"
        "Example of a hook, a file that can be executed:\n"
        "  #!/bin/sh\n"
        "  exec ivmm redact /etc/ivmm/secrets");
    command->callback([&action, options] {
        action = [options] {
            const auto done = redact_all(*options);
            return done ? 0 : report(done.error());
        };
    });
}

}  // namespace ivmm::cli
