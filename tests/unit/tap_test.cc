#include "net/tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>

#include "tests/support/own_network.h"

namespace ivmm {
namespace {

using testing::HasSubstr;

/// The kind and message of the error; the message is empty if there was none.
template <class T>
std::pair<ErrorKind, std::string> error_of(const Result<T>& result) {
    if (result) {
        ADD_FAILURE() << "this should have failed";
        return {};
    }
    return {result.error().kind, result.error().message};
}

TEST(HostAddress, Parses) {
    const auto address = parse_host_address("10.0.0.1/24");
    ASSERT_TRUE(address);
    EXPECT_EQ(address->address, htonl(0x0a000001));
    EXPECT_EQ(address->prefix_length, 24);
    for (const char* wrong : {"", "10.0.0.1", "10.0.0.1/", "10.0.0/24", "10.0.0.1/33", "10.0.0.1/0",
                              "10.0.0.1/24x", "10.0.0.1/-1", "x/24", "::1/64"}) {
        const auto [kind, message] = error_of(parse_host_address(wrong));
        EXPECT_EQ(kind, ErrorKind::kUsage) << wrong;
        EXPECT_THAT(message, HasSubstr("10.0.0.1/24")) << wrong;
    }
}

TEST(Tap, ImpossibleNamesAreUsageErrors) {
    for (const char* name :
         {"", ".", "..", "a/b", "tap%d", "a b", "a:1", "sixteen-letters-", "t\xc3\xa4p\n"}) {
        EXPECT_EQ(error_of(Tap::create(name)).first, ErrorKind::kUsage) << name;
        EXPECT_EQ(error_of(Tap::attach(name)).first, ErrorKind::kUsage) << name;
    }
    EXPECT_THAT(error_of(Tap::create("sixteen-letters-")).second, HasSubstr("longer than 15"));
}

TEST(Tap, CreatedOnesVanishWithTheirOwner) {
    IVMM_IN_OWN_NETWORK([] {
        {
            const auto tap = Tap::create("ivmm-test");
            ASSERT_TRUE(tap) << tap.error().message;
            EXPECT_NE(::if_nametoindex("ivmm-test"), 0U);
            EXPECT_NE(::fcntl(tap->fd(), F_GETFL) & O_NONBLOCK, 0);
            std::array<char, 100> frame{};
            EXPECT_EQ(::read(tap->fd(), frame.data(), frame.size()), -1);
        }
        EXPECT_EQ(::if_nametoindex("ivmm-test"), 0U);
    });
}

TEST(Tap, CreatingOneThatExistsSaysHowToUseIt) {
    IVMM_IN_OWN_NETWORK([] {
        const auto tap = Tap::create("ivmm-test");
        ASSERT_TRUE(tap);
        const auto [kind, message] = error_of(Tap::create("ivmm-test"));
        EXPECT_EQ(kind, ErrorKind::kUsage);
        EXPECT_EQ(message, "TAP 'ivmm-test' exists already; to use it, add ',existing'");
        EXPECT_EQ(error_of(Tap::create("lo")).first, ErrorKind::kUsage);
    });
}

TEST(Tap, AttachNeedsAFreeTapThatIsThere) {
    IVMM_IN_OWN_NETWORK([] {
        EXPECT_THAT(error_of(Tap::attach("ivmm-test")).second,
                    HasSubstr("there is no TAP 'ivmm-test'"));
        EXPECT_EQ(::if_nametoindex("ivmm-test"), 0U);
        EXPECT_THAT(error_of(Tap::attach("lo")).second, HasSubstr("'lo' is not a TAP"));
        {
            const auto busy = Tap::create("ivmm-test");
            ASSERT_TRUE(busy);
            const auto [kind, message] = error_of(Tap::attach("ivmm-test"));
            EXPECT_EQ(kind, ErrorKind::kUsage);
            EXPECT_THAT(message, HasSubstr("in use"));
        }
        // One that stays: made by somebody else.
        UniqueFd maker(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
        ifreq request{};
        std::strcpy(request.ifr_name, "ivmm-test");
        request.ifr_flags = 0x1002;  // IFF_TAP | IFF_NO_PI
        ASSERT_EQ(::ioctl(maker.get(), _IOW('T', 202, int), &request), 0);
        ASSERT_EQ(::ioctl(maker.get(), _IOW('T', 203, int), 1), 0);
        maker.reset();
        {
            const auto tap = Tap::attach("ivmm-test");
            ASSERT_TRUE(tap) << tap.error().message;
        }
        EXPECT_NE(::if_nametoindex("ivmm-test"), 0U) << "it was not ours to remove";
    });
}

TEST(Tap, WithoutPrivilegesTheErrorNamesTheCapability) {
    IVMM_IN_OWN_NETWORK([] {
        // Capabilities belong to the thread.
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        std::array<__user_cap_data_struct, 2> none{};
        ASSERT_EQ(::syscall(SYS_capset, &header, none.data()), 0);
        const auto [kind, message] = error_of(Tap::create("ivmm-test"));
        EXPECT_EQ(kind, ErrorKind::kHost);
        EXPECT_THAT(message, HasSubstr("CAP_NET_ADMIN"));
        EXPECT_THAT(message, HasSubstr("ivmm-test"));
    });
}

TEST(Tap, GetsItsAddressAndComesUp) {
    IVMM_IN_OWN_NETWORK([] {
        auto tap = Tap::create("ivmm-test");
        ASSERT_TRUE(tap);
        ASSERT_TRUE(tap->set_host_address(*parse_host_address("10.9.8.7/20")));
        ASSERT_TRUE(tap->bring_up());

        const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq request{};
        std::strcpy(request.ifr_name, "ivmm-test");
        const auto address = [&](unsigned long what) {
            EXPECT_EQ(::ioctl(socket.get(), what, &request), 0);
            sockaddr_in internet{};
            std::memcpy(&internet, &request.ifr_addr, sizeof(internet));
            return ntohl(internet.sin_addr.s_addr);
        };
        EXPECT_EQ(address(SIOCGIFADDR), 0x0a090807U);
        EXPECT_EQ(address(SIOCGIFNETMASK), 0xfffff000U);
        EXPECT_EQ(address(SIOCGIFBRDADDR), 0x0a090fffU);
        ASSERT_EQ(::ioctl(socket.get(), SIOCGIFFLAGS, &request), 0);
        EXPECT_NE(request.ifr_flags & IFF_UP, 0);
    });
}

TEST(Tap, OffloadsThatTheKernelDoesNotKnowTogetherFail) {
    IVMM_IN_OWN_NETWORK([] {
        auto tap = Tap::create("ivmm-test");
        ASSERT_TRUE(tap);
        EXPECT_TRUE(
            tap->set_offloads({.checksum = true, .tso4 = true, .tso6 = true, .tso_ecn = true}));
        EXPECT_TRUE(tap->set_offloads({}));
        EXPECT_THAT(error_of(tap->set_offloads({.tso4 = true})).second, HasSubstr("ivmm-test"));
    });
}

}  // namespace
}  // namespace ivmm
