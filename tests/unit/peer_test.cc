#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/event_fd.h"
#include "memory/guest_memory.h"
#include "memory/replica.h"
#include "tests/support/temp_dir.h"
#include "vmm/peer/clock_shift.h"
#include "vmm/peer/disk_receiving.h"
#include "vmm/peer/keys.h"
#include "vmm/peer/link.h"
#include "vmm/peer/page_receiver.h"
#include "vmm/peer/page_sender.h"

namespace ivmm::peer {
namespace {

using ::testing::HasSubstr;
using std::chrono_literals::operator""s;

std::vector<std::byte> noise(size_t size) {
    std::mt19937_64 random(7);
    std::vector<std::byte> bytes(size);
    for (auto& byte : bytes) {
        byte = static_cast<std::byte>(random());
    }
    return bytes;
}

TEST(PackingTest, MakesWhatRepeatsSmallerAndNothingMuchLarger) {
    for (const auto& content :
         {std::vector<std::byte>(kMaxPiece, std::byte{3}), noise(kMaxPiece), noise(1)}) {
        const auto packed = pack(content);
        EXPECT_LE(packed.size(), content.size() + 1);
        std::vector<std::byte> out(content.size());
        ASSERT_TRUE(unpack(packed, out));
        EXPECT_EQ(out, content);
    }
    EXPECT_LT(pack(std::vector<std::byte>(kMaxPiece)).size(), kMaxPiece / 100);
}

TEST(PackingTest, RefusesWhatIsNotOfThatLength) {
    for (const auto& content : {std::vector<std::byte>(8192, std::byte{3}), noise(8192)}) {
        auto packed = pack(content);
        std::vector<std::byte> shorter(4096);
        std::vector<std::byte> longer(8193);
        EXPECT_FALSE(unpack(packed, shorter));
        EXPECT_FALSE(unpack(packed, longer));
        std::vector<std::byte> out(8192);
        packed.pop_back();
        EXPECT_FALSE(unpack(packed, out));
        packed.front() = std::byte{9};
        EXPECT_FALSE(unpack(packed, out));
    }
    std::vector<std::byte> out(1);
    EXPECT_FALSE(unpack({}, out));
}

/// A memory, its sender, and a replica that gets what the test lets through.
class PageSenderTest : public ::testing::Test {
 protected:
    static constexpr uint64_t kPages = 1024;
    void write(uint64_t page, uint64_t word) {
        ASSERT_TRUE(memory_->write(page * kPageSize + 8, word));
        sender_.pending().insert(page);
    }
    std::optional<PageSender::Batch> next() {
        return sender_.next([&](uint64_t first, uint64_t count, std::byte* out) {
            memory_->copy_pages(first, count, out);
        });
    }
    void apply(const PageSender::Batch& batch) {
        const auto content = content_of(batch.message, batch.packed, kPages);
        ASSERT_TRUE(content) << content.error().message;
        ConstByteSpan rest(*content);
        for (const auto& run : batch.message.runs) {
            replica_->store(run.first, rest.first(run.count * kPageSize));
            rest = rest.subspan(run.count * kPageSize);
        }
    }
    void apply_all() {
        while (const auto batch = next()) {
            apply(*batch);
            sender_.applied(batch->message.number);
        }
    }
    uint64_t there(uint64_t page) {
        const auto clone =
            *GuestMemory::map_image(*replica_->open_for_reading(), kPages * kPageSize);
        return clone->read<uint64_t>(page * kPageSize + 8).value_or(~uint64_t{0});
    }

    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(kPages * kPageSize);
    std::unique_ptr<Replica> replica_ = *Replica::create(kPages * kPageSize);
    PageSender sender_{kPages};
};

TEST_F(PageSenderTest, SendsWhatHasChangedAndNothingElse) {
    write(3, 33);
    write(4, 44);
    write(700, 77);
    sender_.pending().insert(5);  // zeroes, as it is there
    const auto batch = next();
    ASSERT_TRUE(batch);
    EXPECT_EQ(batch->message.runs, (std::vector<PageRun>{{3, 2}, {700, 1}}));
    apply(*batch);
    EXPECT_EQ(there(3), 33U);
    EXPECT_EQ(there(700), 77U);
    EXPECT_FALSE(next());

    write(3, 33);
    write(4, 45);
    const auto second = next();
    ASSERT_TRUE(second);
    EXPECT_EQ(second->message.runs, (std::vector<PageRun>{{4, 1}}));
    EXPECT_EQ(second->message.number, 2U);
    EXPECT_EQ(sender_.in_flight(), 2U);
    sender_.applied(2);
    EXPECT_EQ(sender_.in_flight(), 0U);
}

TEST_F(PageSenderTest, SendsAgainWhatHasNotArrived) {
    for (uint64_t page = 0; page < 3 * PageSender::kBatchPages; ++page) {
        write(page, page + 1);
    }
    const auto first = next();
    const auto second = next();
    const auto third = next();
    ASSERT_TRUE(first && second && third);
    EXPECT_FALSE(next());
    apply(*first);
    sender_.resume(1);
    EXPECT_EQ(sender_.pending().count(), 2 * PageSender::kBatchPages);
    const auto again = next();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->message.number, 2U) << "the number that the other side waits for";
    EXPECT_EQ(again->message.runs, second->message.runs);
    apply(*again);
    apply_all();
    EXPECT_EQ(there(3 * PageSender::kBatchPages - 1), 3 * PageSender::kBatchPages);
}

TEST_F(PageSenderTest, SendsAgainEvenWhatHasChangedBack) {
    write(3, 33);
    apply_all();
    write(3, 34);
    const auto lost_or_not = next();
    ASSERT_TRUE(lost_or_not);
    apply(*lost_or_not);  // it arrives, but nobody learns of it
    write(3, 33);
    sender_.resume(lost_or_not->message.number - 1);
    apply_all();
    EXPECT_EQ(there(3), 33U);
}

TEST_F(PageSenderTest, StartsOverWithAnEmptyReplica) {
    write(3, 33);
    write(900, 90);
    apply_all();
    replica_ = *Replica::create(kPages * kPageSize);
    sender_.start_over();
    EXPECT_EQ(sender_.pending().count(), 2U);
    apply_all();
    EXPECT_EQ(there(3), 33U);
    EXPECT_EQ(there(900), 90U);
}

TEST_F(PageSenderTest, ReplicasAreCopiedAfterTheirEnd) {
    write(3, 33);
    write(900, 90);
    apply_all();
    ASSERT_TRUE(replica_->seal());
    auto copy = replica_->copy();
    ASSERT_TRUE(copy) << copy.error().message;
    EXPECT_LE((*copy)->resident_bytes(), 2 * kPageSize);
    replica_ = *std::move(copy);
    write(3, 34);
    apply_all();
    EXPECT_EQ(there(3), 34U);
    EXPECT_EQ(there(900), 90U);
}

TEST(PageReceiverTest, RefusesPagesThatDoNotExist) {
    const auto packed = pack(std::vector<std::byte>(kPageSize));
    const auto refused = [&](std::vector<PageRun> runs) {
        Pages message;
        message.runs = std::move(runs);
        return !content_of(message, packed, 16);
    };
    EXPECT_FALSE(refused({{15, 1}}));
    EXPECT_TRUE(refused({}));
    EXPECT_TRUE(refused({{16, 1}}));
    EXPECT_TRUE(refused({{15, 0}}));
    EXPECT_TRUE(refused({{15, 2}}));
    EXPECT_TRUE(refused({{~uint64_t{0}, 2}}));
    EXPECT_TRUE(refused({{0, ~uint32_t{0}}}));
    EXPECT_TRUE(refused(std::vector<PageRun>(100, {0, 1})));
}

TEST(FrameTest, HasBounds) {
    EXPECT_TRUE(check_frame({MessageType::kPages, 100, kMaxPacked}));
    EXPECT_FALSE(check_frame({MessageType::kPages, 100, kMaxPacked + 1}));
    EXPECT_FALSE(check_frame({MessageType::kHello, uint32_t{1} << 20, 0}));
    EXPECT_FALSE(check_frame({MessageType::kHello, 1, 1}));
    EXPECT_FALSE(check_frame({static_cast<MessageType>(1), 0, 0}));
    EXPECT_FALSE(check_frame({static_cast<MessageType>(~0U), 0, 0}));
}

TEST(ClockShiftTest, TheGuestsClocksGoOn) {
    MachineState state;
    state.vm.host_ns = 1;  // of a host that has just been started
    state.vcpus.resize(1);
    state.vcpus[0].tsc_khz = 2'000'000;
    state.vcpus[0].tsc_offset = 5;
    state.vcpus[0].msrs.resize(2);
    state.vcpus[0].msrs[0].index = 0x10;
    state.vcpus[0].msrs[0].data = 1000;
    constexpr uint64_t kMillisecond = 1'000'000;
    move_to_this_host(state, 3 * kMillisecond);
    EXPECT_GE(age_of(state), 3 * kMillisecond);
    EXPECT_FALSE(state.vcpus[0].tsc_offset);
    EXPECT_EQ(state.vcpus[0].msrs[0].data, 1000 + 6'000'000U);
    EXPECT_EQ(state.vcpus[0].msrs[1].data, 0U);
}

TEST(SharedFolderTest, NobodyGetsOutOfIt) {
    const test::TempDir dir;
    const std::string here = std::filesystem::canonical(dir.path()).string();
    std::filesystem::create_directories(here + "/shared/web");
    std::ofstream(here + "/shared/web/disk.img") << "x";
    std::ofstream(here + "/secret") << "x";
    std::filesystem::create_symlink(here + "/secret", here + "/shared/link");
    const std::vector<SharedFolder> shared = {{"/srv", here + "/shared"}};
    EXPECT_EQ(find_shared(shared, "/srv/web/disk.img"), here + "/shared/web/disk.img");
    EXPECT_EQ(find_shared(shared, "/srv/web/../web/disk.img"), here + "/shared/web/disk.img");
    EXPECT_EQ(find_shared(shared, "/srv/../secret"), "");
    EXPECT_EQ(find_shared(shared, "/srv/link"), "");
    EXPECT_EQ(find_shared(shared, "/srv/other.img"), "");
    EXPECT_EQ(find_shared(shared, "/srvx/web/disk.img"), "");
}

/// Two hosts with keys, and a listening socket on loopback.
class TlsTest : public ::testing::Test {
 protected:
    TlsTest() {
        for (const auto& keys : {client_, server_}) {
            EXPECT_TRUE(make_keys(keys));
        }
        sockaddr_storage address{};
        socklen_t size = sizeof address;
        ::getsockname(listening_.get(), reinterpret_cast<sockaddr*>(&address), &size);
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
        address_ = fmt::format("127.0.0.1:{}", ntohs(v4.sin_port));
    }
    static void trust(const std::string& who, const std::string& whom) {
        std::filesystem::copy_file(whom + "/public.pem", who + "/peers/other.pem");
    }
    std::unique_ptr<TlsStream> accept(std::string* error) {
        pollfd ready{listening_.get(), POLLIN, 0};
        ::poll(&ready, 1, -1);
        UniqueFd socket(
            ::accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        auto stream = TlsStream::accept(std::move(socket), server_, -1);
        *error = stream ? "" : stream.error().message;
        return stream ? *std::move(stream) : nullptr;
    }

    test::TempDir dir_;
    std::string client_ = dir_.path() + "/client";
    std::string server_ = dir_.path() + "/server";
    UniqueFd listening_ = *listen_at("127.0.0.1:0");
    std::string address_;
};

TEST_F(TlsTest, CarriesMessagesBetweenHostsThatTrustEachOther) {
    trust(client_, server_);
    trust(server_, client_);
    std::string error;
    std::jthread server([&] {
        const auto stream = accept(&error);
        ASSERT_TRUE(stream) << error;
        EXPECT_EQ(stream->peer_key().substr(0, 16), *key_fingerprint(client_ + "/public.pem"));
        // What comes back is what came.
        std::vector<std::byte> bytes(3 << 20);
        ASSERT_TRUE(stream->read(bytes, std::chrono::steady_clock::now() + 60s));
        ASSERT_TRUE(stream->write(bytes));
    });
    auto stream = TlsStream::connect(address_, client_, -1);
    ASSERT_TRUE(stream) << stream.error().message;
    const auto sent = noise(3 << 20);
    ASSERT_TRUE((*stream)->write(sent));
    std::vector<std::byte> bytes(sent.size());
    ASSERT_TRUE((*stream)->read(bytes, std::chrono::steady_clock::now() + 60s));
    EXPECT_EQ(bytes, sent);
}

TEST_F(TlsTest, AClientChecksTheKeyOfTheServer) {
    const std::string other = dir_.path() + "/other";
    ASSERT_TRUE(make_keys(other));
    trust(client_, other);
    trust(server_, client_);
    std::string error;
    std::jthread server([&] { accept(&error); });
    const auto stream = TlsStream::connect(address_, client_, -1);
    ASSERT_FALSE(stream);
    EXPECT_THAT(stream.error().message, HasSubstr("has a key that is not in"));
    server.join();
    EXPECT_NE(error, "");
}

TEST_F(TlsTest, AServerChecksTheKeyOfTheClient) {
    const std::string other = dir_.path() + "/other";
    ASSERT_TRUE(make_keys(other));
    trust(client_, server_);
    trust(server_, other);
    std::string error;
    std::jthread server([&] { accept(&error); });
    const auto stream = TlsStream::connect(address_, client_, -1);
    // A client learns of it with the first answer.
    std::array<std::byte, 1> byte{};
    const auto read = stream ? (*stream)->read(byte, std::chrono::steady_clock::now() + 60s)
                             : Result<void>(Unexpected{stream.error()});
    ASSERT_FALSE(read);
    EXPECT_THAT(read.error().message, HasSubstr("refuses this host"));
    server.join();
    EXPECT_THAT(error, HasSubstr("has a key that is not in"));
}

TEST_F(TlsTest, NobodyIsTrustedWithoutKeys) {
    const auto stream = TlsStream::connect(address_, client_, -1);
    ASSERT_FALSE(stream);
    EXPECT_THAT(stream.error().message, HasSubstr("no other host's key"));
}

TEST_F(TlsTest, WaitingCanBeGivenUp) {
    trust(client_, server_);
    const auto interrupt = *EventFd::create();
    interrupt.signal();
    // Nobody accepts.
    const auto stream = TlsStream::connect(address_, client_, interrupt.fd());
    ASSERT_FALSE(stream);
    EXPECT_THAT(stream.error().message, HasSubstr("given up"));
}

TEST(KeysTest, AreForTheUserAloneAndNeverOverwritten) {
    const test::TempDir dir;
    const std::string keys = dir.path() + "/keys";
    ASSERT_TRUE(make_keys(keys));
    struct stat info {};
    ASSERT_EQ(::stat((keys + "/private.pem").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
    const auto before = *key_fingerprint(keys + "/public.pem");
    EXPECT_FALSE(make_keys(keys));
    EXPECT_EQ(*key_fingerprint(keys + "/public.pem"), before);
}

TEST(AddressTest, HasAHostAndAPort) {
    EXPECT_EQ(parse_address("host:7070")->port, "7070");
    EXPECT_EQ(parse_address("[::1]:7070")->host, "::1");
    for (const auto* bad : {"host", ":7070", "host:", ""}) {
        EXPECT_FALSE(parse_address(bad)) << bad;
    }
}

}  // namespace
}  // namespace ivmm::peer
