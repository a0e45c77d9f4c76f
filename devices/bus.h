#pragma once

#include <cstdint>
#include <map>

#include "base/bytes.h"
#include "base/result.h"

namespace ivmm {

/// What answers on a range of I/O ports or of device memory. Called on vCPU threads, several at
/// once; widths and offsets are the guest's choice, but always within the registered range.
class BusDevice {
 public:
    virtual ~BusDevice() = default;
    /// Fills all of `data`.
    virtual void bus_read(uint64_t offset, ByteSpan data) = 0;
    virtual void bus_write(uint64_t offset, ConstByteSpan data) = 0;
};

/// Routes accesses to devices. Filled before the first vCPU runs, unchanged afterwards, so that
/// lookups need no lock. Devices are not owned.
class Bus {
 public:
    /// Fails if the range is empty or meets another one.
    Result<void> add(uint64_t start, uint64_t size, BusDevice& device);

    /// An access that no device (or only a part of one) answers reads as ones, and writes nothing.
    void read(uint64_t address, ByteSpan data) const;
    void write(uint64_t address, ConstByteSpan data) const;

 private:
    struct Range {
        uint64_t start;
        uint64_t size;
        BusDevice* device;
    };
    const Range* find(uint64_t address, uint64_t size) const;
    std::map<uint64_t, Range> ranges_;  // by start
};

}  // namespace ivmm
