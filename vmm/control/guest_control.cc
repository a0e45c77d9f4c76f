#include "vmm/control/guest_control.h"

#include <unistd.h>

#include <memory>

#include "base/log.h"
#include "vmm/control/base64.h"
#include "vmm/control/metrics.h"
#include "vmm/control/parameters.h"

namespace ivmm {
namespace {

using rpc::Json;

constexpr size_t kConsoleChunk = size_t{16} << 10;

}  // namespace

GuestControl::GuestControl(std::string name, Machine& machine, ConsoleHub& console,
                           ControlServer& server, std::function<void()> on_detach)
    : name_(std::move(name)),
      machine_(machine),
      console_(console),
      server_(server),
      on_detach_(std::move(on_detach)) {
    const auto plain = [&](const char* method, auto action) {
        server_.add_method(
            method, [this, action](ControlConnection& client, const Json& params) -> Result<Json> {
                IVMM_TRY(rpc::check_parameters(params, {}));
                return action(*this, client);
            });
    };
    plain("status",
          [](GuestControl& self, ControlConnection&) -> Result<Json> { return self.status(); });
    plain("pause", [](GuestControl& self, ControlConnection&) { return self.pause_for_client(); });
    plain("resume", [](GuestControl& self, ControlConnection&) { return self.resume(); });
    plain("stop", [](GuestControl& self, ControlConnection&) -> Result<Json> {
        self.machine_.stop();
        return Json::object();
    });
    plain("console", [](GuestControl& self, ControlConnection& client) {
        return self.attach_console(client);
    });
    plain("detach",
          [](GuestControl& self, ControlConnection& client) { return self.detach(client); });
    server_.add_method("console.input",
                       [this](ControlConnection&, const Json& params) -> Result<Json> {
                           IVMM_TRY(rpc::check_parameters(params, {"data"}));
                           return console_input(params);
                       });
}

Result<void> GuestControl::adopt_owner(UniqueFd socket) {
    IVMM_ASSIGN(owner_, server_.adopt(std::move(socket), [this] {
        if (owner_ != nullptr) {
            owner_ = nullptr;
            machine_.stop();
        }
    }));
    return {};
}

void GuestControl::announce_end(const Ending& ending) {
    server_.pump_sources();
    server_.broadcast("guest.stopped", {{"reason", ending.reason_name()},
                                        {"message", ending.message},
                                        {"exit_code", ending.exit_code()}});
}

Json GuestControl::status() {
    const MachineStatus status = machine_.status();
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started_;
    Json vcpus = Json::array();
    for (const auto& vcpu : status.vcpus) {
        vcpus.push_back({{"exits", vcpu.exits}});
    }
    Json devices = Json::array();
    for (const auto& device : status.devices) {
        devices.push_back(
            {{"name", device.name}, {"kind", device.kind}, {"detail", device.detail}});
    }
    Json answer{{"name", name_},
                {"state", run_state_name(status.state)},
                {"pid", ::getpid()},
                {"uptime_s", uptime.count()},
                {"memory_bytes", status.memory_bytes},
                {"memory_resident_bytes", status.memory_resident_bytes},
                {"memory_shared_bytes", status.memory_shared_bytes},
                {"process_resident_bytes", process_resident_bytes()},
                {"host", status.host_kind},
                {"kernel_command_line", status.kernel_command_line},
                {"vcpus", std::move(vcpus)},
                {"devices", std::move(devices)}};
    if (describe_) {
        describe_(answer);
    }
    return answer;
}

void GuestControl::pause() {
    if (const auto paused = pause_for_client(); !paused) {
        log::error("the guest cannot be paused: {}", paused.error().message);
    }
}

Result<Json> GuestControl::pause_for_client() {
    IVMM_TRY(machine_.pause());
    if (!paused_) {
        paused_ = true;
        server_.broadcast("guest.paused", Json::object());
    }
    return Json::object();
}

Result<Json> GuestControl::resume() {
    IVMM_TRY(machine_.resume());
    if (paused_) {
        paused_ = false;
        server_.broadcast("guest.resumed", Json::object());
    }
    return Json::object();
}

Result<Json> GuestControl::attach_console(ControlConnection& client) {
    // Shared only because std::function must be copyable.
    const auto reader = std::make_shared<ConsoleHub::Reader>(console_);
    client.set_source([reader]() -> std::optional<std::string> {
        const auto chunk = reader->read(kConsoleChunk);
        if (chunk.bytes.empty() && chunk.lost == 0) {
            return std::nullopt;
        }
        Json params = {{"data", encode_base64(chunk.bytes)}};
        if (chunk.lost > 0) {
            params["lost"] = chunk.lost;
        }
        return rpc::make_notification("console.output", params);
    });
    return Json::object();
}

Result<Json> GuestControl::console_input(const Json& params) {
    const auto data = params.find("data");
    const auto bytes = data != params.end() && data->is_string()
                           ? decode_base64(data->get_ref<const std::string&>())
                           : std::nullopt;
    if (!bytes) {
        return fail_as(ErrorKind::kUsage, "data must be a text in base64");
    }
    const size_t accepted =
        machine_.console_input().console_input(std::as_bytes(std::span(*bytes)));
    return Json{{"accepted", accepted}};
}

Result<Json> GuestControl::detach(ControlConnection& client) {
    client.set_source({});
    if (&client == owner_) {
        owner_ = nullptr;
        on_detach_();
    }
    return Json::object();
}

}  // namespace ivmm
