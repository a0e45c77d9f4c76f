#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <random>

#include "devices/blk/uring_disk.h"
#include "devices/blk/virtio_blk.h"
#include "tests/support/fake_driver.h"

namespace ivmm::virtio {
namespace {

using test::Arena;
using test::FakeDevicePort;
using test::run_until;

constexpr uint64_t kSector = 512;
constexpr uint64_t kDiskBytes = uint64_t{1} << 20;
constexpr uint64_t kFeatures =
    kFeatureVersion1 | kFeatureIndirect | kFeatureEventIdx | uint64_t{1} << VIRTIO_BLK_F_FLUSH |
    uint64_t{1} << VIRTIO_BLK_F_DISCARD | uint64_t{1} << VIRTIO_BLK_F_WRITE_ZEROES;

/// A temporary directory with a disk image in it.
class DiskDirectory {
 public:
    DiskDirectory() {
        auto name = (std::filesystem::temp_directory_path() / "ivmm-blk-XXXXXX").string();
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        path_ = name;
        std::filesystem::resize_file(touch("disk"), kDiskBytes);
    }
    ~DiskDirectory() { std::filesystem::remove_all(path_); }
    DiskDirectory(const DiskDirectory&) = delete;
    DiskDirectory& operator=(const DiskDirectory&) = delete;

    std::string touch(const char* name) const {
        std::ofstream(path_ / name).flush();
        return path_ / name;
    }
    std::string path() const { return path_; }
    std::string disk() const { return path_ / "disk"; }
    std::vector<char> content(uint64_t offset, size_t length) const {
        std::vector<char> bytes(length);
        std::ifstream file(disk(), std::ios::binary);
        file.seekg(static_cast<std::streamoff>(offset));
        file.read(bytes.data(), static_cast<std::streamsize>(length));
        bytes.resize(static_cast<size_t>(file.gcount()));
        return bytes;
    }

 private:
    std::filesystem::path path_;
};

/// Completes when the test says so.
class ManualDisk final : public BlockBackend {
 public:
    std::string_view name() const override { return "manual"; }
    uint64_t size() const override { return kDiskBytes; }
    bool read_only() const override { return false; }
    bool can_discard() const override { return true; }
    bool can_write_zeroes() const override { return true; }
    size_t capacity() const override { return 4; }
    void submit(Request request) override {
        ASSERT_LT(submitted.size() + pending.size(), capacity());
        submitted.push_back(std::move(request));
    }
    void commit() override {
        std::move(submitted.begin(), submitted.end(), std::back_inserter(pending));
        submitted.clear();
    }
    int completion_fd() const override { return event.fd(); }
    void poll(std::vector<Completion>& out) override {
        event.drain();
        out.insert(out.end(), completed.begin(), completed.end());
        completed.clear();
    }
    void wait(std::vector<Completion>& out) override {
        commit();
        ++waits;
        complete_all(0);
        poll(out);
    }

    void complete(size_t index, int error) {
        completed.push_back({pending.at(index).token, error});
        pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(index));
        event.signal();
    }
    void complete_all(int error) {
        while (!pending.empty()) {
            complete(0, error);
        }
    }

    std::vector<Request> submitted;
    std::deque<Request> pending;
    std::vector<Completion> completed;
    EventFd event = *EventFd::create();
    int waits = 0;
};

struct Header {
    uint32_t type;
    uint32_t priority;
    uint64_t sector;
};
struct Range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

class VirtioBlkTest : public ::testing::Test {
 protected:
    void start(std::unique_ptr<BlockBackend> backend, uint64_t features = kFeatures,
               uint16_t queues = 1) {
        auto made = VirtioBlk::create(*loop_, *memory_, std::move(backend), "serial-1", queues);
        ASSERT_TRUE(made) << made.error().message;
        blk_ = *std::move(made);
        port_.emplace(*memory_, arena_, *blk_);
        port_->activate(features);
    }
    void start_file(bool read_only = false) {
        auto disk = UringDisk::open(directory_.disk(), read_only);
        ASSERT_TRUE(disk) << disk.error().message;
        start(*std::move(disk));
    }
    ManualDisk& start_manual(uint16_t queues = 1, uint64_t features = kFeatures) {
        auto disk = std::make_unique<ManualDisk>();
        ManualDisk& manual = *disk;
        start(std::move(disk), features, queues);
        return manual;
    }

    test::FakeQueue::ChainBuilder request(uint32_t type, uint64_t sector, uint16_t queue = 0) {
        auto builder = port_->queue(queue).chain();
        builder.readable(bytes_of(Header{type, 0, sector}));
        return builder;
    }
    /// Kicks, waits for one answer, and returns its status; `written` is the device's figure.
    int answer(uint32_t* written = nullptr) {
        port_->kick(0);
        std::optional<test::Used> used;
        EXPECT_TRUE(run_until(*loop_, [&] {
            used = port_->queue(0).take_used();
            return used.has_value();
        })) << "no answer";
        if (!used) {
            return -1;
        }
        if (written != nullptr) {
            *written = used->written;
        }
        last_ = port_->queue(0).writable_bytes(used->request);
        return last_.empty() ? -2 : static_cast<int>(last_.back());
    }
    int unmap(uint32_t type, Range range) {
        request(type, 0).readable(bytes_of(range)).writable(1).send();
        return answer();
    }

    DiskDirectory directory_;
    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(16 << 20);
    Arena arena_{*memory_, 0x1000, 8 << 20};
    std::unique_ptr<VirtioBlk> blk_;
    std::optional<FakeDevicePort> port_;
    std::vector<std::byte> last_;
};

TEST_F(VirtioBlkTest, WritesAndReadsBack) {
    start_file();
    std::string data(3 * kSector, 'x');
    data[0] = 'a';
    data[1000] = 'b';
    uint32_t written = 0;
    request(VIRTIO_BLK_T_OUT, 5)
        .readable(data.substr(0, 700))
        .readable(data.substr(700))
        .writable(1)
        .send();
    EXPECT_EQ(answer(&written), VIRTIO_BLK_S_OK);
    EXPECT_EQ(written, 1U);
    const auto on_disk = directory_.content(5 * kSector, data.size());
    EXPECT_EQ(std::string(on_disk.begin(), on_disk.end()), data);

    request(VIRTIO_BLK_T_IN, 5).writable(100).writable(3 * kSector - 100 + 1).indirect().send();
    EXPECT_EQ(answer(&written), VIRTIO_BLK_S_OK) << "the status in the last byte of the data's";
    EXPECT_EQ(written, 3 * kSector + 1);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), last_.begin(),
                           [](char a, std::byte b) { return static_cast<std::byte>(a) == b; }));
}

TEST_F(VirtioBlkTest, MarksWhatTheHostWrites) {
    start_file();
    constexpr Gpa kBuffer = 10 << 20;
    PageSet dirty(memory_->vmm_dirty().pages());
    memory_->vmm_dirty().collect(dirty);
    dirty.clear();
    request(VIRTIO_BLK_T_IN, 0).writable_at(kBuffer, 3 * kPageSize).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_OK);
    memory_->vmm_dirty().collect(dirty);
    const uint64_t page = kBuffer / kPageSize;
    EXPECT_EQ(dirty.words()[page / 64] >> (page % 64) & 0b1111, 0b0111U);
}

TEST_F(VirtioBlkTest, ManyRequestsAtOnce) {
    start_file();
    std::mt19937 random(3);
    std::vector<uint32_t> expected(kDiskBytes / kSector);
    for (int round = 0; round < 40; ++round) {
        int sent = 0;
        for (; sent < 16; ++sent) {
            const uint64_t sector = (static_cast<uint64_t>(sent) * 100) + random() % 100;
            expected[sector] = static_cast<uint32_t>(random());
            std::array<uint32_t, kSector / 4> block{};
            block.fill(expected[sector]);
            auto builder = request(VIRTIO_BLK_T_OUT, sector);
            builder.readable(bytes_of(block)).writable(1);
            builder.add();
        }
        port_->queue(0).publish();
        port_->kick(0);
        int received = 0;
        ASSERT_TRUE(run_until(*loop_, [&] {
            while (auto used = port_->queue(0).take_used()) {
                EXPECT_EQ(port_->queue(0).writable_bytes(used->request).back(), std::byte{0});
                ++received;
            }
            return received == sent;
        }));
    }
    const auto bytes = directory_.content(0, kDiskBytes);
    for (size_t sector = 0; sector < expected.size(); ++sector) {
        EXPECT_EQ(load_le(std::as_bytes(std::span(bytes).subspan(sector * kSector, 4))),
                  expected[sector]);
    }
}

TEST_F(VirtioBlkTest, FlushAndIdentity) {
    start_file();
    uint32_t written = 0;
    request(VIRTIO_BLK_T_FLUSH, 0).writable(1).send();
    EXPECT_EQ(answer(&written), VIRTIO_BLK_S_OK);
    EXPECT_EQ(written, 1U);
    request(VIRTIO_BLK_T_GET_ID, 0).writable(20).writable(1).send();
    EXPECT_EQ(answer(&written), VIRTIO_BLK_S_OK);
    EXPECT_EQ(written, 21U);
    last_.pop_back();
    const std::string id(reinterpret_cast<const char*>(last_.data()), last_.size());
    EXPECT_EQ(id, std::string("serial-1") + std::string(12, '\0'));
    request(VIRTIO_BLK_T_GET_ID, 0).writable(19).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
}

TEST_F(VirtioBlkTest, DiscardsAndWritesZeroes) {
    start_file();
    const std::string data(64 * kSector, 'x');
    for (const auto& [type, flags] : {std::pair<uint32_t, uint32_t>{VIRTIO_BLK_T_DISCARD, 0},
                                      {VIRTIO_BLK_T_WRITE_ZEROES, 0},
                                      {VIRTIO_BLK_T_WRITE_ZEROES, 1}}) {
        request(VIRTIO_BLK_T_OUT, 0).readable(data).writable(1).send();
        ASSERT_EQ(answer(), VIRTIO_BLK_S_OK);
        EXPECT_EQ(unmap(type, {8, 16, flags}), VIRTIO_BLK_S_OK);
        const auto bytes = directory_.content(0, data.size());
        const auto zero_from = bytes.begin() + 8 * kSector;
        const auto zero_to = bytes.begin() + 24 * kSector;
        EXPECT_TRUE(std::all_of(bytes.begin(), zero_from, [](char c) { return c == 'x'; }));
        EXPECT_TRUE(std::all_of(zero_to, bytes.end(), [](char c) { return c == 'x'; }));
        if (type == VIRTIO_BLK_T_WRITE_ZEROES) {
            EXPECT_TRUE(std::all_of(zero_from, zero_to, [](char c) { return c == 0; }));
        }
    }
    EXPECT_EQ(std::filesystem::file_size(directory_.disk()), kDiskBytes);
}

TEST_F(VirtioBlkTest, ChecksRangesOfUnmap) {
    start_file();
    constexpr uint64_t kSectors = kDiskBytes / kSector;
    for (const uint32_t type :
         {uint32_t{VIRTIO_BLK_T_DISCARD}, uint32_t{VIRTIO_BLK_T_WRITE_ZEROES}}) {
        EXPECT_EQ(unmap(type, {kSectors - 1, 1, 0}), VIRTIO_BLK_S_OK);
        EXPECT_EQ(unmap(type, {0, 0, 0}), VIRTIO_BLK_S_OK);
        EXPECT_EQ(unmap(type, {kSectors - 1, 2, 0}), VIRTIO_BLK_S_IOERR);
        EXPECT_EQ(unmap(type, {~uint64_t{0}, 1, 0}), VIRTIO_BLK_S_IOERR);
        EXPECT_EQ(unmap(type, {0, ~uint32_t{0}, 0}), VIRTIO_BLK_S_IOERR);
        EXPECT_EQ(unmap(type, {0, 1, 2}), VIRTIO_BLK_S_UNSUPP);
        request(type, 0).readable(bytes_of(Range{})).readable("more").writable(1).send();
        EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
        request(type, 0).readable("short").writable(1).send();
        EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
    }
    EXPECT_EQ(unmap(VIRTIO_BLK_T_DISCARD, {0, 1, 1}), VIRTIO_BLK_S_UNSUPP);
    // Not negotiated:
    port_->reset();
    port_->activate(kFeatureVersion1 | uint64_t{1} << VIRTIO_BLK_F_FLUSH);
    EXPECT_EQ(unmap(VIRTIO_BLK_T_DISCARD, {0, 1, 0}), VIRTIO_BLK_S_UNSUPP);
    EXPECT_EQ(unmap(VIRTIO_BLK_T_WRITE_ZEROES, {0, 1, 0}), VIRTIO_BLK_S_UNSUPP);
}

TEST_F(VirtioBlkTest, ChecksRangesOfTransfers) {
    start_file();
    constexpr uint64_t kSectors = kDiskBytes / kSector;
    const std::string sector(kSector, 'x');
    const auto read = [&](uint64_t at, uint32_t bytes) {
        request(VIRTIO_BLK_T_IN, at).writable(bytes).writable(1).send();
        return answer();
    };
    EXPECT_EQ(read(kSectors - 1, 512), VIRTIO_BLK_S_OK);
    EXPECT_EQ(read(kSectors - 1, 1024), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(read(kSectors, 512), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(read(~uint64_t{0}, 512), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(read(uint64_t{1} << 55, 512), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(read(0, 100), VIRTIO_BLK_S_IOERR);
    request(VIRTIO_BLK_T_IN, 0).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_OK) << "nothing to read";
    request(VIRTIO_BLK_T_OUT, kSectors).readable(sector).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
    request(VIRTIO_BLK_T_OUT, 0).readable("odd").writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(std::filesystem::file_size(directory_.disk()), kDiskBytes);
}

TEST_F(VirtioBlkTest, AnswersMalformedRequests) {
    start_file();
    request(77, 0).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_UNSUPP);
    port_->queue(0).chain().readable("short").writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
    port_->queue(0).chain().writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
    uint32_t written = 99;
    request(VIRTIO_BLK_T_FLUSH, 0).send();  // no place for a status
    EXPECT_EQ(answer(&written), -2);
    EXPECT_EQ(written, 0U);
    request(VIRTIO_BLK_T_IN, 0).send();
    EXPECT_EQ(answer(), -2);
    request(VIRTIO_BLK_T_FLUSH, 0).writable(5).send();  // room in front of the status
    EXPECT_EQ(answer(&written), VIRTIO_BLK_S_OK);
    EXPECT_EQ(written, 0U) << "the bytes in front of the status were not written";
    EXPECT_TRUE(port_->failure().empty());
}

TEST_F(VirtioBlkTest, ReadOnlyDiskRefusesWrites) {
    start_file(true);
    EXPECT_NE(blk_->offered_features() & uint64_t{1} << VIRTIO_BLK_F_RO, 0U);
    EXPECT_EQ(blk_->offered_features() & uint64_t{1} << VIRTIO_BLK_F_DISCARD, 0U);
    request(VIRTIO_BLK_T_OUT, 0).readable(std::string(kSector, 'x')).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(directory_.content(0, 1).front(), 0);
    request(VIRTIO_BLK_T_IN, 0).writable(kSector).writable(1).send();
    EXPECT_EQ(answer(), VIRTIO_BLK_S_OK);
}

TEST_F(VirtioBlkTest, DiskThatHasShrunkIsAnError) {
    start_file();
    std::filesystem::resize_file(directory_.disk(), kDiskBytes / 2 + 256);
    uint32_t written = 99;
    request(VIRTIO_BLK_T_IN, kDiskBytes / kSector / 2 - 1).writable(2 * kSector).writable(1).send();
    EXPECT_EQ(answer(&written), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(written, 0U);
}

TEST_F(VirtioBlkTest, ConfigurationSpace) {
    start_manual(4);
    virtio_blk_config config{};
    blk_->read_config(0, writable_bytes_of(config));
    EXPECT_EQ(config.capacity, kDiskBytes / kSector);
    EXPECT_EQ(config.num_queues, 4);
    EXPECT_EQ(config.blk_size, 512U);
    EXPECT_GT(config.seg_max, 100U);
    EXPECT_EQ(config.max_discard_seg, 1U);
    EXPECT_NE(blk_->offered_features() & uint64_t{1} << VIRTIO_BLK_F_MQ, 0U);
    EXPECT_EQ(blk_->queue_sizes().size(), 4U);
}

TEST_F(VirtioBlkTest, NeverMoreInFlightThanTheBackendHolds) {
    ManualDisk& disk = start_manual(2);
    for (uint16_t queue : {uint16_t{0}, uint16_t{1}}) {
        for (int i = 0; i < 10; ++i) {
            request(VIRTIO_BLK_T_IN, static_cast<uint64_t>(i), queue)
                .writable(kSector)
                .writable(1)
                .send();
        }
    }
    port_->kick(0);
    port_->kick(1);
    EXPECT_EQ(disk.pending.size(), 4U);
    int answered[2] = {};
    for (int i = 0; i < 20; ++i) {
        ASSERT_FALSE(disk.pending.empty()) << "the rest was forgotten after " << i;
        disk.complete(0, 0);
        test::run_pending(*loop_);
        for (uint16_t queue : {uint16_t{0}, uint16_t{1}}) {
            while (port_->queue(queue).take_used()) {
                ++answered[queue];
            }
        }
        if (i == 9) {
            EXPECT_GT(answered[1], 0) << "one queue has starved the other";
        }
    }
    EXPECT_EQ(answered[0], 10);
    EXPECT_EQ(answered[1], 10);
    // And it listens again.
    request(VIRTIO_BLK_T_IN, 0).writable(kSector).writable(1).send();
    EXPECT_TRUE(port_->queue(0).must_notify());
}

TEST_F(VirtioBlkTest, HostErrorIsAnIoError) {
    ManualDisk& disk = start_manual();
    request(VIRTIO_BLK_T_IN, 0).writable(kSector).writable(1).send();
    port_->kick(0);
    disk.complete(0, ENOSPC);
    EXPECT_EQ(answer(), VIRTIO_BLK_S_IOERR);
}

TEST_F(VirtioBlkTest, CompletesOutOfOrder) {
    ManualDisk& disk = start_manual();
    const auto first = request(VIRTIO_BLK_T_IN, 0).writable(kSector).writable(1).send();
    const auto second = request(VIRTIO_BLK_T_FLUSH, 0).writable(1).send();
    port_->kick(0);
    disk.complete(1, 0);
    disk.complete(0, EIO);
    test::run_pending(*loop_);
    EXPECT_EQ(port_->queue(0).take_used()->request.head, second.head);
    const auto used = port_->queue(0).take_used();
    EXPECT_EQ(used->request.head, first.head);
    EXPECT_EQ(port_->queue(0).writable_bytes(used->request).back(), std::byte{VIRTIO_BLK_S_IOERR});
}

TEST_F(VirtioBlkTest, WritesAreDurableWithoutFlush) {
    ManualDisk& disk = start_manual(1, kFeatureVersion1);
    request(VIRTIO_BLK_T_OUT, 0).readable(std::string(kSector, 'x')).writable(1).send();
    port_->kick(0);
    EXPECT_TRUE(disk.pending.front().durable);
    disk.complete_all(0);
    EXPECT_EQ(answer(), VIRTIO_BLK_S_OK);
    port_->reset();
    port_->activate(kFeatures);
    request(VIRTIO_BLK_T_OUT, 0).readable(std::string(kSector, 'x')).writable(1).send();
    port_->kick(0);
    EXPECT_FALSE(disk.pending.front().durable);
}

TEST_F(VirtioBlkTest, FreezeDrainsAndThawGoesOn) {
    ManualDisk& disk = start_manual();
    for (int i = 0; i < 6; ++i) {
        request(VIRTIO_BLK_T_IN, 0).writable(kSector).writable(1).send();
    }
    port_->kick(0);
    blk_->freeze();
    EXPECT_TRUE(disk.pending.empty());
    EXPECT_EQ(disk.waits, 1);
    const auto& state = port_->device_queue(0).state();
    EXPECT_EQ(state.next_available, state.next_used) << "a popped request is not in the state";
    EXPECT_EQ(state.next_used, 4);
    test::run_pending(*loop_);
    EXPECT_TRUE(disk.pending.empty()) << "frozen";
    blk_->freeze();
    EXPECT_EQ(disk.waits, 1);
    blk_->thaw();
    port_->kick(0);
    EXPECT_EQ(disk.pending.size(), 2U);
}

TEST_F(VirtioBlkTest, ResetWaitsAndLeavesTheQueuesAlone) {
    ManualDisk& disk = start_manual();
    request(VIRTIO_BLK_T_IN, 0).writable(kSector).writable(1).send();
    port_->kick(0);
    blk_->reset();
    EXPECT_EQ(disk.waits, 1);
    EXPECT_EQ(port_->queue(0).used_index(), 0);
}

TEST_F(VirtioBlkTest, LeavesTheLoopToOthers) {
    start_file();
    port_->reset();
    port_->activate(kFeatures, 256);
    for (int i = 0; i < 120; ++i) {
        request(77, 0).writable(1).send();
    }
    port_->kick_once(0);
    EXPECT_LT(port_->queue(0).used_index(), 120);
    EXPECT_EQ(port_->kick_later_requests(), std::set<uint16_t>{0});
    port_->kick(0);
    EXPECT_EQ(port_->queue(0).used_index(), 120);
}

TEST_F(VirtioBlkTest, RefusesTheStateOfAnotherDisk) {
    start_manual();
    blk_->freeze();
    EXPECT_TRUE(blk_->restore_state(blk_->save_state()));
    EXPECT_FALSE(blk_->restore_state(encode_state(VirtioBlk::State{7, false})));
    EXPECT_FALSE(blk_->restore_state(encode_state(VirtioBlk::State{kDiskBytes / kSector, true})));
}

// ---- UringDisk by itself ----

std::string open_error(const std::string& path) {
    auto disk = UringDisk::open(path, false);
    return disk ? "" : disk.error().message;
}

TEST(UringDiskTest, RefusesWhatIsNoDisk) {
    const DiskDirectory directory;
    EXPECT_NE(open_error(directory.path()).find("directory"), std::string::npos);
    EXPECT_NE(open_error(directory.path() + "/none").find("No such file"), std::string::npos);
    EXPECT_NE(open_error(directory.touch("empty")).find("empty"), std::string::npos);
    EXPECT_NE(open_error("/dev/null").find("not a file"), std::string::npos);
    const auto odd = directory.touch("odd");
    std::filesystem::resize_file(odd, 1000);
    EXPECT_NE(open_error(odd).find("512"), std::string::npos);
    const auto fifo = directory.path() + "/fifo";
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    EXPECT_NE(open_error(fifo).find("not a file"), std::string::npos) << "and does not hang";
}

TEST(UringDiskTest, OneWriterOrManyReaders) {
    const DiskDirectory directory;
    {
        auto writer = UringDisk::open(directory.disk(), false);
        ASSERT_TRUE(writer);
        EXPECT_NE(open_error(directory.disk()).find("in use"), std::string::npos);
        EXPECT_FALSE(UringDisk::open(directory.disk(), true));
    }
    auto reader = UringDisk::open(directory.disk(), true);
    ASSERT_TRUE(reader) << "the lock ended with its disk";
    EXPECT_TRUE(UringDisk::open(directory.disk(), true));
    EXPECT_FALSE(UringDisk::open(directory.disk(), false));
}

TEST(UringDiskTest, CompletesThroughItsDescriptor) {
    const DiskDirectory directory;
    auto disk = *UringDisk::open(directory.disk(), false, 2);
    auto loop = *EventLoop::create();
    std::vector<BlockBackend::Completion> done;
    auto watch = *loop->watch(disk->completion_fd(), EPOLLIN, [&](uint32_t) { disk->poll(done); });
    // More buffers than one system call takes, so that it has to go on by itself.
    std::vector<std::byte> data(2048 * 16, std::byte{7});
    BlockBackend::Request request;
    request.operation = BlockBackend::Operation::kWrite;
    request.token = 99;
    request.offset = kSector;
    request.length = data.size();
    for (size_t i = 0; i < 2048; ++i) {
        request.buffers.push_back({data.data() + i * 16, 16});
    }
    disk->submit(request);
    disk->commit();
    ASSERT_TRUE(run_until(*loop, [&] { return !done.empty(); }));
    EXPECT_EQ(done.front().token, 99U);
    EXPECT_EQ(done.front().error, 0);
    const auto bytes = directory.content(kSector, data.size());
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 7; }));
    EXPECT_EQ(directory.content(kSector + data.size(), 1).front(), 0);
}

}  // namespace
}  // namespace ivmm::virtio
