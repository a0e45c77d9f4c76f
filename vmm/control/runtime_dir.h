#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// The right to be the guest of a name: as long as it is held, nobody else gets it. The kernel
/// releases it when the process dies, in whatever way.
class GuestLock {
 public:
    GuestLock(GuestLock&&) noexcept = default;
    GuestLock& operator=(GuestLock&&) = delete;
    /// Removes the guest's socket and lock file. The log stays if anything is in it.
    ~GuestLock();

    /// Makes the guest's control socket, listening and non-blocking. At most once.
    Result<UniqueFd> listen();

 private:
    friend class RuntimeDir;
    GuestLock(UniqueFd file, std::string base) : file_(std::move(file)), base_(std::move(base)) {}
    UniqueFd file_;
    std::string base_;  // path of the guest's files without their suffix
};

/// Where the running guests of this user have their sockets, lock files and logs:
/// $XDG_RUNTIME_DIR/ivmm, or /run/ivmm for root, or /tmp/ivmm-UID. Guest names must be good
/// (is_guest_name()).
///
/// The overlay servers have a folder of the same kind in it, "overlay"; what is said here of a
/// guest's name is there the pid of a server. And so have the switches, "switch", with names of
/// their own, and those who watch for attackers, "watch", under the names of their guests.
class RuntimeDir {
 public:
    static RuntimeDir find();
    static RuntimeDir find_overlay();
    static RuntimeDir find_switch();
    static RuntimeDir find_watch();

    const std::string& path() const { return path_; }
    std::string socket_path(const std::string& name) const { return base(name) + ".sock"; }
    /// Where a switch waits for guests.
    std::string cables_path(const std::string& name) const { return base(name) + ".cables"; }
    std::string log_path(const std::string& name) const { return base(name) + ".log"; }

    /// Creates the folder if need be. Errors (kHost): it cannot be used.
    Result<void> create() const;

    /// Creates the folder if need be and takes the name. Errors: a guest of this name runs
    /// (kFailed), the folder cannot be used (kHost).
    Result<GuestLock> lock(const std::string& name) const;

    static constexpr std::chrono::milliseconds kConnectPatience{5000};
    /// A connection to the guest's control socket. An error without a code: it does not run, or
    /// does not listen yet.
    Result<UniqueFd> connect(const std::string& name,
                             std::chrono::milliseconds patience = kConnectPatience) const;

    struct Scan {
        std::vector<std::string> running;  ///< names, sorted
        std::vector<std::string> removed;  ///< of killed guests whose leftovers were here
    };
    /// Looks who is there, and removes what killed guests have left behind.
    Result<Scan> scan() const;

    /// The names of the guests that run, sorted. Removes what killed guests have left behind.
    Result<std::vector<std::string>> running() const;
    /// Removes what killed guests have left behind; their names.
    Result<std::vector<std::string>> remove_leftovers() const;

 private:
    explicit RuntimeDir(std::string path, std::string parent = {}, const char* kind = "guest")
        : path_(std::move(path)), parent_(std::move(parent)), kind_(kind) {}
    std::string base(const std::string& name) const { return path_ + "/" + name; }
    /// That the folder is a private one of this user.
    Result<void> check() const;

    std::string path_;
    std::string parent_;  // the guests' folder, of the others
    const char* kind_;    // what runs under the names
};

}  // namespace ivmm
