#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>

#include "vmm/cli/guest_command.h"
#include "vmm/cli/progress.h"
#include "vmm/config/size.h"
#include "vmm/peer/keys.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

constexpr std::chrono::minutes kReplicatePatience{2};
constexpr std::chrono::milliseconds kBetweenLooks{100};
constexpr double kPage = 4096;

struct ReplicateOptions {
    std::string guest;
    std::string to;
    std::string keys = peer::kDefaultKeys;
};

/// Until the replica is in sync for the first time.
Result<Json> wait_in_sync(ControlClient& client) {
    Progress progress("the memory is sent");
    double most = 1;
    std::string shown;
    while (true) {
        IVMM_ASSIGN(const auto status, client.call("standby.status"));
        if (status.value("phase", "") == "in-sync") {
            return status;
        }
        const std::string trouble = status.value("error", "");
        if (status.value("phase", "") == "failed" || status.value("where", "").empty()) {
            return fail("the standby at the other host is lost: {}", trouble);
        }
        if (!trouble.empty() && trouble != shown) {
            say(trouble + "; it goes on when the link is there again");
            shown = trouble;
        }
        const double lag = status.value("lag_pages", 0.0) * kPage;
        most = std::max(most, lag);
        progress.show(1 - lag / most);
        std::this_thread::sleep_for(kBetweenLooks);
    }
}

int replicate(const ReplicateOptions& options) {
    auto client = connect_to_guest(options.guest);
    if (!client) {
        return report(client.error());
    }
    const Json params = {{"to", options.to},
                         {"keys", std::filesystem::absolute(options.keys).string()}};
    if (const auto answer = client->call("replicate", params, kReplicatePatience); !answer) {
        return report(answer.error());
    }
    const auto status = wait_in_sync(*client);
    if (!status) {
        return report(status.error());
    }
    print("guest {} has a standby in sync at {}: {} were sent\n", options.guest, options.to,
          format_size(status->value("sent_bytes", uint64_t{0})));
    return 0;
}

}  // namespace

void add_replicate(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("replicate", "Keep a paused clone of a guest in sync on another host");
    const auto options = std::make_shared<ReplicateOptions>();
    command->add_option("NAME", options->guest, "Name of the guest, as `ivmm ls` shows it")
        ->required();
    command->add_option("HOST:PORT", options->to, "Where an `ivmm standby --listen` runs")
        ->required();
    command->add_option("--key", options->keys, "Folder with the keys, that `ivmm keys` has made")
        ->capture_default_str();
    command->footer(
        "From then on `ivmm fork` starts clones there. Returns when the standby is in sync; it\n"
        "takes the place of one on this host. `ivmm standby NAME --off` ends it.\n"
        "Example:\n"
        "  ivmm replicate web trap.example.org:7070");
    command->callback([&action, options] { action = [options] { return replicate(*options); }; });
}

void add_keys(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("keys", "Make the keys by which hosts know each other");
    const auto folder = std::make_shared<std::string>(peer::kDefaultKeys);
    command->add_option("DIR", *folder, "Folder for them")->capture_default_str();
    command->footer(
        "Two hosts trust each other when each has the other's public.pem in its DIR/peers.\n"
        "Example:\n"
        "  ivmm keys\n"
        "  scp /etc/ivmm/keys/public.pem trap:/etc/ivmm/keys/peers/web.pem\n"
        "  scp trap:/etc/ivmm/keys/public.pem /etc/ivmm/keys/peers/trap.pem");
    command->callback([&action, folder] {
        action = [folder] {
            if (const auto made = peer::make_keys(*folder); !made) {
                return report(made.error());
            }
            const auto digits = peer::key_fingerprint(*folder + "/public.pem");
            if (!digits) {
                return report(digits.error());
            }
            print(
                "key {} in {}\nCopy {}/public.pem to the other host, as THIS-HOST.pem in the "
                "folder peers/ of its keys,\nand its public.pem to {}/peers/THAT-HOST.pem.\n",
                *digits, *folder, *folder, *folder);
            return 0;
        };
    });
}

}  // namespace ivmm::cli
