#include <gmock/gmock.h>
#include <sys/socket.h>

#include "vmm/control/base64.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/line_stream.h"

namespace ivmm {
namespace {

using rpc::Json;
using ::testing::HasSubstr;

rpc::Refusal refusal(std::string_view line) {
    auto parsed = rpc::parse_request(line);
    if (auto* const refused = std::get_if<rpc::Refusal>(&parsed)) {
        return *refused;
    }
    ADD_FAILURE() << "accepted: " << line;
    return {};
}

TEST(JsonRpc, Request) {
    auto parsed =
        rpc::parse_request(R"({"jsonrpc":"2.0","id":"a","method":"status","params":{"x":1}})");
    const auto& request = std::get<rpc::Request>(parsed);
    EXPECT_EQ(request.id, Json("a"));
    EXPECT_EQ(request.method, "status");
    EXPECT_EQ(request.params["x"], 1);
    parsed = rpc::parse_request(R"({"jsonrpc":"2.0","method":"m"})");
    EXPECT_FALSE(std::get<rpc::Request>(parsed).id);
    EXPECT_TRUE(std::get<rpc::Request>(parsed).params.is_object());
}

TEST(JsonRpc, RefusalsHaveTheRightCode) {
    for (const char* const line : {"", "{", "x", "{\"a\":\"\xff\"}", "{\"a\":1e999}", "\x00"}) {
        EXPECT_EQ(refusal(line).code, rpc::kParseError) << line;
    }
    for (const char* const line :
         {"7", "null", "[]", R"([{"jsonrpc":"2.0","method":"status","id":1}])", "{}",
          R"({"jsonrpc":"1.0","method":"m"})", R"({"jsonrpc":"2.0","method":7})",
          R"({"jsonrpc":"2.0","method":"m","id":{}})"}) {
        EXPECT_EQ(refusal(line).code, rpc::kInvalidRequest) << line;
    }
    EXPECT_EQ(refusal(R"({"jsonrpc":"2.0","method":"m","params":[1]})").code, rpc::kInvalidParams);
    EXPECT_THAT(refusal("[]").message, HasSubstr("batches"));
}

TEST(JsonRpc, RefusalKeepsTheId) {
    EXPECT_EQ(refusal(R"({"id":42,"method":"m"})").id, 42);
    EXPECT_EQ(refusal(R"({"id":"q","jsonrpc":"2.0"})").id, "q");
    const std::string long_id(300, 'i');
    EXPECT_EQ(refusal(R"({"jsonrpc":"2.0","method":"m","id":")" + long_id + "\"}").id, nullptr);
}

TEST(JsonRpc, DeepNestingIsRefused) {
    for (const char open : {'[', '{'}) {
        EXPECT_THAT(refusal(std::string(size_t{1} << 20, open)).message, HasSubstr("nested"));
    }
    // Brackets in texts are no nesting.
    const std::string brackets(100, '[');
    EXPECT_TRUE(std::holds_alternative<rpc::Request>(
        rpc::parse_request(R"({"jsonrpc":"2.0","method":"\")" + brackets + R"(","id":1})")));
}

TEST(JsonRpc, AnswersAreOneValidLine) {
    const std::string line = rpc::make_result(1, {{"text", "a\nb\xff"}});
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_TRUE(Json::accept(line));
    const auto message = rpc::parse_message(rpc::make_error(7, rpc::kFailed, "no"));
    ASSERT_TRUE(message);
    EXPECT_EQ(message->id, 7);
    EXPECT_EQ(message->error, "no");
}

TEST(JsonRpc, ClientRefusesNonsense) {
    for (const char* const line : {"", "[]", "7", "{", "\"x\""}) {
        EXPECT_FALSE(rpc::parse_message(line)) << line;
    }
    EXPECT_TRUE(rpc::parse_message(R"({"id":1,"error":7})")->error);
}

TEST(Base64, RoundTrip) {
    EXPECT_EQ(encode_base64(""), "");
    EXPECT_EQ(encode_base64("f"), "Zg==");
    EXPECT_EQ(encode_base64("fo"), "Zm8=");
    EXPECT_EQ(encode_base64("foobar"), "Zm9vYmFy");
    std::string all;
    for (int i = 0; i < 256; ++i) {
        all += static_cast<char>(i);
        EXPECT_EQ(decode_base64(encode_base64(all)), all);
    }
}

TEST(Base64, RefusesNonsense) {
    for (const char* const text :
         {"Z", "Zg", "Zg=", "====", "Zg==Zg==", "Zm9\n", "\xff\xff\xff="}) {
        EXPECT_FALSE(decode_base64(text)) << text;
    }
}

class LineStreamTest : public testing::Test {
 protected:
    LineStreamTest() {
        int pair[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        peer_ = UniqueFd(pair[0]);
        stream_.emplace(UniqueFd(pair[1]));
    }
    void write(std::string_view text) {
        ASSERT_EQ(::send(peer_.get(), text.data(), text.size(), MSG_NOSIGNAL), std::ssize(text));
    }
    UniqueFd peer_;
    std::optional<LineStream> stream_;
};

TEST_F(LineStreamTest, SplitsLines) {
    write("one\n\ntw");
    EXPECT_EQ(stream_->fill(), LineStream::Fill::kOk);
    EXPECT_EQ(stream_->next_line(), "one");
    EXPECT_EQ(stream_->next_line(), "");
    EXPECT_EQ(stream_->next_line(), std::nullopt);
    EXPECT_EQ(stream_->fill(), LineStream::Fill::kOk);  // nothing there
    write("o\n");
    stream_->fill();
    EXPECT_EQ(stream_->next_line(), "two");
    peer_.reset();
    EXPECT_EQ(stream_->fill(), LineStream::Fill::kEnd);
}

TEST_F(LineStreamTest, EndlessLineIsRefused) {
    const std::string part(10000, 'x');
    size_t sent = 0;
    auto filled = LineStream::Fill::kOk;
    while (filled == LineStream::Fill::kOk && sent < 2 * LineStream::kMaxLine) {
        write(part);
        sent += part.size();
        filled = stream_->fill();
        EXPECT_EQ(stream_->next_line(), std::nullopt);
    }
    EXPECT_EQ(filled, LineStream::Fill::kTooLong);
    EXPECT_LT(sent, LineStream::kMaxLine + 50000);
}

TEST_F(LineStreamTest, FlushStopsAtAFullSocketAndAtAGonePeer) {
    const std::string line(size_t{4} << 20, 'x');
    stream_->queue(line);
    EXPECT_TRUE(stream_->flush());
    EXPECT_GT(stream_->queued(), 0u);
    EXPECT_LT(stream_->queued(), line.size());
    peer_.reset();
    EXPECT_FALSE(stream_->flush());
}

}  // namespace
}  // namespace ivmm
