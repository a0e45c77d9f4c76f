#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

/// Writes the little ACPI Machine Language that describes a fixed machine (ACPI 6.3, 20). Each
/// function gives the bytes of one term, to be put together with join() and within others.
namespace ivmm::aml {

using Bytes = std::vector<std::byte>;

Bytes join(std::initializer_list<Bytes> parts);

Bytes integer(uint32_t value);
/// ASCII.
Bytes string(std::string_view text);
/// The compressed form of an id like "PNP0501" (19.3.4, "EISAID").
Bytes eisa_id(std::string_view id);
/// At most 255 elements.
Bytes package(std::initializer_list<Bytes> elements);

/// Names are one segment of four characters, padded with '_'; a leading '\' makes them absolute.
Bytes name(std::string_view name, const Bytes& value);
Bytes scope(std::string_view name, const Bytes& content);
Bytes device(std::string_view name, std::initializer_list<Bytes> content);

/// A _CRS value; resources: see below (6.4).
Bytes resource_template(std::initializer_list<Bytes> resources);
/// Memory, readable and writable.
Bytes memory32_fixed(uint32_t start, uint32_t size);
/// Ports, all 16 address bits decoded.
Bytes io_ports(uint16_t start, uint8_t size);
/// One global system interrupt: edge-triggered, active high, exclusive.
Bytes edge_interrupt(uint32_t gsi);

}  // namespace ivmm::aml
