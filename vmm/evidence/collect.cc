#include "vmm/evidence/collect.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "storage/tools/qemu_img.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/evidence/core_file.h"
#include "vmm/snapshot/memory_chain.h"
#include "vmm/switch/running_switches.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;

namespace fs = std::filesystem;

std::string to_text(const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<void> copy_file(const std::string& from, const std::string& to) {
    std::error_code error;
    if (!fs::copy_file(from, to, error)) {
        return fail("cannot copy '{}' to '{}': {}", from, to, error.message());
    }
    return {};
}

/// The files CLONE.NNNN.pcapng.
Result<void> add_captures(Bundle& bundle, const std::string& clone, const std::string& folder) {
    size_t count = 0;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        if (!name.starts_with(clone + ".") || !name.ends_with(".pcapng") ||
            name.find_first_not_of("0123456789", clone.size() + 1) != name.size() - 7) {
            continue;
        }
        IVMM_ASSIGN(const auto path,
                    bundle.add("captures/" + name, "what the clone has sent and got (pcapng)"));
        IVMM_TRY(copy_file(entry->path().string(), path));
        ++count;
    }
    if (error) {
        return fail("cannot read the folder '{}': {}", folder, error.message());
    }
    if (count == 0) {
        bundle.add_missing(fmt::format("captures: there is none of the clone in '{}'", folder));
    }
    return {};
}

/// The lines that are about the clone's port.
Result<void> add_events(Bundle& bundle, const std::string& clone, const std::string& path) {
    std::ifstream file(path);
    if (!file) {
        return fail("cannot read the events '{}'", path);
    }
    std::string text;
    for (std::string line; std::getline(file, line);) {
        const Json event = Json::parse(line, nullptr, false);
        if (event.is_object() && event.value("port", Json()) == clone) {
            text += line + "\n";
        }
    }
    return bundle.add_text("events.jsonl", "what the switch has told of the clone, a line each",
                           text);
}

/// The flows that are the clone's, the latest ones if there are very many.
Result<Json> flows_of(FoundPort& found, const std::string& clone) {
    constexpr uint32_t kAtOnce = 1000;
    constexpr uint32_t kMost = 200'000;  // numbers of flows of the guest
    const auto ask = [&](uint32_t after, uint32_t limit) {
        return found.owner.client.call(
            "flows",
            {{"guest", found.port.value("guest", "")}, {"after", after}, {"limit", limit}});
    };
    IVMM_ASSIGN(const Json first, ask(0, 1));
    const auto newest = first.value("newest", uint32_t{0});
    Json flows = Json::array();
    for (uint32_t after = newest > kMost ? newest - kMost : 0; after < newest; after += kAtOnce) {
        IVMM_ASSIGN(const Json answer, ask(after, kAtOnce));
        for (const auto& flow : answer.value("flows", Json::array())) {
            if (flow.value("owner", "") == clone) {
                flows.push_back(flow);
            }
        }
    }
    return flows;
}

Result<void> add_flows(Bundle& bundle, FoundPort& found, const std::string& clone) {
    IVMM_ASSIGN(const auto flows, flows_of(found, clone));
    return bundle.add_text("flows.json", "the clone's port, and its flows with their counters",
                           to_text({{"port", found.port}, {"flows", flows}}));
}

}  // namespace

Result<void> add_record(Bundle& bundle, const CloneRecord& record, const Json& status) {
    Json clone = to_json(record);
    clone["status"] = status;
    return bundle.add_text("clone.json", "whose clone it is, its disks, and how it was found",
                           to_text(clone));
}

Result<void> add_memory(Bundle& bundle, const std::string& folder, const OnProgress& progress) {
    IVMM_ASSIGN(const auto snapshot, read_snapshot(folder));
    IVMM_ASSIGN(const auto memory, MemoryChain::open(folder, snapshot));
    IVMM_ASSIGN(const auto path, bundle.add("memory.elf", "memory and registers, as an ELF core"));
    return write_core(
        path, memory.bytes(), snapshot.machine.vcpus,
        [&](uint64_t first, uint64_t count, ByteSpan out) {
            return memory.read(first, count, out);
        },
        [&](double done) { return progress("memory", done); });
}

Result<void> add_disk(Bundle& bundle, size_t number, const std::string& path,
                      const OnProgress& progress) {
    const std::string name = fmt::format("disk{}", number);
    IVMM_ASSIGN(const auto out, bundle.add(name + ".qcow2", fmt::format("the disk '{}'", path)));
    return storage::run_qemu_img(
        {"convert", "-p", "-U", "-f", "raw", "-O", "qcow2", "-S", "4k", path, out}, -1,
        [&](double done) { return progress(name, done); });
}

Result<void> add_network(Bundle& bundle, const std::string& clone) {
    auto found = find_switch_port(clone);
    if (!found) {
        bundle.add_missing("captures, flows, events: no switch has a port of the clone");
        return {};
    }
    IVMM_TRY(add_flows(bundle, *found, clone));
    const std::string captures = found->owner.status.value("captures", "");
    if (captures.empty()) {
        bundle.add_missing("captures: the switch makes none");
    } else {
        IVMM_TRY(add_captures(bundle, clone, captures));
    }
    const std::string events = found->owner.status.value("events", "");
    if (events.empty()) {
        bundle.add_missing("events: the switch writes none to a file");
        return {};
    }
    return add_events(bundle, clone, events);
}

Result<void> add_log(Bundle& bundle, const std::string& clone) {
    const std::string log = RuntimeDir::find().log_path(clone);
    if (!fs::exists(log)) {
        bundle.add_missing("log: the clone's process has said nothing");
        return {};
    }
    IVMM_ASSIGN(const auto path, bundle.add("log.txt", "what the clone's process has said"));
    return copy_file(log, path);
}

}  // namespace ivmm::evidence
