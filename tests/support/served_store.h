#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/layer/store.h"
#include "storage/union/view.h"
#include "tests/support/temp_dir.h"

namespace ivmm::test {

/// A store over one lower branch, with a view "main" that is served in this process, without a
/// mount. Paths are absolute in the view; failures are failures of the test.
class ServedStore {
 public:
    ServedStore() { std::filesystem::create_directory(lower()); }
    ServedStore(const ServedStore&) = delete;
    ServedStore& operator=(const ServedStore&) = delete;
    ~ServedStore() { stop(); }

    std::string lower() const { return dir_.path() + "/lower"; }
    std::string path() const { return dir_.path() + "/store"; }
    /// For more files.
    std::string folder() const { return dir_.path(); }
    std::string layer_path(uint32_t number) const {
        return fmt::format("{}/layers/{}", path(), number);
    }
    /// Writes a file of the lower branch, which must not be in use yet.
    void lower_file(const std::string& name, std::string_view content) const {
        std::filesystem::create_directories(
            std::filesystem::path(lower() + "/" + name).parent_path());
        std::ofstream(lower() + "/" + name) << content;
    }

    void serve(const std::string& name = "main") {
        auto store = storage::Store::open_or_create(path(), {lower()});
        ASSERT_TRUE(store) << store.error().message;
        store_ = *std::move(store);
        auto attached = store_->attach(name, true);
        ASSERT_TRUE(attached) << attached.error().message;
        attached_.emplace(*std::move(attached));
        view_ = std::make_unique<storage::View>(attached_->stack, true);
    }
    /// Without it, others do not see what was written to block files since the last fork.
    void flush() { EXPECT_TRUE(view_->stack().front()->flush_block_files()); }
    /// As a server that ends; `flush` as one that is not killed.
    void stop(bool flush = true) {
        if (view_ && flush) {
            this->flush();
        }
        view_.reset();
        attached_.reset();
        store_.reset();
    }
    storage::Store& store() { return *store_; }
    storage::View& view() { return *view_; }
    uint32_t top() const { return view_->stack().front()->number(); }

    /// Forks the view; gives the number of the frozen layer, which is sealed then.
    uint32_t fork(const std::vector<std::string>& names) {
        const auto frozen = view_->stack().front();
        const auto prepared = store_->prepare(attached_->lock, names.size() + 1);
        EXPECT_TRUE(prepared);
        const auto forked = view_->fork(
            prepared->layers.front(), {prepared->layers.begin() + 1, prepared->layers.end()},
            [&]() -> Result<void> {
                IVMM_TRY(store_->commit(attached_->lock, *prepared, names));
                return {};
            });
        EXPECT_TRUE(forked) << forked.error().message;
        EXPECT_TRUE(frozen->flush_block_files());
        EXPECT_TRUE(store_->seal(*frozen));
        frozen->set_sealed({});
        attached_->stack = view_->stack();
        return frozen->number();
    }

    /// Null: there is no such thing.
    storage::Inode* find(std::string_view path) {
        storage::Inode* at = &view_->root();
        while (at != nullptr && !path.empty()) {
            const size_t slash = path.find('/');
            const std::string name(path.substr(0, slash));
            path.remove_prefix(slash == path.npos ? path.size() : slash + 1);
            if (!name.empty()) {
                const auto entry = view_->lookup(*at, name);
                at = entry ? entry->inode : nullptr;
            }
        }
        return at;
    }
    storage::Inode& at(std::string_view path) {
        storage::Inode* const inode = find(path);
        EXPECT_NE(inode, nullptr) << path;
        return inode != nullptr ? *inode : view_->root();
    }
    storage::Inode& parent_of(const std::string& path) {
        return at(std::filesystem::path(path).parent_path().string());
    }
    static std::string name_of(const std::string& path) {
        return std::filesystem::path(path).filename();
    }

    void make_directory(const std::string& path) {
        EXPECT_TRUE(view_->make_directory(parent_of(path), name_of(path), S_IFDIR | 0755, {}));
    }
    void make_file(const std::string& path, std::string_view content) {
        EXPECT_TRUE(view_->make_node(parent_of(path), name_of(path), S_IFREG | 0644, 0, {}));
        write(path, 0, content);
    }
    void make_symlink(const std::string& path, const std::string& target) {
        EXPECT_TRUE(view_->make_symlink(parent_of(path), name_of(path), target, {}));
    }
    void link(const std::string& from, const std::string& to) {
        EXPECT_TRUE(view_->make_link(at(from), parent_of(to), name_of(to)));
    }
    void unlink(const std::string& path) {
        EXPECT_TRUE(view_->unlink(parent_of(path), name_of(path)));
    }
    void rename(const std::string& from, const std::string& to) {
        EXPECT_TRUE(view_->rename(parent_of(from), name_of(from), parent_of(to), name_of(to), 0));
    }
    void write(const std::string& path, uint64_t offset, std::string_view content) {
        storage::Inode& inode = at(path);
        ASSERT_TRUE(view_->open(inode, O_RDWR));
        EXPECT_TRUE(view_->write(inode, offset, std::as_bytes(std::span(content))));
        view_->close(inode);
    }
    void truncate(const std::string& path, uint64_t size) {
        storage::AttributeChange change;
        change.size = size;
        EXPECT_TRUE(view_->set_attributes(at(path), change));
    }
    void change_mode(const std::string& path, mode_t mode) {
        storage::AttributeChange change;
        change.mode = mode;
        EXPECT_TRUE(view_->set_attributes(at(path), change));
    }
    /// None: it cannot be read.
    std::optional<std::string> read(const std::string& path) {
        storage::Inode& inode = at(path);
        const auto attributes = view_->attributes(inode);
        if (!attributes || !view_->open(inode, O_RDONLY)) {
            return std::nullopt;
        }
        std::string content(static_cast<size_t>(attributes->st_size), '\0');
        const auto n = view_->read(inode, 0, std::as_writable_bytes(std::span(content)));
        view_->close(inode);
        EXPECT_TRUE(n && *n == content.size()) << path;
        return content;
    }

 private:
    TempDir dir_;
    std::shared_ptr<storage::Store> store_;
    std::optional<storage::Store::Attached> attached_;
    std::unique_ptr<storage::View> view_;
};

}  // namespace ivmm::test
