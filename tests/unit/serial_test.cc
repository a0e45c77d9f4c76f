#include "devices/serial/serial.h"

#include <gtest/gtest.h>
#include <linux/serial_reg.h>

#include <atomic>
#include <string>
#include <thread>

#include "base/state_codec.h"
#include "tests/support/suspendable_conformance.h"

namespace ivmm {
namespace {

class CountingLine final : public InterruptLine {
 public:
    void trigger() noexcept override { ++count_; }
    /// How often it was triggered since the last call.
    int take() { return count_.exchange(0); }

 private:
    std::atomic<int> count_ = 0;
};

class TextOutput final : public ConsoleOutput {
 public:
    void console_output(ConstByteSpan bytes) override {
        for (const std::byte byte : bytes) {
            text += std::to_integer<char>(byte);
        }
    }
    std::string text;
};

ConstByteSpan as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
}

class SerialTest : public testing::Test {
 protected:
    uint8_t in(uint64_t offset) {
        uint8_t value = 0xaa;
        serial_.bus_read(offset, writable_bytes_of(value));
        return value;
    }
    void out(uint64_t offset, unsigned value) {
        serial_.bus_write(offset, bytes_of(static_cast<uint8_t>(value)));
    }
    std::string read_all() {
        std::string text;
        while ((in(UART_LSR)&UART_LSR_DR) != 0) {
            text += static_cast<char>(in(UART_RX));
        }
        return text;
    }

    CountingLine line_;
    TextOutput output_;
    Serial serial_{"serial0", line_, output_};
};

TEST_F(SerialTest, SendsBytesInOrder) {
    for (const char c : std::string("login: ")) {
        EXPECT_EQ(in(UART_LSR) & (UART_LSR_THRE | UART_LSR_TEMT), UART_LSR_THRE | UART_LSR_TEMT);
        out(UART_TX, static_cast<uint8_t>(c));
    }
    EXPECT_EQ(output_.text, "login: ");
    EXPECT_EQ(line_.take(), 0);
}

TEST_F(SerialTest, DivisorLatchHidesDataAndInterruptEnable) {
    out(UART_IER, UART_IER_RDI);
    out(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    out(UART_DLL, 0x34);
    out(UART_DLM, 0x12);
    EXPECT_EQ(in(UART_DLL), 0x34);
    EXPECT_EQ(in(UART_DLM), 0x12);
    EXPECT_EQ(output_.text, "");
    out(UART_LCR, UART_LCR_WLEN8);
    EXPECT_EQ(in(UART_IER), UART_IER_RDI);
}

// What the 8250 driver of Linux does to find out what it has.
TEST_F(SerialTest, IsProbedAs16550A) {
    out(UART_IER, 0);
    EXPECT_EQ(in(UART_IER), 0);
    out(UART_IER, 0xff);
    EXPECT_EQ(in(UART_IER), 0x0f);
    out(UART_IER, 0);

    out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
    EXPECT_EQ(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_CTS);
    out(UART_MCR, 0);
    EXPECT_EQ(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);

    EXPECT_EQ(in(UART_IIR)&0xc0, 0);
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    EXPECT_EQ(in(UART_IIR)&0xc0, 0xc0);

    out(UART_SCR, 0x5a);
    EXPECT_EQ(in(UART_SCR), 0x5a);
    out(UART_SCR, 0xa5);
    EXPECT_EQ(in(UART_SCR), 0xa5);
}

TEST_F(SerialTest, EnablingTheTransmitInterruptRaisesItEachTime) {
    for (int i = 0; i < 3; ++i) {
        out(UART_IER, UART_IER_THRI);
        EXPECT_EQ(line_.take(), 1);
        EXPECT_EQ(in(UART_IIR), UART_IIR_THRI);
        EXPECT_EQ(in(UART_IIR), UART_IIR_NO_INT) << "reading it acknowledges it";
        out(UART_IER, 0);
        EXPECT_EQ(line_.take(), 0);
    }
}

TEST_F(SerialTest, EachTransmissionRaisesTheInterruptAgain) {
    out(UART_IER, UART_IER_THRI);
    ASSERT_EQ(in(UART_IIR), UART_IIR_THRI);
    line_.take();
    out(UART_TX, 'x');
    EXPECT_EQ(line_.take(), 1);
    // A driver that does not read IIR still hears of the next one.
    out(UART_TX, 'y');
    EXPECT_EQ(line_.take(), 1);
    EXPECT_EQ(in(UART_IIR), UART_IIR_THRI);
}

TEST_F(SerialTest, InputInterruptsOnceAndIsReadInOrder) {
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    out(UART_IER, UART_IER_RDI);
    EXPECT_EQ(line_.take(), 0);
    EXPECT_EQ(serial_.console_input(as_bytes("ab")), 2U);
    EXPECT_EQ(line_.take(), 1);
    EXPECT_EQ(serial_.console_input(as_bytes("c")), 1U);
    EXPECT_EQ(line_.take(), 0) << "the condition is not new";
    EXPECT_EQ(read_all(), "abc");
    EXPECT_EQ(in(UART_IIR)&0x0f, UART_IIR_NO_INT);
    serial_.console_input(as_bytes("d"));
    EXPECT_EQ(line_.take(), 1);
}

TEST_F(SerialTest, InputThatWasThereBeforeItsInterruptWasEnabledInterruptsThen) {
    serial_.console_input(as_bytes("a"));
    EXPECT_EQ(line_.take(), 0);
    out(UART_IER, UART_IER_RDI);
    EXPECT_EQ(line_.take(), 1);
    out(UART_IER, UART_IER_RDI);
    EXPECT_EQ(line_.take(), 0);
}

TEST_F(SerialTest, TriggerLevelDecidesBetweenDataAndTimeout) {
    out(UART_IER, UART_IER_RDI);
    out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_4);
    serial_.console_input(as_bytes("abcd"));
    EXPECT_EQ(in(UART_IIR)&0x0f, UART_IIR_RDI);
    in(UART_RX);
    EXPECT_EQ(in(UART_IIR)&0x0f, UART_IIR_RX_TIMEOUT);
}

TEST_F(SerialTest, ReceiveComesBeforeTransmit) {
    out(UART_IER, UART_IER_THRI | UART_IER_RDI);
    serial_.console_input(as_bytes("a"));
    EXPECT_EQ(in(UART_IIR), UART_IIR_RDI);
    in(UART_RX);
    EXPECT_EQ(in(UART_IIR), UART_IIR_THRI);
    EXPECT_EQ(in(UART_IIR), UART_IIR_NO_INT);
}

TEST_F(SerialTest, NothingTypedIsLostBeforeTheBacklogIsFull) {
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    std::string typed;
    size_t accepted = 0;
    while (accepted == typed.size()) {
        std::string part;
        for (int i = 0; i < 1000; ++i) {
            part += static_cast<char>('a' + (typed.size() + part.size()) % 26);
        }
        accepted += serial_.console_input(as_bytes(part));
        typed += part;
        ASSERT_LT(typed.size(), 1U << 20U) << "the backlog has no bound";
    }
    EXPECT_GE(accepted, 4096U);
    EXPECT_EQ(serial_.console_input(as_bytes("x")), 0U);
    EXPECT_EQ(read_all(), typed.substr(0, accepted));
    EXPECT_EQ(in(UART_LSR)&UART_LSR_OE, 0);
    EXPECT_EQ(serial_.console_input(as_bytes("x")), 1U);
}

TEST_F(SerialTest, ClearingTheFifoDropsWhatIsInIt) {
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    serial_.console_input(as_bytes("abc"));
    out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    EXPECT_EQ(in(UART_LSR)&UART_LSR_DR, 0);
    EXPECT_EQ(in(UART_RX), 0);
}

TEST_F(SerialTest, LoopbackReceivesWhatItSendsAndNothingElse) {
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    out(UART_MCR, UART_MCR_LOOP);
    serial_.console_input(as_bytes("typed"));
    for (int i = 0; i < 17; ++i) {
        out(UART_TX, static_cast<unsigned>('A' + i));
    }
    EXPECT_EQ(output_.text, "");
    out(UART_IER, UART_IER_RLSI);
    EXPECT_EQ(line_.take(), 1);
    EXPECT_EQ(in(UART_IIR)&0x0f, UART_IIR_RLSI);
    EXPECT_NE(in(UART_LSR)&UART_LSR_OE, 0) << "the 17th byte had no room";
    EXPECT_EQ(in(UART_LSR)&UART_LSR_OE, 0);
    EXPECT_EQ(read_all(), "ABCDEFGHIJKLMNOP");
    out(UART_MCR, 0);
    EXPECT_EQ(read_all(), "typed");
}

TEST_F(SerialTest, ModemChangesInLoopbackInterrupt) {
    out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1);
    in(UART_MSR);
    out(UART_IER, UART_IER_MSI);
    line_.take();
    out(UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
    EXPECT_EQ(line_.take(), 1);
    EXPECT_EQ(in(UART_IIR), UART_IIR_MSI);
    EXPECT_EQ(in(UART_MSR), UART_MSR_CTS | UART_MSR_DCTS | UART_MSR_TERI);
    EXPECT_EQ(in(UART_IIR), UART_IIR_NO_INT);
}

TEST_F(SerialTest, WideAccessesAreBytesInARow) {
    const uint64_t ones = ~uint64_t{0};
    serial_.bus_write(0, bytes_of(ones));
    uint64_t all = 0;
    serial_.bus_read(0, writable_bytes_of(all));
    EXPECT_EQ(all >> 56, 0xff);  // scratch
    EXPECT_EQ(output_.text, "\xff");
}

TEST_F(SerialTest, FrozenItTakesInputAndDeliversItAfterwards) {
    out(UART_IER, UART_IER_RDI);
    serial_.freeze();
    serial_.freeze();
    EXPECT_EQ(serial_.console_input(as_bytes("a")), 1U);
    EXPECT_EQ(line_.take(), 0);
    EXPECT_EQ(in(UART_LSR)&UART_LSR_DR, 0);
    serial_.thaw();
    EXPECT_EQ(line_.take(), 1);
    EXPECT_EQ(read_all(), "a");
}

TEST_F(SerialTest, StateGoesToAnotherPort) {
    out(UART_IER, UART_IER_RDI);
    out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
    out(UART_SCR, 0x77);
    serial_.console_input(as_bytes("more than sixteen bytes of input"));
    serial_.freeze();
    const auto state = serial_.save_state();

    CountingLine line;
    TextOutput output;
    Serial other("serial0", line, output);
    other.freeze();
    ASSERT_TRUE(other.restore_state(state));
    EXPECT_EQ(other.save_state(), state);
    other.thaw();
    EXPECT_EQ(line.take(), 1);
    std::string text;
    uint8_t value = 0;
    while (other.bus_read(UART_LSR, writable_bytes_of(value)), (value & UART_LSR_DR) != 0) {
        other.bus_read(UART_RX, writable_bytes_of(value));
        text += static_cast<char>(value);
    }
    EXPECT_EQ(text, "more than sixteen bytes of input");
}

TEST_F(SerialTest, ImpossibleStatesAreRefused) {
    serial_.freeze();
    const auto before = serial_.save_state();
    const auto refused = [&](auto change) {
        Serial::State state;
        change(state);
        return !serial_.restore_state(encode_state(state)) && serial_.save_state() == before;
    };
    EXPECT_FALSE(refused([](Serial::State&) {}));
    EXPECT_TRUE(refused([](Serial::State& s) { s.interrupt_enable = 0x10; }));
    EXPECT_TRUE(refused([](Serial::State& s) { s.modem_control = 0x20; }));
    EXPECT_TRUE(refused([](Serial::State& s) { s.modem_changes = 0x10; }));
    EXPECT_TRUE(refused([](Serial::State& s) { s.fifo_control = 0x40; }));
    EXPECT_TRUE(refused([](Serial::State& s) { s.received.resize(2); }));
    EXPECT_TRUE(refused([](Serial::State& s) {
        s.fifo_control = 1;
        s.received.resize(17);
    }));
    EXPECT_TRUE(refused([](Serial::State& s) { s.backlog.resize(Serial::kBacklogSize + 1); }));
    EXPECT_FALSE(serial_.restore_state(std::vector<std::byte>(5)));
}

TEST_F(SerialTest, SeveralThreadsMayUseIt) {
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    std::jthread reader([&] {
        for (int i = 0; i < 2000; ++i) {
            in(UART_RX);
            in(UART_IIR);
        }
    });
    std::jthread typist([&] {
        for (int i = 0; i < 2000; ++i) {
            serial_.console_input(as_bytes("x"));
        }
    });
    for (int i = 0; i < 2000; ++i) {
        out(UART_TX, '.');
    }
    EXPECT_EQ(output_.text.size(), 2000U);
}

class SerialFixture final : public test::SuspendableFixture {
 public:
    Suspendable& part() override { return serial_; }
    bool change() override {
        out(UART_SCR, ++changes_);
        out(UART_FCR, UART_FCR_ENABLE_FIFO);
        out(UART_IER, UART_IER_RDI | UART_IER_THRI);
        return serial_.console_input(as_bytes("twenty bytes of input")) > 0;
    }
    void use() override {
        for (uint64_t offset = 0; offset < Serial::kPortCount; ++offset) {
            uint8_t value = 0;
            serial_.bus_read(offset, writable_bytes_of(value));
        }
        out(UART_TX, 'x');
        serial_.console_input(as_bytes("x"));
    }

 private:
    void out(uint64_t offset, uint8_t value) { serial_.bus_write(offset, bytes_of(value)); }
    CountingLine line_;
    TextOutput output_;
    Serial serial_{"serial0", line_, output_};
    uint8_t changes_ = 0;
};

IVMM_SUSPENDABLE_CONFORMANCE(Serial, [] { return std::make_unique<SerialFixture>(); });

}  // namespace
}  // namespace ivmm
