#include "vmm/watch/watch_process.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <cstdio>

#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/watch/eve_file.h"
#include "vmm/watch/eve_socket.h"
#include "vmm/watch/flow_watcher.h"
#include "vmm/watch/payload_tap.h"
#include "vmm/watch/watcher.h"

namespace ivmm::watch {
namespace {

using Way = EveLedger::Way;

/// Where alerts come from.
struct Sources {
    std::unique_ptr<EveSocket> eve_socket;
    std::unique_ptr<EveFileReader> eve_file;
    std::unique_ptr<PayloadTap> mirror;
    std::unique_ptr<FlowWatcher> flows;
};

Result<Sources> open_sources(const WatchOptions& options, EventLoop& loop, Watcher& watcher) {
    Sources sources;
    const Rules& rules = watcher.rules();
    if (!options.eve_socket.empty()) {
        IVMM_ASSIGN(sources.eve_socket,
                    EveSocket::open(loop, options.eve_socket, [&](std::string_view line) {
                        watcher.take_eve(line, Way::kSocket);
                    }));
    }
    if (!options.eve_file.empty()) {
        IVMM_ASSIGN(sources.eve_file,
                    EveFileReader::start(loop, options.eve_file, [&](std::string_view line) {
                        watcher.take_eve(line, Way::kFile);
                    }));
    }
    if (sources.eve_socket && sources.eve_file) {
        watcher.reconcile();
    }
    if (!options.mirror.empty()) {
        IVMM_ASSIGN(
            sources.mirror, PayloadTap::open(loop, options.mirror, [&](ConstByteSpan frame) {
                if (const auto alert = find_payload(frame, rules.detect.payloads, rules.home)) {
                    watcher.take(*alert);
                }
            }));
    }
    if (rules.detect.looks_at_flows()) {
        sources.flows = std::make_unique<FlowWatcher>(
            options.guest, rules.detect, [&](std::vector<Alert> alerts) {
                loop.post([&watcher, alerts = std::move(alerts)] {
                    for (const auto& alert : alerts) {
                        watcher.take(alert);
                    }
                });
            });
    }
    return sources;
}

/// Errors (kUsage): what is asked for in the one cannot be done without the other.
Result<void> check(const WatchOptions& options, const Rules& rules) {
    IVMM_TRY(check_guest_name(options.guest));
    if (rules.detect.payloads.empty() != options.mirror.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "payloads in the rules' [detect] need --mirror, and it is for them alone");
    }
    if (!rules.detect.payloads.empty() && rules.home.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "{}: payloads need home: the guest's addresses, to tell who sends them",
                       options.rules_file);
    }
    return {};
}

Result<void> serve(const WatchOptions& options) {
    IVMM_ASSIGN(auto rules, load_rules(options.rules_file));
    rules.dry_run = rules.dry_run || options.dry_run;
    IVMM_TRY(check(options, rules));
    IVMM_ASSIGN(auto log, DecisionLog::open(options.guest, options.log_file));
    IVMM_ASSIGN(auto lock, RuntimeDir::find_watch().lock(options.guest));
    IVMM_ASSIGN(auto loop, EventLoop::create());
    ControlServer control(*loop);
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto signal_watch, loop->watch(signals.get(), EPOLLIN, [&](uint32_t) {
        if (EndSignals::take(signals.get())) {
            loop->stop();
        }
    }));
    IVMM_ASSIGN(const auto watcher,
                Watcher::create(options.guest, std::move(rules), std::move(log), *loop, control));
    IVMM_ASSIGN(const auto sources, open_sources(options, *loop, *watcher));
    IVMM_ASSIGN(auto listener, lock.listen());
    IVMM_TRY(control.listen(std::move(listener)));
    cli::print("watch of guest {} runs (process {})\n", options.guest, ::getpid());
    static_cast<void>(std::fflush(stdout));
    loop->run();
    return {};
}

}  // namespace

int run_watch(const WatchOptions& options) {
    const EndSignals signals;
    const auto outcome = serve(options);
    return outcome ? 0 : cli::report(outcome.error());
}

}  // namespace ivmm::watch
