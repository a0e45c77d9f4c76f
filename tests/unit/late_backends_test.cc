// The disk and the cable of a clone, which come after the device.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include "devices/blk/late_disk.h"
#include "devices/blk/uring_disk.h"
#include "devices/net/net_plug.h"
#include "tests/support/temp_file.h"

namespace ivmm {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 1 << 20;

std::unique_ptr<LateDisk> late_disk(bool read_only = false) {
    return *LateDisk::create(kSize, read_only, 128);
}

std::string refusal(const Result<void>& result) {
    return result ? "" : Result<void>(result).error().message;
}

TEST(LateDiskTest, WorksOnceItIsThere) {
    test::TempFile file(kSize);
    const auto disk = late_disk();
    EXPECT_EQ(disk->size(), kSize);
    ASSERT_TRUE(disk->plug(*UringDisk::open(file.path(), false)));
    EXPECT_EQ(disk->name(), file.path());

    std::array<char, 512> text{"kept"};
    BlockBackend::Request request;
    request.operation = BlockBackend::Operation::kWrite;
    request.token = 42;
    request.offset = 1024;
    request.length = text.size();
    request.buffers.push_back({text.data(), text.size()});
    disk->submit(std::move(request));
    disk->commit();
    pollfd ready{disk->completion_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1) << "the descriptor that the device watches";
    std::vector<BlockBackend::Completion> completions;
    disk->poll(completions);
    ASSERT_EQ(completions.size(), 1U);
    EXPECT_EQ(completions[0].token, 42U);
    EXPECT_EQ(completions[0].error, 0);
    std::array<char, 5> found{};
    const UniqueFd reader(::open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::pread(reader.get(), found.data(), found.size(), 1024), 5);
    EXPECT_STREQ(found.data(), "kept");
}

TEST(LateDiskTest, RefusesAnotherDiskThanPromised) {
    test::TempFile small(kSize / 2);
    EXPECT_THAT(refusal(late_disk()->plug(*UringDisk::open(small.path(), false))),
                HasSubstr("the guest knows it with 1048576"));
    test::TempFile file(kSize);
    EXPECT_THAT(refusal(late_disk()->plug(*UringDisk::open(file.path(), true))),
                HasSubstr("read-only"));
    const auto disk = late_disk(true);
    ASSERT_TRUE(disk->plug(*UringDisk::open(file.path(), true)));
    EXPECT_THAT(refusal(disk->plug(*UringDisk::open(file.path(), true))), HasSubstr("already"));
}

/// Remembers what it was told.
class FakeCable final : public NetBackend {
 public:
    struct Seen {
        bool wants_receive = false;
        bool wants_send = false;
        NetOffloads offloads;
        size_t sent = 0;
        Callback on_receivable;
    };
    explicit FakeCable(Seen& seen) : seen_(seen) {}
    void set_callbacks(Callback on_receivable, Callback) override {
        seen_.on_receivable = std::move(on_receivable);
    }
    void want_receive(bool want) override { seen_.wants_receive = want; }
    void want_send(bool want) override { seen_.wants_send = want; }
    Sent send(std::span<const Frame> frames) override {
        seen_.sent += frames.size();
        return {frames.size(), 0};
    }
    std::optional<size_t> receive(std::span<const iovec>) override { return 60; }
    Result<void> set_offloads(const NetOffloads& offloads) override {
        seen_.offloads = offloads;
        return {};
    }

 private:
    Seen& seen_;
};

TEST(NetPlugTest, SwallowsFramesWithoutACable) {
    NetPlug plug;
    const std::array<iovec, 1> pieces{};
    const std::array<NetBackend::Frame, 2> frames{pieces, pieces};
    EXPECT_EQ(plug.send(frames).taken, 2U);
    EXPECT_FALSE(plug.receive(pieces));
    EXPECT_TRUE(plug.set_offloads({.checksum = true}));
}

TEST(NetPlugTest, TellsALateCableWhatItHasMissed) {
    NetPlug plug;
    int called = 0;
    plug.set_callbacks([&] { ++called; }, [] {});
    plug.want_receive(true);
    plug.want_send(true);
    ASSERT_TRUE(plug.set_offloads({.checksum = true, .tso4 = true}));
    FakeCable::Seen seen;
    ASSERT_TRUE(plug.plug(std::make_unique<FakeCable>(seen)));
    EXPECT_TRUE(seen.wants_receive);
    EXPECT_TRUE(seen.wants_send);
    EXPECT_EQ(seen.offloads, (NetOffloads{.checksum = true, .tso4 = true}));
    seen.on_receivable();
    EXPECT_EQ(called, 1);
    const std::array<iovec, 1> pieces{};
    const std::array<NetBackend::Frame, 1> frames{pieces};
    plug.send(frames);
    EXPECT_EQ(seen.sent, 1U);
    EXPECT_EQ(plug.receive(pieces), 60U);
    plug.want_send(false);
    EXPECT_FALSE(seen.wants_send);
    ASSERT_TRUE(plug.plug(nullptr));
    EXPECT_FALSE(plug.receive(pieces)) << "pulled out again";
}

}  // namespace
}  // namespace ivmm
