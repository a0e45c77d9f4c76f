#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "storage/block/block_file.h"
#include "storage/block/file_io.h"
#include "tests/support/temp_dir.h"

namespace ivmm::test {

using Bytes = std::vector<std::byte>;

inline Bytes pattern(size_t size, unsigned seed) {
    std::mt19937 random(seed);
    Bytes bytes(size);
    for (std::byte& b : bytes) {
        b = static_cast<std::byte>(random() % 255 + 1);  // never zero
    }
    return bytes;
}

inline Bytes read_all(const storage::BlockFile& file) {
    Bytes bytes(file.size() + 1);
    const auto n = file.read(0, bytes);
    EXPECT_TRUE(n);
    bytes.resize(n ? *n : 0);
    return bytes;
}

/// The files of a chain of parts in a folder: NAME.data and NAME.map.
class BlockParts {
 public:
    using File = std::shared_ptr<storage::BlockFile>;

    explicit BlockParts(std::string folder = "") : folder_(std::move(folder)) {
        if (folder_.empty()) {
            folder_ = own_.path();
        }
    }

    std::string data_path(const std::string& name) const { return folder_ + "/" + name + ".data"; }
    std::string map_path(const std::string& name) const { return folder_ + "/" + name + ".map"; }

    File bottom(const Bytes& content, const std::string& name = "bottom") const {
        UniqueFd fd(::open(data_path(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        EXPECT_TRUE(storage::write_at(fd.get(), 0, content));
        auto file = storage::BlockFile::bottom(std::move(fd));
        EXPECT_TRUE(file);
        return *std::move(file);
    }
    storage::BlockFile::Part files(const std::string& name, int flags) const {
        const auto open = [&](const std::string& path) {
            return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
        };
        storage::BlockFile::Part part{open(data_path(name)), open(map_path(name))};
        EXPECT_TRUE(part.data && part.map);
        return part;
    }
    File add(const std::shared_ptr<const storage::BlockFile>& lower,
             const std::string& name) const {
        const auto part = files(name, O_RDWR | O_CREAT | O_EXCL);
        EXPECT_TRUE(storage::BlockFile::create_part(part, lower->size()));
        return open(lower, name);
    }
    Result<File> try_open(const std::shared_ptr<const storage::BlockFile>& lower,
                          const std::string& name, bool writable = true) const {
        return storage::BlockFile::open(lower, files(name, writable ? O_RDWR : O_RDONLY), writable);
    }
    File open(const std::shared_ptr<const storage::BlockFile>& lower, const std::string& name,
              bool writable = true) const {
        auto file = try_open(lower, name, writable);
        EXPECT_TRUE(file) << (file ? "" : file.error().message);
        return file ? *std::move(file) : nullptr;
    }
    /// What a crash would leave, if everything written so far has reached the medium.
    void copy(const std::string& from, const std::string& to) const {
        using std::filesystem::copy_options;
        std::filesystem::copy_file(data_path(from), data_path(to),
                                   copy_options::overwrite_existing);
        std::filesystem::copy_file(map_path(from), map_path(to), copy_options::overwrite_existing);
    }

 private:
    TempDir own_;
    std::string folder_;
};

}  // namespace ivmm::test
