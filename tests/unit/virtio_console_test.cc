#include "devices/console/virtio_console.h"

#include <gtest/gtest.h>
#include <linux/virtio_console.h>

#include <string>

#include "base/state_codec.h"
#include "tests/support/fake_driver.h"
#include "tests/support/suspendable_conformance.h"

namespace ivmm::virtio {
namespace {

constexpr uint64_t kMemory = uint64_t{4} << 20;

class TextOutput final : public ConsoleOutput {
 public:
    void console_output(ConstByteSpan bytes) override {
        text.append(bytes.size(), '\0');
        std::memcpy(text.data() + text.size() - bytes.size(), bytes.data(), bytes.size());
    }
    std::string text;
};

ConstByteSpan as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
}

/// A console with its driver; the loop is run by hand.
struct Wired {
    explicit Wired(std::optional<VirtioConsole::Size> size = {})
        : loop(*EventLoop::create()),
          memory(*GuestMemory::create(kMemory)),
          arena(*memory, 0x1000, kMemory / 2),
          console(*VirtioConsole::create(*loop, *memory, output, size)),
          port(*memory, arena, *console) {}
    void activate() { port.activate(kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirect); }
    /// Lets the loop do what is due.
    void run_loop() {
        loop->post([this] { loop->post([this] { loop->stop(); }); });
        loop->run();
    }
    std::string received() {
        std::string text;
        while (const auto used = port.queue(VirtioConsole::kReceiveQueue).take_used()) {
            for (const std::byte byte : port.queue(VirtioConsole::kReceiveQueue).written(*used)) {
                text += std::to_integer<char>(byte);
            }
        }
        return text;
    }

    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<GuestMemory> memory;
    TextOutput output;
    test::Arena arena;
    std::unique_ptr<VirtioConsole> console;
    test::FakeDevicePort port;
};

TEST(VirtioConsole, PrintsAllOfARequest) {
    Wired wired;
    wired.activate();
    wired.port.queue(1).chain().readable("Hello, ").readable("world").send();
    wired.port.queue(1).chain().readable("!").indirect().send();
    wired.port.kick(1);
    EXPECT_EQ(wired.output.text, "Hello, world!");
    for (int i = 0; i < 2; ++i) {
        const auto used = wired.port.queue(1).take_used();
        ASSERT_TRUE(used);
        EXPECT_EQ(used->written, 0U);
    }
    EXPECT_GE(wired.port.interrupts(1), 1U);
}

TEST(VirtioConsole, OneKickPrintsABoundedAmountAndTheRestComesLater) {
    Wired wired;
    wired.activate();
    // One request of 8 MiB: the same memory again and again.
    auto chain = wired.port.queue(1).chain();
    for (int i = 0; i < 8; ++i) {
        chain.readable_at(kMemory / 2, kMemory / 4);
    }
    chain.send();
    wired.port.kick_once(1);
    EXPECT_GT(wired.output.text.size(), 0U);
    EXPECT_LE(wired.output.text.size(), size_t{256} << 10);
    EXPECT_FALSE(wired.port.queue(1).take_used());
    EXPECT_EQ(wired.port.kick_later_requests().count(1), 1U);
    wired.port.kick(1);
    EXPECT_EQ(wired.output.text.size(), 2 * kMemory);
    EXPECT_TRUE(wired.port.queue(1).take_used());
}

TEST(VirtioConsole, AHalfPrintedRequestGoesOnInTheRestoredConsole) {
    Wired wired;
    wired.activate();
    std::string text(200'000, '\0');
    for (size_t i = 0; i < text.size(); ++i) {
        text[i] = static_cast<char>('a' + i % 23);
    }
    ASSERT_TRUE(wired.memory->write(kMemory / 2, as_bytes(text)));
    wired.port.queue(1).chain().readable_at(kMemory / 2, 200'000).send();
    wired.port.kick_once(1);
    ASSERT_LT(wired.output.text.size(), text.size());
    wired.console->freeze();
    const auto state = wired.console->save_state();
    wired.port.kick_once(1);
    ASSERT_TRUE(wired.console->restore_state(state));
    wired.console->thaw();
    wired.port.kick(1);
    EXPECT_TRUE(wired.output.text == text);
}

TEST(VirtioConsole, ARequestThatBecameShorterMeanwhileEnds) {
    Wired wired;
    wired.activate();
    const auto request = wired.port.queue(1).chain().readable_at(kMemory / 2, 200'000).send();
    wired.port.kick_once(1);
    wired.port.queue(1).write_descriptor(request.head, {kMemory / 2, 10, 0, 0});
    wired.port.kick(1);
    EXPECT_TRUE(wired.port.queue(1).take_used());
    wired.port.queue(1).chain().readable("after").send();
    const auto before = wired.output.text.size();
    wired.port.kick(1);
    EXPECT_EQ(wired.output.text.substr(before), "after");
}

TEST(VirtioConsole, DeliversInputWhenThereAreBuffers) {
    Wired wired;
    EXPECT_EQ(wired.console->console_input(as_bytes("early ")), 6U);
    wired.activate();
    wired.run_loop();
    wired.port.queue(0).chain().writable(4).send();
    wired.port.queue(0).chain().writable(64).send();
    wired.port.kick(0);
    EXPECT_EQ(wired.received(), "early ");
    wired.port.queue(0).chain().writable(64).send();
    wired.port.queue(0).chain().writable(64).send();
    wired.console->console_input(as_bytes("typed"));
    wired.run_loop();
    EXPECT_EQ(wired.received(), "typed");
    EXPECT_GE(wired.port.interrupts(0), 1U);
}

TEST(VirtioConsole, AskedForANotificationWhileInputWaits) {
    Wired wired;
    wired.activate();
    wired.console->console_input(as_bytes("x"));
    wired.run_loop();
    wired.port.queue(0).chain().writable(64).send();
    EXPECT_TRUE(wired.port.queue(0).must_notify());
    wired.port.kick(0);
    EXPECT_EQ(wired.received(), "x");
}

TEST(VirtioConsole, InputIsBounded) {
    Wired wired;
    const std::string typed(VirtioConsole::kInputSize + 1, 'x');
    EXPECT_EQ(wired.console->console_input(as_bytes(typed)), VirtioConsole::kInputSize);
    EXPECT_EQ(wired.console->console_input(as_bytes("x")), 0U);
    EXPECT_GE(VirtioConsole::kInputSize, 4096U);
}

TEST(VirtioConsole, FrozenItDoesNothing) {
    Wired wired;
    wired.activate();
    wired.port.queue(0).chain().writable(64).send();
    wired.console->freeze();
    wired.console->console_input(as_bytes("typed"));
    wired.port.queue(1).chain().readable("printed").send();
    wired.run_loop();
    wired.port.kick(1);
    EXPECT_EQ(wired.output.text, "");
    EXPECT_EQ(wired.received(), "");
    wired.console->thaw();
    EXPECT_EQ(wired.output.text, "printed");
    EXPECT_EQ(wired.received(), "typed");
}

TEST(VirtioConsole, TellsItsSizeIfItHasOne) {
    Wired plain;
    EXPECT_EQ(plain.console->offered_features(), 0U);
    Wired sized(VirtioConsole::Size{80, 25});
    EXPECT_EQ(sized.console->offered_features(), uint64_t{1} << VIRTIO_CONSOLE_F_SIZE);
    uint32_t config = 0;
    sized.console->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(config, 80U | 25U << 16);
    sized.console->read_config(~uint64_t{0}, writable_bytes_of(config));
    EXPECT_EQ(config, 0U);
}

class ConsoleFixture final : public test::SuspendableFixture {
 public:
    ConsoleFixture() { wired_.activate(); }
    Suspendable& part() override { return *wired_.console; }
    bool change() override { return wired_.console->console_input(as_bytes("input")) > 0; }
    void use() override {
        wired_.run_loop();
        wired_.port.queue(1).chain().readable("output").send();
        wired_.port.kick(1);
        while (wired_.port.queue(1).take_used()) {
        }
    }

 private:
    Wired wired_;
};

IVMM_SUSPENDABLE_CONFORMANCE(VirtioConsole, [] { return std::make_unique<ConsoleFixture>(); });

}  // namespace
}  // namespace ivmm::virtio
