// Who gets a port of a switch.

#include "net/switch_server.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/temp_dir.h"

namespace ivmm::net {
namespace {

using namespace std::chrono_literals;

constexpr MacAddress kMac{2, 0, 0, 0, 0, 1};

/// A switch with the guest "web", on a thread of its own.
class Bed {
 public:
    Bed() {
        call([&] {
            server_ = *SwitchServer::create(thread_->loop(), net_, path(),
                                            [this](const std::string& name, const MacAddress&) {
                                                const auto id = net_.find_port(name);
                                                return id ? Result<PortId>(*id) : fail("unknown");
                                            });
        });
    }
    ~Bed() {
        call([&] { server_.reset(); });
    }

    void call(const EventLoop::Task& task) { thread_->loop().call(task); }
    std::string path() const { return folder_.path() + "/cables"; }
    Result<CableEnd> connect(const std::string& port) { return connect_cable(path(), port, kMac); }
    std::string refusal(const std::string& port) {
        const auto end = connect(port);
        return end ? "" : end.error().message;
    }
    Result<CableEnd> make_cable() {
        Result<CableEnd> end = fail("not made");
        call([&] { end = server_->make_cable(guest_); });
        return end;
    }
    bool is_attached() {
        bool attached = false;
        call([&] { attached = net_.is_attached(guest_); });
        return attached;
    }

 private:
    ivmm::test::TempDir folder_;
    Switch net_{{}, {}};
    PortId guest_ = *net_.add_guest("web", kMac);
    std::unique_ptr<LoopThread> thread_ = *LoopThread::start("switch");
    std::unique_ptr<SwitchServer> server_;
};

TEST(SwitchServer, APortThatIsInUseIsNobodyElses) {
    Bed bed;
    {
        const auto first = bed.connect("web");
        ASSERT_TRUE(first.has_value()) << first.error().message;
        EXPECT_NE(bed.refusal("web").find("in use"), std::string::npos);
        EXPECT_FALSE(bed.make_cable().has_value());
        EXPECT_TRUE(bed.is_attached());
        // The first one has noticed nothing.
        std::array<UniqueFd, 1> none;
        const auto message = receive_message(first->socket.get(), none);
        EXPECT_TRUE(message.has_value() && !message->has_value());
    }
    // Whose process has ended gets its port back.
    for (int i = 0; i < 1000 && bed.is_attached(); ++i) {
        std::this_thread::sleep_for(5ms);
    }
    EXPECT_EQ(bed.refusal("web"), "");
}

TEST(SwitchServer, ACableThatWasMadeHereKeepsItsPort) {
    Bed bed;
    const auto end = bed.make_cable();
    ASSERT_TRUE(end.has_value()) << end.error().message;
    EXPECT_NE(bed.refusal("web").find("in use"), std::string::npos);
    EXPECT_NE(bed.refusal("other").find("unknown"), std::string::npos);
    EXPECT_NE(bed.refusal("").find("which port"), std::string::npos);
    EXPECT_TRUE(bed.is_attached());
}

}  // namespace
}  // namespace ivmm::net
