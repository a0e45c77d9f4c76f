#include "vmm/cli/cli.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/support/fake_machine.h"
#include "tests/support/temp_dir.h"
#include "vmm/cli/guest_command.h"
#include "vmm/cli/run_guest.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/fork/clone_record.h"

namespace ivmm {
namespace {

using rpc::Json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CommandLineTest : public testing::Test {
 protected:
    CommandLineTest() { ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1); }

    struct Outcome {
        int code;
        std::string out;
        std::string err;
    };
    static Outcome captured(const std::function<int()>& program) {
        testing::internal::CaptureStdout();
        testing::internal::CaptureStderr();
        const int code = program();
        return {code, testing::internal::GetCapturedStdout(),
                testing::internal::GetCapturedStderr()};
    }
    static Outcome ivmm(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), "ivmm");
        std::vector<char*> argv;
        for (auto& argument : arguments) {
            argv.push_back(argument.data());
        }
        argv.push_back(nullptr);
        return captured(
            [&] { return cli::run_command_line(static_cast<int>(argv.size() - 1), argv.data()); });
    }
    /// One line on standard error, nothing else.
    static void expect_refused(const Outcome& outcome, int code, const std::string& text) {
        EXPECT_EQ(outcome.code, code);
        EXPECT_EQ(outcome.out, "");
        EXPECT_THAT(outcome.err, AllOf(StartsWith("ivmm: "), HasSubstr(text)));
        EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    }
    static void run_detached(const std::string& name) {
        GuestConfig config;
        config.name = name;
        config.cpus = 2;
        config.cmdline = "quiet";
        const auto run =
            captured([&] { return run_guest(config, true, &test::FakeMachine::create); });
        EXPECT_EQ(run.code, 0) << run.err;
        EXPECT_THAT(run.err, HasSubstr("guest '" + name + "' runs"));
    }
    test::TempDir dir_;
};

TEST_F(CommandLineTest, HelpAndVersion) {
    EXPECT_THAT(ivmm({"--version"}).out, StartsWith("ivmm 0."));
    const auto help = ivmm({"--help"});
    EXPECT_EQ(help.code, 0);
    for (const char* const command :
         {"run", "ls", "status", "pause", "resume", "stop", "rm", "console"}) {
        EXPECT_THAT(help.out, HasSubstr(command));
        const auto own = ivmm({command, "--help"});
        EXPECT_EQ(own.code, 0);
        EXPECT_THAT(own.out, HasSubstr(std::string("Example:\n  ivmm ") + command));
    }
}

TEST_F(CommandLineTest, BadUsage) {
    expect_refused(ivmm({}), 2, "--help");
    expect_refused(ivmm({"frobnicate"}), 2, "frobnicate");
    expect_refused(ivmm({"run", "--frobnicate"}), 2, "ivmm run --help");
    expect_refused(ivmm({"status"}), 2, "NAME");
    expect_refused(ivmm({"run", "--cpus", "many"}), 2, "--cpus");
    expect_refused(ivmm({"run"}), 2, "no kernel");
    expect_refused(ivmm({"run", "--kernel", "/nonexistent"}), 2, "kernel '/nonexistent'");
    expect_refused(ivmm({"run", "--kernel", "/tmp"}), 2, "is a directory");
    const std::string kernel = dir_.file("k");
    expect_refused(ivmm({"run", "--kernel", kernel, "--mem", "0"}), 2, "memory 0");
    expect_refused(ivmm({"run", "--kernel", kernel, "--mem", "1000T"}), 2, "this host has only");
    expect_refused(ivmm({"run", "--kernel", kernel, "--disk", "/tmp"}), 2, "is a directory");
    expect_refused(ivmm({"run", "--kernel", kernel, "--net", "eth0"}), 2, "tap=NAME");
    expect_refused(ivmm({"run", "--kernel", kernel, "--name", "a/b"}), 2, "not a name");
    expect_refused(ivmm({"run", "--kernel", kernel, "--name", ""}), 2, "not a name");
    expect_refused(ivmm({"run", dir_.path() + "/missing.toml"}), 2, "missing.toml");
    expect_refused(ivmm({"status", "a/b"}), 2, "not a name");
    EXPECT_FALSE(std::filesystem::exists(RuntimeDir::find().path()));
}

TEST_F(CommandLineTest, CommandLineReplacesTheGuestFile) {
    // What is wrong in the file does not matter when it is replaced; what is right, is kept.
    const std::string kernel = dir_.file("k");
    const std::string file = dir_.file("g.toml",
                                       "kernel = 'k'\ncpus = 99\nmemory = 0\n"
                                       "[[disk]]\npath = '/nonexistent'\n");
    expect_refused(ivmm({"run", file}), 2, "memory 0");
    expect_refused(ivmm({"run", file, "--mem", "32M"}), 2, "99 vCPUs");
    expect_refused(ivmm({"run", file, "--mem", "32M", "--cpus", "1"}), 2, "disk '/nonexistent'");
    expect_refused(
        ivmm({"run", file, "--mem", "32M", "--cpus", "1", "--disk", "/x1", "--disk", "/x2"}), 2,
        "disk '/x1'");
}

TEST_F(CommandLineTest, NoSuchGuest) {
    for (const char* const command : {"status", "pause", "resume", "stop", "console"}) {
        expect_refused(ivmm({command, "nobody"}), 1, "no guest named 'nobody' is running");
    }
    EXPECT_EQ(ivmm({"ls"}).code, 0);
    EXPECT_EQ(Json::parse(ivmm({"ls", "--json"}).out), Json::array());
}

TEST_F(CommandLineTest, LifeOfADetachedGuest) {
    run_detached("web");
    run_detached("db");
    EXPECT_THAT(ivmm({"ls"}).out, AllOf(HasSubstr("db "), HasSubstr("web "), HasSubstr("running"),
                                        HasSubstr("256M")));
    auto rows = Json::parse(ivmm({"ls", "--json"}).out);
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0]["name"], "db");
    EXPECT_EQ(rows[1]["cpus"], 2);

    EXPECT_EQ(ivmm({"pause", "web"}).code, 0);
    const auto status = ivmm({"status", "web"});
    EXPECT_EQ(status.code, 0);
    EXPECT_THAT(status.out, AllOf(HasSubstr("paused"), HasSubstr("virtio-blk"), HasSubstr("vcpu1"),
                                  HasSubstr("fake"), HasSubstr("quiet")));
    EXPECT_EQ(ivmm({"resume", "web"}).code, 0);
    EXPECT_EQ(Json::parse(ivmm({"status", "web", "--json"}).out)["state"], "running");

    // When `stop` is back, the name is free.
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(ivmm({"stop", "web"}).code, 0);
        expect_refused(ivmm({"status", "web"}), 1, "no guest named");
        run_detached("web");
    }
    EXPECT_EQ(ivmm({"stop", "web"}).code, 0);
    EXPECT_EQ(ivmm({"stop", "db"}).code, 0);
    EXPECT_TRUE(std::filesystem::is_empty(RuntimeDir::find().path()));
}

TEST_F(CommandLineTest, RemovalOfClones) {
    const auto make_clone = [&](const std::string& name) {
        CloneRecord record;
        record.clone = name;
        record.primary = "web";
        record.disks = {{"copy", "/srv/disk", dir_.file("disk." + name)}};
        EXPECT_TRUE(write_clone_record(record));
    };
    const auto has_disk = [&](const std::string& name) {
        return std::filesystem::exists(dir_.path() + "/disk." + name);
    };
    run_detached("web-1");
    for (const char* const name : {"web-1", "web-2", "web-3", "web-4"}) {
        make_clone(name);
    }
    expect_refused(ivmm({"rm"}), 2, "--all");
    expect_refused(ivmm({"rm", "--all", "web-1"}), 2, "--all");
    expect_refused(ivmm({"rm", "web"}), 1, "no clone 'web'; there are: web-1, web-2");
    expect_refused(ivmm({"rm", "web-1"}), 1, "still runs; stop it first: `ivmm stop web-1`");
    EXPECT_TRUE(has_disk("web-1"));

    EXPECT_EQ(ivmm({"rm", "web-2"}).code, 0);
    EXPECT_FALSE(has_disk("web-2"));
    const auto all = ivmm({"rm", "--all"});
    EXPECT_EQ(all.code, 0) << all.err;
    EXPECT_EQ(all.out, "web-3: removed\nweb-4: removed\n");
    EXPECT_TRUE(has_disk("web-1"));
    EXPECT_FALSE(has_disk("web-3"));

    EXPECT_EQ(ivmm({"rm", "--force", "web-1"}).code, 0);
    EXPECT_FALSE(has_disk("web-1"));
    EXPECT_EQ(Json::parse(ivmm({"ls", "--json"}).out), Json::array());
    expect_refused(ivmm({"rm", "web-1"}), 1, "no clone 'web-1', and no other one");
    EXPECT_EQ(ivmm({"rm", "--all"}).code, 0);
}

TEST_F(CommandLineTest, GuestThatWasKilled) {
    run_detached("web");
    const auto pid = Json::parse(ivmm({"status", "web", "--json"}).out)["pid"].get<pid_t>();
    ::kill(pid, SIGKILL);
    // The kernel closes a killed process's socket and lock one after the other.
    const auto list = [] { return Json::parse(ivmm({"ls", "--json"}).out); };
    for (int i = 0; i < 1000 && list() != Json::array(); ++i) {
        ::usleep(1000);
    }
    EXPECT_EQ(list(), Json::array());
    run_detached("web");
    EXPECT_EQ(ivmm({"stop", "web"}).code, 0);
}

TEST_F(CommandLineTest, GuestThatDoesNotAnswer) {
    run_detached("web");
    const auto pid = Json::parse(ivmm({"status", "web", "--json"}).out)["pid"].get<pid_t>();
    ::kill(pid, SIGSTOP);
    EXPECT_THAT(ivmm({"ls"}).out, AllOf(HasSubstr("web"), HasSubstr("no answer")));
    ::kill(pid, SIGCONT);
    EXPECT_EQ(ivmm({"stop", "web"}).code, 0);
}

TEST(Duration, TwoUnits) {
    EXPECT_EQ(cli::format_duration(0.9), "0s");
    EXPECT_EQ(cli::format_duration(59), "59s");
    EXPECT_EQ(cli::format_duration(125), "2m 05s");
    EXPECT_EQ(cli::format_duration(3600 * 5 + 60), "5h 01m");
    EXPECT_EQ(cli::format_duration(86400 * 3 + 3600 * 4), "3d 04h");
}

}  // namespace
}  // namespace ivmm
