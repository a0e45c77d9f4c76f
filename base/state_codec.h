#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

/// How a plain `State` struct becomes bytes and comes back.
///
/// A State names its format's version and lists its fields once:
///
///     struct State {
///         static constexpr uint32_t kVersion = 1;
///         uint16_t size = 0;
///         std::vector<uint8_t> fifo;
///         bool operator==(const State&) const = default;
///         template <class Visitor, class Self>
///         static void fields(Visitor& visit, Self& self) { visit(self.size, self.fifo); }
///     };
///
/// Fields may be integers, enums, bool, trivially copyable kernel structs marked with
/// `StatePod`, arrays, vectors, strings, optionals, and other States. Bytes are little-endian,
/// without padding; each State is preceded by its version and followed by nothing, so a decoder
/// refuses what is too short, too long or of another version. Decoding checks the *format*;
/// whether the values make sense is for the restore() of their owner to check.
namespace ivmm {

/// Opt-in for structs without padding or pointers that are stored as they lie in memory
/// (the structs of the KVM interface).
template <class T>
inline constexpr bool kStatePod = false;

template <class T>
concept StateStruct = requires {
    { T::kVersion } -> std::convertible_to<uint32_t>;
};

/// No list in a State may be longer than this many bytes.
inline constexpr uint64_t kStateListLimit = uint64_t{16} << 20;

class StateWriter {
 public:
    template <class... Fields>
    void operator()(const Fields&... fields) {
        (put(fields), ...);
    }
    const std::vector<std::byte>& bytes() const { return bytes_; }
    std::vector<std::byte> take() { return std::move(bytes_); }

 private:
    void raw(ConstByteSpan bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

    template <class T>
    void put(const T& value) {
        if constexpr (std::is_same_v<T, bool>) {
            put(static_cast<uint8_t>(value));
        } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> || kStatePod<T>) {
            raw(bytes_of(value));
        } else {
            static_assert(StateStruct<T>, "a State field must be a State itself");
            put(T::kVersion);
            T::fields(*this, value);
        }
    }
    template <class T, size_t N>
    void put(const std::array<T, N>& values) {
        for (const auto& value : values) {
            put(value);
        }
    }
    template <class T>
    void put(const std::vector<T>& values) {
        put(static_cast<uint64_t>(values.size()));
        for (const auto& value : values) {
            put(value);
        }
    }
    void put(const std::string& text) {
        put(static_cast<uint64_t>(text.size()));
        raw(std::as_bytes(std::span(text)));
    }
    template <class T>
    void put(const std::optional<T>& value) {
        put(value.has_value());
        if (value) {
            put(*value);
        }
    }

    std::vector<std::byte> bytes_;
};

/// Reads what a StateWriter wrote. After the first mistake every further read does nothing, and
/// finish() tells.
class StateReader {
 public:
    explicit StateReader(ConstByteSpan bytes) : rest_(bytes) {}

    template <class... Fields>
    void operator()(Fields&... fields) {
        (get(fields), ...);
    }

    /// Success when everything was read, nothing is left and nothing was wrong.
    Result<void> finish() const {
        if (!error_.empty()) {
            return fail("{}", error_);
        }
        if (!rest_.empty()) {
            return fail("{} bytes too many", rest_.size());
        }
        return {};
    }

 private:
    void refuse(std::string reason) {
        if (error_.empty()) {
            error_ = std::move(reason);
            rest_ = {};
        }
    }
    bool raw(ByteSpan out) {
        if (out.size() > rest_.size()) {
            refuse("truncated");
            return false;
        }
        std::copy_n(rest_.begin(), out.size(), out.begin());
        rest_ = rest_.subspan(out.size());
        return true;
    }

    template <class T>
    void get(T& value) {
        if constexpr (std::is_same_v<T, bool>) {
            uint8_t byte = 0;
            get(byte);
            if (byte > 1) {
                refuse(fmt::format("{} is not a boolean", byte));
            }
            value = byte == 1;
        } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> || kStatePod<T>) {
            raw(writable_bytes_of(value));
        } else {
            static_assert(StateStruct<T>, "a State field must be a State itself");
            uint32_t version = 0;
            get(version);
            if (error_.empty() && version != T::kVersion) {
                refuse(fmt::format("format version {}, this ivmm reads version {}", version,
                                   T::kVersion));
                return;
            }
            T::fields(*this, value);
        }
    }
    template <class T, size_t N>
    void get(std::array<T, N>& values) {
        for (auto& value : values) {
            get(value);
        }
    }
    /// A length that the remaining bytes can hold; each element takes at least one byte.
    size_t length() {
        uint64_t n = 0;
        get(n);
        if (n > kStateListLimit || n > rest_.size()) {
            refuse(fmt::format("a list of {} elements does not fit", n));
            return 0;
        }
        return static_cast<size_t>(n);
    }
    template <class T>
    void get(std::vector<T>& values) {
        const size_t n = length();
        values.clear();
        for (size_t i = 0; i < n && error_.empty(); ++i) {
            get(values.emplace_back());
        }
    }
    void get(std::string& text) {
        text.resize(length());
        raw(std::as_writable_bytes(std::span(text)));
    }
    template <class T>
    void get(std::optional<T>& value) {
        bool present = false;
        get(present);
        value.reset();
        if (present && error_.empty()) {
            get(value.emplace());
        }
    }

    ConstByteSpan rest_;
    std::string error_;
};

template <StateStruct State>
std::vector<std::byte> encode_state(const State& state) {
    StateWriter writer;
    writer(state);
    return writer.take();
}

template <StateStruct State>
Result<State> decode_state(ConstByteSpan bytes) {
    StateReader reader(bytes);
    State state{};
    reader(state);
    IVMM_TRY(reader.finish());
    return state;
}

}  // namespace ivmm
