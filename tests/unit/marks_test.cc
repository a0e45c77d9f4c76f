#include "storage/layer/marks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/unique_fd.h"
#include "tests/support/own_mounts.h"
#include "tests/support/temp_dir.h"

namespace ivmm::storage {
namespace {

class MarksTest : public testing::Test {
 protected:
    void SetUp() override {
        fd_.reset(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY));
        ASSERT_TRUE(fd_);
        const auto style = usable_mark_style(fd_.get());
        if (!style) {
            GTEST_SKIP() << style.error().message;
        }
        style_ = *style;
        std::filesystem::create_directory(dir_.path() + "/d");
        dir_.file("f", "bytes");
    }
    At at(const char* path) const { return {fd_.get(), path}; }
    std::string name(const char* mark) const {
        return std::string(style_ == MarkStyle::kTrusted ? "trusted" : "user") + ".overlay." + mark;
    }

    test::TempDir dir_;
    UniqueFd fd_;
    MarkStyle style_ = MarkStyle::kUser;
};

TEST_F(MarksTest, XattrsOfFilesDirectoriesAndTheDirectoryItself) {
    for (const char* path : {"f", "d", "", "."}) {
        EXPECT_FALSE(get_xattr(at(path), "user.x")->has_value()) << path;
        ASSERT_TRUE(set_xattr(at(path), "user.x", path));
        ASSERT_TRUE(set_xattr(at(path), "user.large", std::string(3000, 'l')));
        EXPECT_EQ(**get_xattr(at(path), "user.x"), path);
        EXPECT_EQ(**get_xattr(at(path), "user.large"), std::string(3000, 'l'));
        auto names = *list_xattrs(at(path));
        std::erase_if(names, [](const auto& name) { return !name.starts_with("user."); });
        std::ranges::sort(names);
        EXPECT_EQ(names, (std::vector<std::string>{"user.large", "user.x"}));
        ASSERT_TRUE(remove_xattr(at(path), "user.large"));
        ASSERT_TRUE(remove_xattr(at(path), "user.x"));
        EXPECT_EQ(remove_xattr(at(path), "user.x").error().code, ENODATA);
    }
    EXPECT_EQ(get_xattr(at("none"), "user.x").error().code, ENOENT);
    EXPECT_EQ(list_xattrs(at("f/x")).error().code, ENOTDIR);
    EXPECT_EQ(get_xattr(at(std::string(5000, 'x').c_str()), "user.x").error().code, ENAMETOOLONG);
}

TEST_F(MarksTest, LinksAreNotFollowed) {
    std::filesystem::create_symlink("f", dir_.path() + "/l");
    ASSERT_TRUE(set_xattr(at("f"), "user.x", "of the file"));
    EXPECT_FALSE(get_xattr(at("l"), "user.x")->has_value());
    EXPECT_FALSE(set_xattr(at("l"), "user.x", "y"));
    EXPECT_EQ(**get_xattr(at("f"), "user.x"), "of the file");
    if (style_ == MarkStyle::kTrusted) {
        ASSERT_TRUE(Marks(style_).set_origin_inode(at("l"), 7));
        EXPECT_EQ(Marks(style_).origin_inode(at("l")), 7U);
        EXPECT_EQ(Marks(style_).origin_inode(at("f")), std::nullopt);
    }
}

TEST_F(MarksTest, AreReadAsTheyWereWritten) {
    const Marks marks(style_);
    EXPECT_FALSE(marks.is_opaque(at("d")));
    ASSERT_TRUE(marks.set_opaque(at("d")));
    EXPECT_TRUE(marks.is_opaque(at("d")));
    EXPECT_FALSE(marks.is_opaque(at("none")));

    EXPECT_FALSE(marks.redirect(at("d"))->has_value());
    ASSERT_TRUE(marks.set_redirect(at("d"), "/a/b"));
    EXPECT_EQ(**marks.redirect(at("d")), "/a/b");
    ASSERT_TRUE(marks.remove_redirect(at("d")));
    ASSERT_TRUE(marks.remove_redirect(at("d")));
    EXPECT_FALSE(marks.redirect(at("d"))->has_value());

    EXPECT_EQ(marks.origin_inode(at("f")), std::nullopt);
    ASSERT_TRUE(marks.set_origin_inode(at("f"), UINT64_MAX));
    EXPECT_EQ(marks.origin_inode(at("f")), UINT64_MAX);
    EXPECT_EQ(marks.link_count(at("f")), std::nullopt);
    ASSERT_TRUE(marks.set_link_count(at("f"), 3));
    EXPECT_EQ(marks.link_count(at("f")), 3U);

    EXPECT_FALSE(marks.block_part(at("f"))->has_value());
    ASSERT_TRUE(marks.set_block_part(at("f"), {"m-1", "/a/b c"}));
    const auto part = *marks.block_part(at("f"));
    EXPECT_EQ(part->map, "m-1");
    EXPECT_EQ(part->lower_path, "/a/b c");
}

TEST_F(MarksTest, BothStylesAreRead) {
    ASSERT_TRUE(set_xattr(at("d"), "user.overlay.opaque", "y"));
    ASSERT_TRUE(set_xattr(at("d"), "user.overlay.redirect", "u"));
    for (const auto style : {MarkStyle::kTrusted, MarkStyle::kUser}) {
        EXPECT_TRUE(Marks(style).is_opaque(at("d")));
        EXPECT_EQ(**Marks(style).redirect(at("d")), "u");
    }
    if (style_ == MarkStyle::kTrusted) {
        ASSERT_TRUE(set_xattr(at("d"), "trusted.overlay.redirect", "t"));
        EXPECT_EQ(**Marks(MarkStyle::kTrusted).redirect(at("d")), "t");
        EXPECT_EQ(**Marks(MarkStyle::kUser).redirect(at("d")), "u");
        ASSERT_TRUE(Marks(MarkStyle::kTrusted).remove_redirect(at("d")));
        EXPECT_FALSE(Marks(MarkStyle::kUser).redirect(at("d"))->has_value());
    }
}

TEST_F(MarksTest, OnlyThoseOfUnionsArePrivate) {
    for (const char* name :
         {"trusted.overlay.opaque", "user.overlay.ivmm.block", "user.overlay."}) {
        EXPECT_TRUE(Marks::is_private(name)) << name;
    }
    for (const char* name : {"user.overlay", "user.overlayfs.x", "trusted.overlay", "user.x",
                             "security.overlay.x", "system.posix_acl_access", ""}) {
        EXPECT_FALSE(Marks::is_private(name)) << name;
    }
}

TEST_F(MarksTest, HostileValuesAreNotUsed) {
    const Marks marks(style_);
    const std::string nul("a\0b", 3);
    for (const std::string& target :
         {std::string(), std::string("."), std::string(".."), std::string("/"), std::string("a/b"),
          std::string("//a"), std::string("/a/"), std::string("/a//b"), std::string("/a/./b"),
          std::string("/a/.."), std::string("/../a"), nul, "/" + nul, std::string(256, 'x'),
          "/" + std::string(256, 'x')}) {
        ASSERT_TRUE(set_xattr(at("d"), name("redirect"), target)) << target;
        const auto read = marks.redirect(at("d"));
        ASSERT_FALSE(read) << target;
        EXPECT_EQ(read.error().code, EIO);
        EXPECT_EQ(marks.set_redirect(at("d"), target).error().code, EINVAL);
    }
    for (const std::string& part :
         {std::string(), std::string("map"), std::string("/a"), std::string("./a"),
          std::string("../a"), std::string("m/"), std::string("m//a"), std::string("m/a/../b"),
          std::string("m/a/"), nul + "/a", "m/" + nul}) {
        ASSERT_TRUE(set_xattr(at("f"), name("ivmm.block"), part)) << part;
        const auto read = marks.block_part(at("f"));
        ASSERT_FALSE(read) << part;
        EXPECT_EQ(read.error().code, EIO);
    }
    EXPECT_EQ(marks.set_block_part(at("f"), {"a/b", "/c"}).error().code, EINVAL);
    for (const char* number : {"", "-1", "0x10", "1 ", "18446744073709551616", "one"}) {
        ASSERT_TRUE(set_xattr(at("f"), name("ivmm.inode"), number));
        ASSERT_TRUE(set_xattr(at("f"), name("ivmm.links"), number));
        EXPECT_EQ(marks.origin_inode(at("f")), std::nullopt) << number;
        EXPECT_EQ(marks.link_count(at("f")), std::nullopt) << number;
    }
    ASSERT_TRUE(set_xattr(at("d"), name("opaque"), "yes"));
    EXPECT_FALSE(marks.is_opaque(at("d")));
}

TEST_F(MarksTest, WithoutPrivilegeTheUserStyleIsTaken) {
    if (::geteuid() != 0) {
        EXPECT_EQ(style_, MarkStyle::kUser);
        GTEST_SKIP() << "the rest needs root";
    }
    EXPECT_EQ(style_, MarkStyle::kTrusted);
    ASSERT_EQ(::fflush(nullptr), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        // Without this alone: another user might not even reach the folder.
        __user_cap_header_struct self{_LINUX_CAPABILITY_VERSION_3, 0};
        std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
        if (::syscall(SYS_capget, &self, sets.data()) != 0) {
            ::_exit(2);
        }
        sets.at(CAP_TO_INDEX(CAP_SYS_ADMIN)).effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
        if (::syscall(SYS_capset, &self, sets.data()) != 0) {
            ::_exit(2);
        }
        const auto style = usable_mark_style(fd_.get());
        ::_exit(style && *style == MarkStyle::kUser ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

/// Runs in a mount namespace of its own, so that no mount outlives it. False: not permitted.
bool in_own_mounts(const std::function<void()>& body) {
    bool permitted = false;
    std::thread([&] {
        permitted = test::enter_own_mounts();
        if (permitted) {
            body();
        }
    }).join();
    return permitted;
}

std::string contents(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Lower, upper and work directories of a kernel overlayfs, with its mount point.
class KernelOverlay : public testing::Test {
 protected:
    void SetUp() override {
        for (const char* name : {"lower/d/sub", "lower/other", "upper", "work", "mnt"}) {
            std::filesystem::create_directories(path(name));
        }
        dir_.file("lower/gone", "lower");
        dir_.file("lower/d/f", "lower");
        dir_.file("lower/d/sub/g", "lower");
        dir_.file("lower/other/h", "lower");
    }
    std::string path(const std::string& name) const { return dir_.path() + "/" + name; }
    bool mount_overlay() {
        const auto options = fmt::format("lowerdir={},upperdir={},workdir={},redirect_dir=on",
                                         path("lower"), path("upper"), path("work"));
        if (::mount("overlay", path("mnt").c_str(), "overlay", 0, options.c_str()) != 0) {
            reason_ = "no kernel overlayfs here: " + error_text(errno);
            return false;
        }
        return true;
    }
    void run(const std::function<void()>& body) {
        bool mounted = false;
        if (!in_own_mounts([&] {
                mounted = mount_overlay();
                if (mounted) {
                    body();
                }
            })) {
            GTEST_SKIP() << "may not make a mount namespace";
        }
        if (!mounted) {
            GTEST_SKIP() << reason_;
        }
    }
    test::TempDir dir_;
    std::string reason_;
};

TEST_F(KernelOverlay, UnderstandsOurMarks) {
    const UniqueFd root(::open(path("upper").c_str(), O_RDONLY | O_DIRECTORY));
    const auto style = usable_mark_style(root.get());
    if (!style || *style != MarkStyle::kTrusted) {
        GTEST_SKIP() << "needs trusted extended attributes";
    }
    const Marks marks(*style);
    ASSERT_EQ(::mknodat(root.get(), "gone", S_IFCHR, makedev(0, 0)), 0);
    ASSERT_EQ(::mkdirat(root.get(), "other", 0755), 0);
    ASSERT_TRUE(marks.set_opaque({root.get(), "other"}));
    ASSERT_EQ(::mkdirat(root.get(), "moved", 0755), 0);
    ASSERT_TRUE(marks.set_redirect({root.get(), "moved"}, "/d/sub"));
    ASSERT_EQ(::mkdirat(root.get(), "renamed", 0755), 0);
    ASSERT_TRUE(marks.set_redirect({root.get(), "renamed"}, "d"));
    ASSERT_EQ(::mknodat(root.get(), "d", S_IFCHR, makedev(0, 0)), 0);
    dir_.file("upper/own", "upper");
    ASSERT_TRUE(marks.set_origin_inode({root.get(), "own"}, 5));
    ASSERT_TRUE(marks.set_block_part({root.get(), "own"}, {"m", "/x"}));
    run([&] {
        EXPECT_FALSE(std::filesystem::exists(path("mnt/gone")));
        EXPECT_FALSE(std::filesystem::exists(path("mnt/d")));
        EXPECT_TRUE(std::filesystem::is_empty(path("mnt/other")));
        EXPECT_EQ(contents(path("mnt/moved/g")), "lower");
        EXPECT_EQ(contents(path("mnt/renamed/f")), "lower");
        EXPECT_EQ(contents(path("mnt/own")), "upper");
        // It hides our own marks as its private ones.
        const UniqueFd mounted(::open(path("mnt").c_str(), O_RDONLY | O_DIRECTORY));
        const auto names = list_xattrs({mounted.get(), "own"});
        ASSERT_TRUE(names);
        for (const auto& name : *names) {
            EXPECT_FALSE(Marks::is_private(name)) << name;
        }
    });
}

TEST_F(KernelOverlay, WritesMarksThatWeUnderstand) {
    run([&] {
        std::filesystem::remove(path("mnt/gone"));
        std::filesystem::remove_all(path("mnt/other"));
        std::filesystem::create_directory(path("mnt/other"));
        std::filesystem::rename(path("mnt/d/sub"), path("mnt/moved"));
        std::filesystem::rename(path("mnt/d"), path("mnt/renamed"));

        const UniqueFd root(::open(path("upper").c_str(), O_RDONLY | O_DIRECTORY));
        const Marks marks(MarkStyle::kTrusted);
        struct stat attributes {};
        ASSERT_EQ(::fstatat(root.get(), "gone", &attributes, AT_SYMLINK_NOFOLLOW), 0);
        EXPECT_TRUE(S_ISCHR(attributes.st_mode) && attributes.st_rdev == 0);
        EXPECT_TRUE(marks.is_opaque({root.get(), "other"}));
        EXPECT_FALSE(marks.is_opaque({root.get(), "renamed"}));
        const auto moved = marks.redirect({root.get(), "moved"});
        ASSERT_TRUE(moved && *moved);
        EXPECT_EQ(**moved, "/d/sub");
        const auto renamed = marks.redirect({root.get(), "renamed"});
        ASSERT_TRUE(renamed && *renamed);
        EXPECT_EQ(**renamed, "d");
    });
}

}  // namespace
}  // namespace ivmm::storage
