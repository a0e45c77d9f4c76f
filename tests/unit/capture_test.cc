// What is recorded of a clone: files that take turns, and a disk that does not keep up.

#include "net/capture.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <map>

#include "tests/support/frames.h"
#include "tests/support/temp_dir.h"

namespace ivmm::net {
namespace {

using namespace std::chrono_literals;
using ivmm::test::TempDir;
using test::Bytes;
using test::Peers;

constexpr uint32_t kEnhancedPacket = 6;

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

uint32_t word(const std::string& bytes, size_t at) {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
}

/// How many packets are in a file; fails if it is not a whole number of blocks.
size_t count_packets(const std::string& file) {
    EXPECT_GE(file.size(), 28U);
    EXPECT_EQ(word(file, 0), 0x0a0d0d0aU);
    size_t packets = 0;
    for (size_t at = 0; at < file.size();) {
        const uint32_t length = word(file, at + 4);
        if (length < 12 || length % 4 != 0 || at + length > file.size() ||
            word(file, at + length - 4) != length) {
            ADD_FAILURE() << "no block at " << at;
            return packets;
        }
        packets += word(file, at) == kEnhancedPacket ? 1 : 0;
        at += length;
    }
    return packets;
}

/// What another tool finds: a line a packet. Nothing if it is not installed.
std::optional<std::string> read_by_tshark(const TempDir& folder, const std::string& path) {
    if (std::system("command -v tshark >/dev/null 2>&1") != 0) {
        return std::nullopt;
    }
    const std::string out = folder.path() + "/tshark";
    EXPECT_EQ(std::system(fmt::format("tshark -n -r {} -T fields -e frame.comment >{} 2>{}.errors",
                                      path, out, out)
                              .c_str()),
              0);
    EXPECT_EQ(read_file(out + ".errors").find("damaged"), std::string::npos);
    EXPECT_EQ(read_file(out + ".errors").find("cut short"), std::string::npos);
    return read_file(out);
}

void record(Capture& capture, Bytes& bytes) {
    const ByteSpan all(bytes);
    const size_t head = std::min(bytes.size(), kHeadLength);
    capture.record(Place::kClone, Direction::kOut, {{}, all.first(head), all.subspan(head)},
                   "forward");
}

TEST(Capture, FilesTakeTurnsAndTheOldestGo) {
    const TempDir folder;
    constexpr size_t kFrames = 500;
    constexpr size_t kMost = 4096;
    {
        const auto capture = *Capture::create(
            {.path = folder.path() + "/trap", .most_bytes = kMost, .most_files = 3});
        Bytes frame = test::tcp(Peers{}, 1, 22, kTcpAck, "id");
        for (size_t i = 0; i < kFrames; ++i) {
            record(*capture, frame);
        }
        EXPECT_EQ(capture->dropped(), 0U);
    }
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
        files[entry.path().filename()] = read_file(entry.path());
        EXPECT_EQ(entry.status().permissions() & std::filesystem::perms::all,
                  std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    }
    ASSERT_EQ(files.size(), 3U);
    EXPECT_FALSE(files.contains("trap.0001.pcapng"));
    size_t packets = 0;
    for (const auto& [name, bytes] : files) {
        EXPECT_LT(bytes.size(), kMost + 256) << name;
        packets += count_packets(bytes);
        const auto told = read_by_tshark(folder, folder.path() + "/" + name);
        if (told) {
            EXPECT_EQ(static_cast<size_t>(std::count(told->begin(), told->end(), '\n')),
                      count_packets(bytes))
                << name;
        }
    }
    EXPECT_GT(packets, 2 * kMost / 256);
    EXPECT_LT(packets, kFrames);
}

/// A pipe that nobody reads is a disk that has stopped.
TEST(Capture, ADiskThatIsTooSlowCostsFramesAndNoTime) {
    const TempDir folder;
    const std::string path = folder.path() + "/trap.0001.pcapng";
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    const UniqueFd disk(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    auto capture =
        *Capture::create({.path = folder.path() + "/trap", .buffer_bytes = size_t{64} << 10});
    Bytes frame = test::tcp(Peers{}, 1, 22, kTcpAck, std::string(1000, 'x'));
    size_t sent = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (; sent < 5000; ++sent) {
        record(*capture, frame);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
    EXPECT_GT(capture->dropped(), 1000U);

    // The disk works again.
    std::string written;
    std::thread reader([&] {
        ::fcntl(disk.get(), F_SETFL, 0);
        std::array<char, 65536> part;
        while (true) {
            const ssize_t n = ::read(disk.get(), part.data(), part.size());
            if (n <= 0) {
                return;
            }
            written.append(part.data(), static_cast<size_t>(n));
        }
    });
    uint64_t dropped = 0;
    do {
        dropped = capture->dropped();
        record(*capture, frame);
        ++sent;
        std::this_thread::sleep_for(1ms);
    } while (capture->dropped() != dropped && sent < 50'000);
    capture.reset();
    reader.join();

    EXPECT_EQ(count_packets(written), sent - dropped);
    uint64_t told = 0;
    const std::string_view note = " frames before this one were not recorded";
    for (size_t at = written.find(note); at != std::string::npos; at = written.find(note, at + 1)) {
        size_t first = at;
        while (written[first - 1] >= '0' && written[first - 1] <= '9') {
            --first;
        }
        told += std::stoul(written.substr(first, at - first));
    }
    EXPECT_EQ(told, dropped);
    const std::string copy = folder.file("copy.pcapng", written);
    if (const auto comments = read_by_tshark(folder, copy)) {
        EXPECT_NE(comments->find(note), std::string::npos);
    }
}

}  // namespace
}  // namespace ivmm::net
