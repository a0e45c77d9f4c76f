#include "vmm/switch/switch_process.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/timer.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/standard_files.h"
#include "vmm/config/validate.h"
#include "vmm/control/control_server.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/switch/event_log.h"
#include "vmm/switch/switch_control.h"

namespace ivmm {
namespace {

constexpr int kUnusedSeconds = 10;

Result<Tap> open_tap(const SwitchOptions::TapSpec& spec) {
    if (spec.existing) {
        return Tap::attach(spec.name);
    }
    IVMM_ASSIGN(auto tap, Tap::create(spec.name));
    if (!spec.host_address.empty()) {
        IVMM_ASSIGN(const auto address, parse_host_address(spec.host_address));
        IVMM_TRY(tap.set_host_address(address));
    }
    IVMM_TRY(tap.bring_up());
    return tap;
}

/// Opens the TAPs and gives each a port of its name.
Result<void> add_taps(const SwitchOptions& options, net::Switch& net, net::SwitchServer& server) {
    const auto add = [&](const SwitchOptions::TapSpec& spec, net::Role role) -> Result<void> {
        IVMM_ASSIGN(auto tap, open_tap(spec));
        net::PortId id = 0;
        if (role == net::Role::kUplink) {
            IVMM_ASSIGN(id, net.add_uplink(spec.name));
        } else if (role == net::Role::kSink) {
            IVMM_ASSIGN(const auto mac, tap.hardware_address());
            IVMM_ASSIGN(id, net.add_sink(spec.name, mac));
        } else {
            IVMM_ASSIGN(id, net.add_mirror(spec.name));
        }
        IVMM_ASSIGN(auto port, net::TapPort::create(std::move(tap), role == net::Role::kMirror));
        return server.attach_tap(id, std::move(port));
    };
    for (const auto& spec : options.uplinks) {
        IVMM_TRY(add(spec, net::Role::kUplink));
    }
    for (const auto& spec : options.sinks) {
        IVMM_TRY(add(spec, net::Role::kSink));
    }
    for (const auto& spec : options.mirrors) {
        IVMM_TRY(add(spec, net::Role::kMirror));
    }
    return {};
}

/// Clones have their ports before they come; everybody else who does is a guest.
Result<net::PortId> admit(net::Switch& net, const std::string& name, const net::MacAddress& mac) {
    for (const auto& port : net.ports()) {
        if (port.name != name) {
            continue;
        }
        if (port.role != net::Role::kGuest && port.role != net::Role::kClone) {
            return fail("'{}' is not a port for guests", name);
        }
        if (mac != port.mac && mac != net::MacAddress{}) {
            return fail("port '{}' is that of a guest with another address", name);
        }
        return port.id;
    }
    IVMM_TRY(check_guest_name(name));
    if (mac == net::MacAddress{}) {
        return fail("there is no port '{}', and no address for a new one", name);
    }
    return net.add_guest(name, mac);
}

bool is_used(const net::Switch& net) {
    const auto ports = net.ports();
    return std::any_of(ports.begin(), ports.end(), [](const net::Switch::PortInfo& port) {
        return port.attached && (port.role == net::Role::kGuest || port.role == net::Role::kClone);
    });
}

Result<void> serve(const SwitchOptions& options) {
    IVMM_TRY(check_guest_name(options.name));
    SwitchControl::Settings settings;
    settings.name = options.name;
    settings.capture_dir = options.capture_dir;
    settings.events_file = options.events_file;
    if (auto preset = net::preset_policy(options.policy)) {
        settings.policy = *std::move(preset);
    } else {
        IVMM_ASSIGN(settings.policy, net::load_policy(options.policy));
    }
    IVMM_ASSIGN(auto events, EventLog::open(options.events_file));
    const RuntimeDir runtime = RuntimeDir::find_switch();
    IVMM_ASSIGN(auto lock, runtime.lock(options.name));
    IVMM_ASSIGN(auto loop, EventLoop::create());
    ControlServer control(*loop);
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto signal_watch, loop->watch(signals.get(), EPOLLIN, [&](uint32_t) {
        if (EndSignals::take(signals.get())) {
            loop->stop();
        }
    }));
    net::Switch net(options.limits, [&](const net::Event& event) {
        control.broadcast("switch.event", events.write(options.name, event));
    });
    const std::string cables = runtime.cables_path(options.name);
    ::unlink(cables.c_str());  // whoever has left it is gone: the lock is ours
    IVMM_ASSIGN(auto server,
                net::SwitchServer::create(*loop, net, cables,
                                          [&](const std::string& name, const net::MacAddress& mac) {
                                              return admit(net, name, mac);
                                          }));
    IVMM_TRY(add_taps(options, net, *server));
    Timer unused;
    if (options.ends_unused) {
        IVMM_ASSIGN(unused, Timer::create(*loop, [&, seconds = 0]() mutable {
                        seconds = is_used(net) ? 0 : seconds + 1;
                        if (seconds >= kUnusedSeconds) {
                            loop->stop();
                        }
                    }));
        unused.set_every(std::chrono::seconds(1));
    }
    const SwitchControl methods(std::move(settings), net, *server, control);
    IVMM_ASSIGN(auto listener, lock.listen());
    IVMM_TRY(control.listen(std::move(listener)));
    cli::print("switch {} runs (process {})\n", options.name, ::getpid());
    static_cast<void>(std::fflush(stdout));
    if (options.ends_unused) {  // nobody's terminal any more
        redirect(runtime.log_path(options.name), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND,
                 {STDERR_FILENO});
    }
    loop->run();
    return {};
}

}  // namespace

Result<SwitchOptions::TapSpec> parse_tap_spec(const std::string& text) {
    SwitchOptions::TapSpec spec;
    size_t start = 0;
    while (start <= text.size()) {
        const size_t comma = std::min(text.find(',', start), text.size());
        const std::string part = text.substr(start, comma - start);
        if (start == 0) {
            spec.name = part;
        } else if (part == "existing") {
            spec.existing = true;
        } else if (part.starts_with("host=")) {
            spec.host_address = part.substr(5);
        } else {
            return fail_as(ErrorKind::kUsage,
                           "'{}': unknown option '{}'; write NAME[,existing][,host=ADDRESS/PREFIX]",
                           text, part);
        }
        start = comma + 1;
    }
    if (spec.existing && !spec.host_address.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "'{}': host= is for a TAP that ivmm creates; an existing one keeps its "
                       "addresses",
                       text);
    }
    return spec;
}

int run_switch(const SwitchOptions& options) {
    const EndSignals signals;
    const auto outcome = serve(options);
    return outcome ? 0 : cli::report(outcome.error());
}

}  // namespace ivmm
