#include "net/capture.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"

namespace ivmm::net {
namespace {

// draft-ietf-opsawg-pcapng.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kByteOrder = 0x1a2b3c4d;
constexpr uint32_t kInterface = 1;
constexpr uint32_t kEnhancedPacket = 6;
constexpr uint16_t kEthernet = 1;
constexpr uint16_t kOptionComment = 1;
constexpr uint16_t kInterfaceName = 2;
constexpr uint16_t kTimeResolution = 9;
constexpr uint16_t kPacketFlags = 2;
constexpr uint32_t kSnapLength = 262144;

/// Builds one block.
class Block {
 public:
    Block(std::vector<std::byte>& out, uint32_t type) : out_(out), start_(out.size()) {
        u32(type);
        u32(0);
    }
    void u16(uint16_t value) { raw(bytes_of(value)); }
    void u32(uint32_t value) { raw(bytes_of(value)); }
    void raw(ConstByteSpan bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
    void pad() { out_.resize(start_ + align_up<size_t>(out_.size() - start_, 4)); }
    void option(uint16_t code, ConstByteSpan value) {
        u16(code);
        u16(static_cast<uint16_t>(value.size()));
        raw(value);
        pad();
    }
    void finish() {
        const auto length = static_cast<uint32_t>(out_.size() - start_ + 4);
        std::memcpy(out_.data() + start_ + 4, &length, sizeof(length));
        u32(length);
    }

 private:
    std::vector<std::byte>& out_;
    const size_t start_;
};

ConstByteSpan text(std::string_view characters) {
    return std::as_bytes(std::span(characters));
}

std::vector<std::byte> file_header() {
    std::vector<std::byte> bytes;
    Block section(bytes, kSectionHeader);
    section.u32(kByteOrder);
    section.u16(1);
    section.u16(0);
    section.u32(UINT32_MAX);  // the section's length is not known
    section.u32(UINT32_MAX);
    section.finish();
    // In the order of Place.
    for (const char* const name : {"uplink", "primary", "clone", "dropped"}) {
        Block interface(bytes, kInterface);
        interface.u16(kEthernet);
        interface.u16(0);
        interface.u32(kSnapLength);
        interface.option(kInterfaceName, text(name));
        const std::array<uint8_t, 1> nanoseconds{9};
        interface.option(kTimeResolution, std::as_bytes(std::span(nanoseconds)));
        interface.u32(0);  // end of options
        interface.finish();
    }
    return bytes;
}

}  // namespace

Result<std::unique_ptr<Capture>> Capture::create(Options options) {
    std::unique_ptr<Capture> self(new Capture(std::move(options)));
    IVMM_TRY(self->next_file());
    self->thread_ = std::thread([raw = self.get()] { raw->write_all(); });
    return self;
}

Capture::~Capture() {
    if (!thread_.joinable()) {
        return;
    }
    {
        const std::scoped_lock lock(mutex_);
        ending_ = true;
    }
    changed_.notify_one();
    thread_.join();
}

void Capture::record(Place place, Direction direction, const Frame& frame,
                     std::string_view comment) {
    const size_t need = frame.size() + comment.size() + 160;
    const uint64_t now = clock_ns(CLOCK_REALTIME);
    const std::scoped_lock lock(mutex_);
    if (filled_.size() + need > options_.buffer_bytes) {
        ++dropped_;
        ++dropped_before_;
        return;
    }
    const size_t before = filled_.size();
    Block packet(filled_, kEnhancedPacket);
    packet.u32(static_cast<uint32_t>(place));
    packet.u32(static_cast<uint32_t>(now >> 32));
    packet.u32(static_cast<uint32_t>(now));
    packet.u32(static_cast<uint32_t>(frame.size()));
    packet.u32(static_cast<uint32_t>(frame.size()));
    packet.raw(frame.head);
    packet.raw(frame.tail);
    packet.pad();
    packet.option(kOptionComment, text(comment));
    if (dropped_before_ > 0) {
        packet.option(kOptionComment,
                      text(fmt::format("{} frames before this one were not recorded",
                                       std::exchange(dropped_before_, 0))));
    }
    const uint32_t flags = direction == Direction::kIn ? 1 : 2;
    packet.option(kPacketFlags, bytes_of(flags));
    packet.u32(0);
    packet.finish();
    blocks_.push_back(filled_.size() - before);
    if (before == 0) {
        changed_.notify_one();
    }
}

Result<void> Capture::next_file() {
    const auto path = [&](uint32_t number) {
        return fmt::format("{}.{:04}.pcapng", options_.path, number);
    };
    ++number_;
    if (number_ > options_.most_files) {
        ::unlink(path(number_ - options_.most_files).c_str());
    }
    file_.reset(
        ::open(path(number_).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file_) {
        return fail_errno("cannot write '{}'", path(number_));
    }
    written_ = 0;
    if (!write(file_header())) {
        return fail_errno("cannot write '{}'", path(number_));
    }
    return {};
}

bool Capture::write(ConstByteSpan bytes) {
    written_ += bytes.size();
    while (!bytes.empty()) {
        const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return true;
}

void Capture::write_all() {
    std::vector<std::byte> bytes;
    std::vector<size_t> blocks;
    while (true) {
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return ending_ || !filled_.empty(); });
            if (filled_.empty()) {
                return;
            }
            bytes.clear();
            blocks.clear();
            std::swap(bytes, filled_);
            std::swap(blocks, blocks_);
        }
        // A file ends with a whole block. After an error the next file is tried.
        size_t begin = 0;
        size_t end = 0;
        const auto flush = [&] {
            const bool good = file_ && write(ConstByteSpan(bytes).subspan(begin, end - begin));
            begin = end;
            return good;
        };
        for (const size_t length : blocks) {
            end += length;
            if (written_ + (end - begin) >= options_.most_bytes) {
                static_cast<void>(flush());
                if (const auto next = next_file(); !next) {
                    log::error("capture: {}", next.error().message);
                }
            }
        }
        if (!flush() && file_) {
            log::error("capture: cannot write '{}': {}", options_.path, error_text(errno));
            file_.reset();
        }
    }
}

}  // namespace ivmm::net
