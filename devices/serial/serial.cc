#include "devices/serial/serial.h"

#include <linux/serial_reg.h>

#include <algorithm>

#include "base/state_codec.h"

namespace ivmm {

namespace {

constexpr uint8_t kInterruptEnableBits =
    UART_IER_MSI | UART_IER_RLSI | UART_IER_THRI | UART_IER_RDI;
constexpr uint8_t kModemControlBits =
    UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_OUT1 | UART_MCR_RTS | UART_MCR_DTR;
/// What of the FIFO control register is remembered.
constexpr uint8_t kFifoControlBits = UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK;
constexpr uint8_t kIdentificationFifos = 0xc0;

constexpr uint8_t narrow(unsigned value) {
    return static_cast<uint8_t>(value);
}

}  // namespace

Serial::Serial(std::string name, InterruptLine& interrupt, ConsoleOutput& output)
    : name_(std::move(name)), interrupt_(interrupt), output_(output) {}

void Serial::bus_read(uint64_t offset, ByteSpan data) {
    const std::scoped_lock lock(mutex_);
    for (std::byte& byte : data) {
        byte = std::byte{read_register(offset++)};
    }
}

void Serial::bus_write(uint64_t offset, ConstByteSpan data) {
    const std::scoped_lock lock(mutex_);
    for (const std::byte byte : data) {
        write_register(offset++, std::to_integer<uint8_t>(byte));
    }
}

size_t Serial::console_input(ConstByteSpan bytes) {
    const std::scoped_lock lock(mutex_);
    const size_t n = std::min(bytes.size(), kBacklogSize - backlog_.size());
    for (const std::byte byte : bytes.first(n)) {
        backlog_.push_back(std::to_integer<uint8_t>(byte));
    }
    const uint8_t before = conditions();
    refill();
    interrupt_unless(before);
    return n;
}

uint8_t Serial::read_register(uint64_t offset) {
    switch (offset) {
        case UART_RX:
            return divisor_latched() ? narrow(divisor_ & 0xffU) : read_received();
        case UART_IER:
            return divisor_latched() ? narrow(divisor_ >> 8U) : interrupt_enable_;
        case UART_IIR:
            return read_interrupt_identification();
        case UART_LCR:
            return line_control_;
        case UART_MCR:
            return modem_control_;
        case UART_LSR:
            return read_line_status();
        case UART_MSR:
            return narrow(modem_lines() | std::exchange(modem_changes_, uint8_t{0}));
        case UART_SCR:
            return scratch_;
        default:
            return 0xff;
    }
}

void Serial::write_register(uint64_t offset, uint8_t value) {
    switch (offset) {
        case UART_TX:
            if (divisor_latched()) {
                divisor_ = static_cast<uint16_t>((divisor_ & 0xff00U) | value);
            } else {
                transmit(value);
            }
            break;
        case UART_IER:
            if (divisor_latched()) {
                divisor_ = static_cast<uint16_t>((divisor_ & 0x00ffU) | (unsigned{value} << 8U));
            } else {
                write_interrupt_enable(value);
            }
            break;
        case UART_FCR:
            write_fifo_control(value);
            break;
        case UART_LCR:
            line_control_ = value;
            break;
        case UART_MCR:
            write_modem_control(value);
            break;
        case UART_SCR:
            scratch_ = value;
            break;
        default:
            break;  // the status registers
    }
}

uint8_t Serial::read_received() {
    if (received_.empty()) {
        return 0;
    }
    const uint8_t value = received_.front();
    received_.pop_front();
    const uint8_t before = conditions();
    refill();
    interrupt_unless(before);
    return value;
}

uint8_t Serial::read_interrupt_identification() {
    const uint8_t fifos = fifo_enabled() ? kIdentificationFifos : 0;
    const uint8_t pending = conditions();
    if ((pending & UART_IER_RLSI) != 0) {
        return fifos | UART_IIR_RLSI;
    }
    if ((pending & UART_IER_RDI) != 0) {
        const bool timeout = received_.size() < receive_trigger_level();
        return narrow(fifos | (timeout ? UART_IIR_RX_TIMEOUT : UART_IIR_RDI));
    }
    if ((pending & UART_IER_THRI) != 0) {
        transmitter_empty_event_ = false;
        return fifos | UART_IIR_THRI;
    }
    if ((pending & UART_IER_MSI) != 0) {
        return fifos | UART_IIR_MSI;
    }
    return fifos | UART_IIR_NO_INT;
}

uint8_t Serial::read_line_status() {
    unsigned status = UART_LSR_TEMT | UART_LSR_THRE;
    status |= received_.empty() ? 0U : UART_LSR_DR;
    status |= std::exchange(overrun_, false) ? UART_LSR_OE : 0U;
    return narrow(status);
}

void Serial::transmit(uint8_t value) {
    // The byte fills the transmitter and leaves it at once: a new event, even if the guest has not
    // looked at the last one.
    transmitter_empty_event_ = false;
    const uint8_t before = conditions();
    if (!loopback()) {
        output_.console_output(bytes_of(value));
    } else if (received_.size() < receive_capacity()) {
        received_.push_back(value);
    } else {
        overrun_ = true;
    }
    transmitter_empty_event_ = true;
    interrupt_unless(before);
}

void Serial::write_interrupt_enable(uint8_t value) {
    const uint8_t before = conditions();
    if ((value & ~interrupt_enable_ & UART_IER_THRI) != 0) {
        // Drivers start to transmit by enabling the interrupt, and expect it at once.
        transmitter_empty_event_ = true;
    }
    interrupt_enable_ = value & kInterruptEnableBits;
    interrupt_unless(before);
}

void Serial::write_fifo_control(uint8_t value) {
    const bool enable = (value & UART_FCR_ENABLE_FIFO) != 0;
    if (enable != fifo_enabled() || (value & UART_FCR_CLEAR_RCVR) != 0) {
        received_.clear();
    }
    const uint8_t before = conditions();
    fifo_control_ = enable ? narrow(value & kFifoControlBits) : 0;
    refill();
    interrupt_unless(before);
}

void Serial::write_modem_control(uint8_t value) {
    const uint8_t before = conditions();
    const uint8_t lines = modem_lines();
    modem_control_ = value & kModemControlBits;
    const unsigned changed = lines ^ modem_lines();
    modem_changes_ |= narrow((changed & UART_MSR_CTS) != 0 ? UART_MSR_DCTS : 0);
    modem_changes_ |= narrow((changed & UART_MSR_DSR) != 0 ? UART_MSR_DDSR : 0);
    modem_changes_ |= narrow((changed & lines & UART_MSR_RI) != 0 ? UART_MSR_TERI : 0);
    modem_changes_ |= narrow((changed & UART_MSR_DCD) != 0 ? UART_MSR_DDCD : 0);
    refill();
    interrupt_unless(before);
}

bool Serial::divisor_latched() const {
    return (line_control_ & UART_LCR_DLAB) != 0;
}

bool Serial::loopback() const {
    return (modem_control_ & UART_MCR_LOOP) != 0;
}

bool Serial::fifo_enabled() const {
    return (fifo_control_ & UART_FCR_ENABLE_FIFO) != 0;
}

size_t Serial::receive_trigger_level() const {
    if (!fifo_enabled()) {
        return 1;
    }
    switch (fifo_control_ & UART_FCR_TRIGGER_MASK) {
        case UART_FCR_TRIGGER_1:
            return 1;
        case UART_FCR_TRIGGER_4:
            return 4;
        case UART_FCR_TRIGGER_8:
            return 8;
        default:
            return 14;
    }
}

uint8_t Serial::modem_lines() const {
    if (!loopback()) {
        return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
    }
    unsigned lines = 0;
    lines |= (modem_control_ & UART_MCR_RTS) != 0 ? UART_MSR_CTS : 0U;
    lines |= (modem_control_ & UART_MCR_DTR) != 0 ? UART_MSR_DSR : 0U;
    lines |= (modem_control_ & UART_MCR_OUT1) != 0 ? UART_MSR_RI : 0U;
    lines |= (modem_control_ & UART_MCR_OUT2) != 0 ? UART_MSR_DCD : 0U;
    return narrow(lines);
}

void Serial::refill() {
    // In loopback the receiver hears the transmitter only.
    while (!frozen_ && !loopback() && !backlog_.empty() && received_.size() < receive_capacity()) {
        received_.push_back(backlog_.front());
        backlog_.pop_front();
    }
}

uint8_t Serial::conditions() const {
    unsigned all = 0;
    all |= received_.empty() ? 0U : UART_IER_RDI;
    all |= transmitter_empty_event_ ? UART_IER_THRI : 0U;
    all |= overrun_ ? UART_IER_RLSI : 0U;
    all |= modem_changes_ == 0 ? 0U : UART_IER_MSI;
    return narrow(all & interrupt_enable_);
}

void Serial::interrupt_unless(uint8_t before) {
    if ((conditions() & ~before) != 0) {
        interrupt_.trigger();
    }
}

void Serial::freeze() {
    const std::scoped_lock lock(mutex_);
    frozen_ = true;
}

void Serial::thaw() {
    const std::scoped_lock lock(mutex_);
    if (!frozen_) {
        return;
    }
    frozen_ = false;
    refill();
    // After a restore nobody knows whether the interrupt was delivered. One too many is harmless.
    interrupt_unless(0);
}

std::vector<std::byte> Serial::save_state() const {
    const std::scoped_lock lock(mutex_);
    State state;
    state.interrupt_enable = interrupt_enable_;
    state.fifo_control = fifo_control_;
    state.line_control = line_control_;
    state.modem_control = modem_control_;
    state.scratch = scratch_;
    state.divisor = divisor_;
    state.overrun = overrun_;
    state.transmitter_empty_event = transmitter_empty_event_;
    state.modem_changes = modem_changes_;
    state.received.assign(received_.begin(), received_.end());
    state.backlog.assign(backlog_.begin(), backlog_.end());
    return encode_state(state);
}

Result<void> Serial::restore_state(ConstByteSpan bytes) {
    IVMM_ASSIGN(const auto state, decode_state<State>(bytes));
    const bool fifo = (state.fifo_control & UART_FCR_ENABLE_FIFO) != 0;
    if ((state.interrupt_enable & ~kInterruptEnableBits) != 0 ||
        (state.modem_control & ~kModemControlBits) != 0 ||
        (state.fifo_control & ~(fifo ? kFifoControlBits : 0)) != 0 ||
        (state.modem_changes & ~UART_MSR_ANY_DELTA) != 0) {
        return fail("a register of the serial port has an impossible value");
    }
    if (state.received.size() > (fifo ? kFifoSize : 1) || state.backlog.size() > kBacklogSize) {
        return fail("the serial port has received more than it can hold");
    }
    const std::scoped_lock lock(mutex_);
    interrupt_enable_ = state.interrupt_enable;
    fifo_control_ = state.fifo_control;
    line_control_ = state.line_control;
    modem_control_ = state.modem_control;
    scratch_ = state.scratch;
    divisor_ = state.divisor;
    overrun_ = state.overrun;
    transmitter_empty_event_ = state.transmitter_empty_event;
    modem_changes_ = state.modem_changes;
    received_.assign(state.received.begin(), state.received.end());
    backlog_.assign(state.backlog.begin(), state.backlog.end());
    return {};
}

}  // namespace ivmm
