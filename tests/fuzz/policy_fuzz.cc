// What a policy file may say: it is refused with its place, or understood, and whatever it allows,
// what must stay out of reach does. Bytes from 128 on stand for the words of such files, so that an
// input gets deep; the others for themselves.

#include <cstdlib>
#include <string>

#include "net/policy.h"

namespace ivmm::net {
namespace {

constexpr std::array kWords{"preset = ",
                            "'strict'",
                            "'honeywall'",
                            "'research'",
                            "unreachable = ",
                            "[[rule]]\n",
                            "protocol = ",
                            "'tcp'",
                            "'udp'",
                            "'icmp'",
                            "'other'",
                            "'any'",
                            "ports = ",
                            "'1000-2000'",
                            "'0-65535'",
                            "to = ",
                            "verdict = ",
                            "'forward'",
                            "'drop'",
                            "'limit'",
                            "'reflect'",
                            "'redirect'",
                            "'answer'",
                            "names = ",
                            "{'*.example.com' = ['203.0.113.5']}",
                            "via = ",
                            "'self'",
                            "'sink0'",
                            "flows_per_hour = ",
                            "['10.0.0.0/8']",
                            "['2001:db8::/32', '198.51.100.7']",
                            "[",
                            "]",
                            "{",
                            "}",
                            ", ",
                            "\n",
                            "= ",
                            "'",
                            "\"",
                            "[rule]\n",
                            "1_000",
                            "65535",
                            "0x1F",
                            "1979-05-27",
                            "\"\"\"",
                            "'0.0.0.0/0'",
                            "'::/0'",
                            "'::ffff:0:0/96'",
                            "'fe80::/10'",
                            "[[rule]]\nverdict = "};

constexpr std::array kFarEnds{"10.0.0.1",  "192.168.1.1", "169.254.169.254", "fe80::1",
                              "fc00::1",   "ff02::1",     "64:ff9b::a00:1",  "198.51.100.7",
                              "224.0.0.1", "127.0.0.1",   "2001:db8::1",     "203.0.113.5"};

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

std::string text_of(std::span<const uint8_t> input) {
    std::string text;
    for (const uint8_t byte : input) {
        if (byte < 128) {
            text += static_cast<char>(byte);
        } else if (byte < 255) {
            text += kWords[(byte - 128U) % kWords.size()];
        } else {
            text += '\xff';  // not UTF-8
        }
    }
    return text;
}

void run(std::span<const uint8_t> input) {
    const auto policy = parse_policy(text_of(input), "p");
    if (!policy) {
        require(policy.error().kind == ErrorKind::kUsage);
        require(policy.error().message.rfind("p:", 0) == 0);
        return;
    }
    Containment containment(*policy);
    for (const char* const far : kFarEnds) {
        for (const uint8_t protocol : {kTcp, kUdp, kIcmp, uint8_t{47}}) {
            FlowKey key;
            key.remote = *parse_ip(far);
            key.protocol = protocol;
            key.remote_port = 1500;
            const auto decision = containment.decide(key, 1);
            const bool away =
                decision.verdict == Verdict::kForward || decision.verdict == Verdict::kLimit;
            require(!away || (!always_unreachable(key.remote) &&
                              !any_contains(policy->unreachable, key.remote)));
            const bool elsewhere =
                decision.verdict == Verdict::kReflect || decision.verdict == Verdict::kRedirect;
            require(!elsewhere || (decision.via != nullptr && !decision.via->empty()));
        }
    }
}

}  // namespace
}  // namespace ivmm::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    ivmm::net::run({data, size});
    return 0;
}
