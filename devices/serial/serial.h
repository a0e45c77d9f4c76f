#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "devices/bus.h"
#include "devices/console_port.h"
#include "devices/interrupt_line.h"
#include "devices/suspendable.h"

namespace ivmm {

/// A 16550A UART on eight I/O ports, as in its data sheet (National Semiconductor PC16550D), with
/// these freedoms: bytes take no time on the line; a receive timeout has passed as soon as there
/// is data below the trigger level; what is typed faster than the guest reads waits in a backlog
/// instead of being overrun; the modem is always ready.
///
/// Any thread may use the ports and the input. Freeze, state and thaw as in Suspendable.
class Serial final : public BusDevice, public ConsoleInput, public Suspendable {
 public:
    static constexpr uint64_t kPortCount = 8;
    static constexpr size_t kFifoSize = 16;
    static constexpr size_t kBacklogSize = size_t{16} << 10;

    struct State {
        static constexpr uint32_t kVersion = 1;
        uint8_t interrupt_enable = 0;
        uint8_t fifo_control = 0;
        uint8_t line_control = 0;
        uint8_t modem_control = 0;
        uint8_t scratch = 0;
        uint16_t divisor = 1;
        bool overrun = false;
        bool transmitter_empty_event = false;
        uint8_t modem_changes = 0;
        std::vector<uint8_t> received;
        std::vector<uint8_t> backlog;

        bool operator==(const State&) const = default;
        template <class Visitor, class Self>
        static void fields(Visitor& visit, Self& self) {
            visit(self.interrupt_enable, self.fifo_control, self.line_control, self.modem_control,
                  self.scratch, self.divisor, self.overrun, self.transmitter_empty_event,
                  self.modem_changes, self.received, self.backlog);
        }
    };

    /// `name`: the state_id, e.g. "serial0". `interrupt` and `output` must outlive the device.
    Serial(std::string name, InterruptLine& interrupt, ConsoleOutput& output);

    /// An access that is wider than a byte goes to the following registers too.
    void bus_read(uint64_t offset, ByteSpan data) override;
    void bus_write(uint64_t offset, ConstByteSpan data) override;

    size_t console_input(ConstByteSpan bytes) override;

    std::string state_id() const override { return name_; }
    void freeze() override;
    void thaw() override;
    std::vector<std::byte> save_state() const override;
    Result<void> restore_state(ConstByteSpan bytes) override;

 private:
    // All below: with mutex_ held.
    uint8_t read_register(uint64_t offset);
    void write_register(uint64_t offset, uint8_t value);
    uint8_t read_received();
    uint8_t read_interrupt_identification();
    uint8_t read_line_status();
    void transmit(uint8_t value);
    void write_interrupt_enable(uint8_t value);
    void write_fifo_control(uint8_t value);
    void write_modem_control(uint8_t value);

    bool divisor_latched() const;
    bool loopback() const;
    bool fifo_enabled() const;
    size_t receive_capacity() const { return fifo_enabled() ? kFifoSize : 1; }
    size_t receive_trigger_level() const;
    uint8_t modem_lines() const;
    /// Moves what waits in the backlog to where the guest can read it.
    void refill();
    /// The conditions that ask for an interrupt, as a set of bits of the interrupt enable register.
    uint8_t conditions() const;
    /// Interrupts the guest if there is a condition that is not in `before`.
    void interrupt_unless(uint8_t before);

    const std::string name_;
    InterruptLine& interrupt_;
    ConsoleOutput& output_;

    mutable std::mutex mutex_;  // guards what follows; the output is called while it is held
    bool frozen_ = false;
    uint8_t interrupt_enable_ = 0;
    uint8_t fifo_control_ = 0;
    uint8_t line_control_ = 0;
    uint8_t modem_control_ = 0;
    uint8_t scratch_ = 0;
    uint16_t divisor_ = 1;
    bool overrun_ = false;
    /// The transmitter has become empty and the guest has not been told yet.
    bool transmitter_empty_event_ = false;
    uint8_t modem_changes_ = 0;
    std::deque<uint8_t> received_;
    std::deque<uint8_t> backlog_;
};

}  // namespace ivmm
