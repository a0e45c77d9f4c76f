// What an attacker leaves where evidence is looked for: a page of memory, and frames in a capture.

#include "base/bytes.h"
#include "vmm/evidence/exec_stack.h"
#include "vmm/evidence/sessions.h"

namespace {

using namespace ivmm;

void take_frames(ConstByteSpan input) {
    evidence::Sessions sessions;
    uint64_t time = 0;
    while (input.size() > 3) {
        const auto kind = std::to_integer<unsigned>(input[0]);
        const size_t length =
            std::min<size_t>(std::to_integer<size_t>(input[1]) * 8, input.size() - 2);
        evidence::CapturedFrame frame;
        frame.time_ns = time += 60'000'000;
        frame.place = static_cast<net::Place>(kind % 4);
        frame.to_clone = (kind & 4) != 0;
        frame.bytes = input.subspan(2, length);
        sessions.take(frame);
        input = input.subspan(2 + length);
    }
    for (const auto& session : sessions.describe()) {
        static_cast<void>(session.dump(-1, ' ', true, rpc::Json::error_handler_t::replace));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    static_cast<void>(evidence::find_started_program(input));
    take_frames(input);
    return 0;
}
