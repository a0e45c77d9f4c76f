// Methods of a control socket that answer later, as those of an overlay server do.
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <array>
#include <future>
#include <thread>

#include "vmm/control/control_client.h"
#include "vmm/control/control_server.h"
#include "vmm/control/parameters.h"

namespace ivmm {
namespace {

using rpc::Json;

class DeferredMethodTest : public testing::Test {
 protected:
    DeferredMethodTest() {
        server_->add_method(
            "now", [](ControlConnection&, const Json&) -> Result<Json> { return Json(1); });
        server_->add_deferred_method("later", [this](const Json&, ControlServer::Answer answer) {
            asked_.set_value(std::move(answer));
        });
        server_->add_deferred_method(
            "at_once", [](const Json& params, const ControlServer::Answer& answer) {
                const auto text = rpc::text_parameter(params, "text");
                answer(text ? Result<Json>(Json(*text)) : Unexpected{text.error()});
            });
        thread_ = std::jthread([this] { loop_->run(); });
    }
    ~DeferredMethodTest() override {
        loop_->stop();
        thread_.join();
    }
    UniqueFd connect() {
        std::array<int, 2> pair{};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
        // A test that gets no answer fails instead of hanging.
        const timeval patience{20, 0};
        ::setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        loop_->call([&] { EXPECT_TRUE(server_->adopt(UniqueFd(pair[1]))); });
        return UniqueFd(pair[0]);
    }
    static std::string read_line(const UniqueFd& socket) {
        std::string line;
        char c = 0;
        while (::recv(socket.get(), &c, 1, 0) == 1 && c != '\n') {
            line += c;
        }
        return line;
    }
    static void send(const UniqueFd& socket, std::string_view text) {
        EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), std::ssize(text));
    }

    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    std::unique_ptr<ControlServer> server_ = std::make_unique<ControlServer>(*loop_);
    std::promise<ControlServer::Answer> asked_;
    std::jthread thread_;
};

TEST_F(DeferredMethodTest, OthersAreServedAndTheOrderOfOneClientStays) {
    const auto slow = connect();
    send(slow, R"({"jsonrpc":"2.0","id":1,"method":"later"})"
               "\n"
               R"({"jsonrpc":"2.0","id":2,"method":"now"})"
               "\n");
    const auto answer = asked_.get_future().get();
    ControlClient other(connect());
    EXPECT_EQ(*other.call("now"), Json(1));
    answer(Json("done"));
    EXPECT_EQ(Json::parse(read_line(slow))["result"], "done");
    EXPECT_EQ(Json::parse(read_line(slow))["id"], 2);
    send(slow, R"({"jsonrpc":"2.0","id":3,"method":"now"})"
               "\n");
    EXPECT_EQ(Json::parse(read_line(slow))["id"], 3);
}

TEST_F(DeferredMethodTest, TheClientMayGoBeforeTheAnswer) {
    auto slow = connect();
    send(slow, R"({"jsonrpc":"2.0","id":1,"method":"later"})"
               "\n");
    const auto answer = asked_.get_future().get();
    slow.reset();
    ControlClient other(connect());
    EXPECT_EQ(*other.call("now"), Json(1));
    answer(Json("done"));
    EXPECT_EQ(*other.call("now"), Json(1));
}

TEST_F(DeferredMethodTest, AnswersThatComeAtOnceAndErrors) {
    ControlClient client(connect(), "the tester");
    EXPECT_EQ(*client.call("at_once", {{"text", "x"}}), Json("x"));
    const auto wrong = client.call("at_once");
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().message, "text must be a text");
    const auto raw = connect();
    send(raw, R"({"jsonrpc":"2.0","id":7,"method":"at_once"})"
              "\n");
    EXPECT_EQ(Json::parse(read_line(raw))["error"]["code"], rpc::kInvalidParams);
}

TEST_F(DeferredMethodTest, ANotificationGetsNoAnswer) {
    const auto raw = connect();
    send(raw, R"({"jsonrpc":"2.0","method":"at_once","params":{"text":"x"}})"
              "\n"
              R"({"jsonrpc":"2.0","id":8,"method":"now"})"
              "\n");
    EXPECT_EQ(Json::parse(read_line(raw))["id"], 8);
}

}  // namespace
}  // namespace ivmm
