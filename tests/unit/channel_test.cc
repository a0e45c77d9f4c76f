#include "vmm/fork/channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

namespace ivmm {
namespace {

using ::testing::HasSubstr;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""ms;

class ChannelTest : public ::testing::Test {
 protected:
    ChannelTest() {
        std::array<int, 2> pair{};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
        primary_ = std::make_unique<Channel>(UniqueFd(pair[0]), "the standby");
        standby_ = std::make_unique<Channel>(UniqueFd(pair[1]), "the primary");
    }
    template <class Message>
    std::string refusal(Channel::Milliseconds patience = 10s) {
        const auto message = standby_->receive<Message>(patience);
        return message ? "" : message.error().message;
    }
    std::unique_ptr<Channel> primary_;
    std::unique_ptr<Channel> standby_;
};

TEST_F(ChannelTest, CarriesMessagesAndDescriptors) {
    HelloMessage hello;
    hello.config.name = "web";
    hello.config.disks.push_back({"disk.img", true, "s"});
    hello.disk_sizes = {512};
    const UniqueFd event(::eventfd(7, EFD_CLOEXEC));
    ASSERT_TRUE(primary_->send(hello, {event.get()}));
    ASSERT_TRUE(primary_->send(ReadyMessage()));
    std::vector<UniqueFd> descriptors;
    const auto received = standby_->receive<HelloMessage>(10s, &descriptors);
    ASSERT_TRUE(received) << received.error().message;
    EXPECT_EQ(received->config, hello.config);
    EXPECT_EQ(received->disk_sizes, hello.disk_sizes);
    ASSERT_EQ(descriptors.size(), 1U);
    uint64_t value = 0;
    ASSERT_EQ(::read(descriptors[0].get(), &value, sizeof value), 8);
    EXPECT_EQ(value, 7U) << "the same object";
    EXPECT_EQ(refusal<ReadyMessage>(), "") << "the next message is still there";
}

TEST_F(ChannelTest, CarriesWhatIsGreaterThanASocketHolds) {
    StartMessage start;
    start.state.devices.push_back({"blk0", std::vector<std::byte>(3 << 20, std::byte{5})});
    std::jthread sender([&] { EXPECT_TRUE(primary_->send(start)); });
    const auto received = standby_->receive<StartMessage>(60s);
    ASSERT_TRUE(received) << received.error().message;
    EXPECT_EQ(received->state.devices.at(0).bytes, start.state.devices.at(0).bytes);
}

TEST_F(ChannelTest, PassesReasonsOn) {
    FailedMessage failed;
    failed.reason = "the name is taken";
    ASSERT_TRUE(primary_->send(failed));
    EXPECT_EQ(refusal<PreparedMessage>(), "the name is taken");
}

TEST_F(ChannelTest, RefusesAnotherMessage) {
    ASSERT_TRUE(primary_->send(ReadyMessage()));
    EXPECT_THAT(refusal<PrepareMessage>(), HasSubstr("expected"));
}

TEST_F(ChannelTest, RefusesNonsense) {
    struct {
        uint32_t type;
        uint32_t length;
    } header{static_cast<uint32_t>(MessageType::kPrepare), Channel::kMaxPayload + 1};
    ASSERT_EQ(::write(primary_->fd(), &header, sizeof header), ssize_t{sizeof header});
    EXPECT_THAT(refusal<PrepareMessage>(), HasSubstr("at once"));
    header.length = 3;
    ASSERT_EQ(::write(primary_->fd(), &header, sizeof header), ssize_t{sizeof header});
    ASSERT_EQ(::write(primary_->fd(), "abc", 3), 3);
    EXPECT_THAT(refusal<PrepareMessage>(), HasSubstr("unreadable"));
}

TEST_F(ChannelTest, NoticesTheEnd) {
    EXPECT_THAT(refusal<PrepareMessage>(1ms), HasSubstr("does not answer"));
    // In the middle of a message.
    ASSERT_EQ(::write(primary_->fd(), "abc", 3), 3);
    primary_.reset();
    EXPECT_THAT(refusal<PrepareMessage>(), HasSubstr("has ended"));
    EXPECT_FALSE(standby_->send(ReadyMessage()));
}

}  // namespace
}  // namespace ivmm
