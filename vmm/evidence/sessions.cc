#include "vmm/evidence/sessions.h"

#include <algorithm>

#include "base/utc_time.h"
#include "net/dns_answer.h"
#include "net/wire.h"

namespace ivmm::evidence {
namespace {

using rpc::Json;

constexpr uint64_t kNsPerSecond = 1'000'000'000;
constexpr uint16_t kTelnetPort = 23;
/// What somebody says within it, and in the same direction, is one piece.
constexpr uint64_t kPauseNs = 100'000'000;

std::string_view as_text(ConstByteSpan bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool is_printable(char c) {
    return (c >= ' ' && c <= '~') || c == '\n' || c == '\t' || c == '\r';
}

/// The bytes of the character that a text begins with (UTF-8, RFC 3629); 0: there is none, or it
/// is a control character.
size_t length_of_character(std::string_view text) {
    const auto first = static_cast<unsigned char>(text[0]);
    if (first < 0x80) {
        return is_printable(text[0]) ? 1 : 0;
    }
    const size_t length = first < 0xc2   ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf5 ? 4
                                         : 0;
    if (length == 0 || text.size() < length) {
        return 0;
    }
    uint32_t character = first & (0xffU >> (length + 1));
    for (const char c : text.substr(1, length - 1)) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte & 0xc0U) != 0x80) {
            return 0;
        }
        character = character << 6 | (byte & 0x3fU);
    }
    const bool is_good = character >= (length == 2   ? 0xa0U
                                       : length == 3 ? 0x800U
                                                     : 0x10000U) &&
                         character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);
    return is_good ? length : 0;
}

/// The bytes of what moves the cursor, or colours a text that begins with it (ECMA-48); 0: it does
/// not.
size_t length_of_terminal_command(std::string_view text) {
    constexpr size_t kMostBytes = 32;
    if (!text.starts_with("\x1b[")) {
        return 0;
    }
    for (size_t i = 2; i < std::min(text.size(), kMostBytes); ++i) {
        if (text[i] >= '@' && text[i] <= '~') {
            return i + 1;
        }
    }
    return 0;
}

/// Without the commands of the protocol, and with ends of lines as others have them (RFC 854).
std::string without_telnet_commands(std::string_view text) {
    constexpr char kCommand = '\xff';
    std::string plain;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\r') {
            const bool is_two = i + 1 < text.size() && (text[i + 1] == '\n' || text[i + 1] == '\0');
            i += is_two ? 1 : 0;
            plain += '\n';
        } else if (text[i] != kCommand) {
            plain += text[i];
        } else {
            // WILL, WON'T, DO and DON'T have an option behind them.
            i += i + 1 < text.size() && text[i + 1] >= '\xfb' ? 2 : 1;
        }
    }
    return plain;
}

/// What can be shown of it; nothing if most of it is no text.
std::string words_of(std::string_view text) {
    std::string words;
    size_t bad = 0;
    for (size_t i = 0; i < text.size();) {
        if (const size_t command = length_of_terminal_command(text.substr(i)); command > 0) {
            i += command;
            continue;
        }
        const size_t length = length_of_character(text.substr(i));
        bad += length == 0 ? 1 : 0;
        if (length == 0) {
            words += '?';
        } else if (text[i] != '\r') {
            words += text.substr(i, length);
        }
        i += std::max<size_t>(length, 1);
    }
    if (bad * 10 <= text.size()) {
        return words;
    }
    // Of a protocol that begins with a line of text, this line.
    const std::string_view line = text.substr(0, std::min<size_t>(text.find('\n'), 256));
    return text.size() > line.size() && std::ranges::all_of(line, is_printable)
               ? words_of(text.substr(0, line.size() + 1))
               : std::string();
}

std::string time_text(uint64_t ns) {
    return utc_time_us(static_cast<int64_t>(ns / 1000));
}

std::string_view protocol_name(uint8_t protocol) {
    switch (protocol) {
        case net::kTcp:
            return "tcp";
        case net::kUdp:
            return "udp";
        case net::kIcmp:
        case net::kIcmpV6:
            return "icmp";
        default:
            return "ip";
    }
}

}  // namespace

Sessions::Session* Sessions::find(const Key& key, const CapturedFrame& frame) {
    const auto [place, is_new] = index_.try_emplace(key, sessions_.size());
    if (!is_new) {
        return &sessions_[place->second];
    }
    if (sessions_.size() == kMost) {
        index_.erase(place);
        return nullptr;
    }
    Session& session = sessions_.emplace_back();
    session.key = key;
    session.first_ns = frame.time_ns;
    return &session;
}

void Sessions::take(const CapturedFrame& frame) {
    const auto headers = net::parse_headers(frame.bytes, frame.bytes.size());
    // What the primary wanted to say on the clone's flows is not the clone's.
    if (!headers.is_ip() || frame.place == net::Place::kGuest ||
        headers.fragment == net::Headers::Fragment::kLater) {
        return;
    }
    const auto& tuple = headers.tuple;
    if (tuple.destination.is_multicast()) {
        return;  // it talks to nobody
    }
    const bool from_clone = !frame.to_clone;
    const Key key = from_clone ? Key{tuple.destination, tuple.source, tuple.destination_port,
                                     tuple.source_port, tuple.protocol}
                               : Key{tuple.source, tuple.destination, tuple.source_port,
                                     tuple.destination_port, tuple.protocol};
    Session* const session = find(key, frame);
    if (session == nullptr) {
        ++left_out_;
        return;
    }
    const bool opens =
        !headers.is_tcp() || (headers.tcp_flags & (net::kTcpSyn | net::kTcpAck)) == net::kTcpSyn;
    Side& side = from_clone ? session->clone : session->remote;
    if (session->clone.frames + session->remote.frames == 0) {
        session->opened_here = opens;
        session->opened_by_clone = opens && from_clone;
    }
    session->last_ns = frame.time_ns;
    ++side.frames;
    if (from_clone) {
        session->verdict = frame.comment;
        session->dropped += frame.place == net::Place::kDropped ? 1 : 0;
    }
    take_payload(*session, frame, headers);
}

void Sessions::take_payload(Session& session, const CapturedFrame& frame,
                            const net::Headers& headers) {
    const bool from_clone = !frame.to_clone;
    Side& side = from_clone ? session.clone : session.remote;
    const size_t end = std::min<size_t>(headers.packet_end, frame.bytes.size());
    if (headers.payload_offset == 0 || headers.payload_offset > end) {
        return;
    }
    ConstByteSpan payload =
        frame.bytes.subspan(headers.payload_offset, end - headers.payload_offset);
    if (headers.is_udp()) {
        side.bytes += payload.size();
        if (from_clone && headers.tuple.destination_port == net::kDnsPort) {
            if (const auto answer = net::answer_dns(payload, {})) {
                add_words(session, frame.time_ns, true, words_of(answer->question) + "\n");
            }
        }
        return;
    }
    if (!headers.is_tcp() || payload.empty()) {
        return;
    }
    const auto sequence = net::load_be32(frame.bytes, headers.transport_offset + size_t{4});
    if (side.is_known) {
        // What came before it is known; what is missing stays so.
        const auto old = static_cast<int32_t>(side.next - sequence);
        if (old > 0) {
            payload = payload.subspan(std::min(payload.size(), static_cast<size_t>(old)));
        }
    }
    if (payload.empty()) {
        return;
    }
    const auto length = static_cast<uint32_t>(end - headers.payload_offset);
    side.next = sequence + length;
    side.is_known = true;
    side.bytes += payload.size();
    const bool is_telnet =
        session.key.local_port == kTelnetPort || session.key.remote_port == kTelnetPort;
    const std::string text =
        is_telnet ? without_telnet_commands(as_text(payload)) : std::string(as_text(payload));
    add_words(session, frame.time_ns, from_clone, words_of(text));
}

void Sessions::add_words(Session& session, uint64_t time_ns, bool from_clone,
                         std::string_view text) {
    const size_t room = std::min(kMostText - session.text_bytes, kMostTextOfAll - text_bytes_);
    text = text.substr(0, room);
    if (text.empty()) {
        return;
    }
    session.text_bytes += text.size();
    text_bytes_ += text.size();
    if (!session.words.empty() && session.words.back().from_clone == from_clone &&
        time_ns - session.words.back().time_ns < kPauseNs) {
        session.words.back().text += text;
    } else {
        session.words.push_back({time_ns, from_clone, std::string(text)});
    }
}

std::vector<Json> Sessions::describe() const {
    std::vector<Json> all;
    all.reserve(sessions_.size());
    for (const auto& session : sessions_) {
        Json words = Json::array();
        for (const auto& one : session.words) {
            words.push_back({{"time", time_text(one.time_ns)},
                             {"from", one.from_clone ? "clone" : "remote"},
                             {"text", one.text}});
        }
        all.push_back({{"protocol", protocol_name(session.key.protocol)},
                       {"remote", to_string(session.key.remote)},
                       {"remote_port", session.key.remote_port},
                       {"local", to_string(session.key.local)},
                       {"local_port", session.key.local_port},
                       {"opened_by", !session.opened_here      ? "before"
                                     : session.opened_by_clone ? "clone"
                                                               : "remote"},
                       {"first", time_text(session.first_ns)},
                       {"last", time_text(session.last_ns)},
                       {"seconds", static_cast<double>(session.last_ns - session.first_ns) /
                                       static_cast<double>(kNsPerSecond)},
                       {"bytes_in", session.remote.bytes},
                       {"bytes_out", session.clone.bytes},
                       {"frames_in", session.remote.frames},
                       {"frames_out", session.clone.frames},
                       {"frames_dropped", session.dropped},
                       {"verdict", session.verdict},
                       {"words", std::move(words)}});
    }
    return all;
}

}  // namespace ivmm::evidence
