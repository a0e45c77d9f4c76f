#include "vmm/evidence/exec_stack.h"

#include <algorithm>
#include <string_view>

namespace ivmm::evidence {
namespace {

constexpr size_t kTopZeroes = 8;

bool is_text(std::string_view text) {
    return std::ranges::all_of(text, [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte >= ' ' || byte == '\t' || byte == '\n';
    });
}

bool is_path(std::string_view text) {
    return (text.starts_with('/') || text.starts_with("./") || text.starts_with("../")) &&
           text.size() > 1 && is_text(text);
}

bool is_variable(std::string_view text) {
    const size_t end = text.find('=');
    if (end == text.npos || end == 0) {
        return false;
    }
    return std::ranges::all_of(text.substr(0, end), [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    });
}

/// The last text of `bytes`, which end with its zero; takes it off. Nothing: there is none.
std::optional<std::string_view> take_last(std::string_view* bytes) {
    if (bytes->size() < 2 || bytes->back() != '\0') {
        return std::nullopt;
    }
    const size_t zero = bytes->rfind('\0', bytes->size() - 2);
    const size_t begin = zero == bytes->npos ? 0 : zero + 1;
    const std::string_view text = bytes->substr(begin, bytes->size() - 1 - begin);
    if (text.empty() || !is_text(text)) {
        return std::nullopt;
    }
    bytes->remove_suffix(bytes->size() - begin);
    return text;
}

}  // namespace

std::optional<StartedProgram> find_started_program(ConstByteSpan page) {
    std::string_view bytes(reinterpret_cast<const char*>(page.data()), page.size());
    if (bytes.size() <= kTopZeroes ||
        bytes.substr(bytes.size() - kTopZeroes) != std::string_view("\0\0\0\0\0\0\0\0", 8)) {
        return std::nullopt;
    }
    bytes.remove_suffix(kTopZeroes);
    const auto file = take_last(&bytes);
    if (!file || !is_path(*file)) {
        return std::nullopt;
    }
    StartedProgram program;
    program.file = *file;
    while (const auto text = take_last(&bytes)) {
        auto& list = program.arguments.empty() && is_variable(*text) ? program.environment
                                                                     : program.arguments;
        list.emplace_back(*text);
    }
    program.is_cut = bytes.empty();
    if (program.arguments.empty() && !program.is_cut) {
        return std::nullopt;  // a program has a name
    }
    std::ranges::reverse(program.arguments);
    std::ranges::reverse(program.environment);
    return program;
}

}  // namespace ivmm::evidence
