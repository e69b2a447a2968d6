#include "tools/files.h"
#include "tools/process.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace kdfs::tools {
namespace {

// A directory that goes with the test.
class Folder {
public:
    Folder() {
        std::string name = "/tmp/kdfs_tools_XXXXXX";
        path_ = mkdtemp(name.data());
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::string output;
        Result<int> removed = run_program({"rm", "-rf", path_}, output);
        EXPECT_TRUE(removed.ok());
    }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

DaemonSpec shell(const Folder& folder, const std::string& script) {
    DaemonSpec spec;
    spec.program = "/bin/sh";
    spec.arguments = {"-c", script};
    spec.log_path = folder / "log";
    return spec;
}

TEST(ProcessTest, ADaemonHasItsOwnSessionAndWritesToItsLog) {
    Folder folder;
    std::string written = folder / "written";
    ASSERT_EQ(mkfifo(written.c_str(), 0600), 0);
    std::string script = "pwd; echo hello >&2; echo > " + written + "; exec sleep 60";

    Result<ProcessId> process = start_daemon(shell(folder, script));

    ASSERT_TRUE(process.ok()) << process.error().to_string();
    std::ifstream wait_until_written(written);
    EXPECT_EQ(wait_until_written.get(), '\n');
    EXPECT_EQ(getsid(process->pid), process->pid);
    EXPECT_TRUE(alive(*process));
    EXPECT_TRUE(stop_process(*process, std::chrono::seconds(20)));
    EXPECT_FALSE(alive(*process));
    EXPECT_EQ(last_lines(folder / "log", 5), (std::vector<std::string>{"/", "hello"}));
}

TEST(ProcessTest, AProgramThatCannotBeExecutedIsAnError) {
    Folder folder;
    DaemonSpec spec = shell(folder, "");
    spec.program = folder / "absent";

    Result<ProcessId> process = start_daemon(spec);

    ASSERT_FALSE(process.ok());
    EXPECT_NE(process.error().detail.find("absent: No such file"), std::string::npos);
}

TEST(ProcessTest, AReusedNumberIsAnotherProcess) {
    std::optional<ProcessId> self = find_process(getpid());
    ASSERT_TRUE(self.has_value());
    ProcessId earlier = *self;
    earlier.start_ticks -= 1;
    ProcessId other_boot = *self;
    other_boot.boot_id = "another";

    EXPECT_TRUE(alive(*self));
    EXPECT_FALSE(alive(earlier));
    EXPECT_FALSE(alive(other_boot));
    // Were it taken for ours, this would end the test program.
    EXPECT_TRUE(stop_process(earlier, std::chrono::seconds(1)));
}

TEST(ProcessTest, OneThatIgnoresSigtermIsKilled) {
    Folder folder;
    Result<ProcessId> process =
        start_daemon(shell(folder, "trap '' TERM; echo ready; while :; do sleep 60; done"));
    ASSERT_TRUE(process.ok());
    while (last_lines(folder / "log", 1).empty()) {
        ASSERT_TRUE(alive(*process));
    }

    EXPECT_FALSE(stop_process(*process, std::chrono::milliseconds(50)));
    EXPECT_FALSE(alive(*process));
}

TEST(ProcessTest, OneThatEndsIsThereUntilItsLastThreadIsGone) {
    pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
        std::thread([] { pause(); }).detach();
        syscall(SYS_exit, 0);  // the first thread alone
    }
    std::optional<ProcessId> process = find_process(pid);
    ASSERT_TRUE(process.has_value());
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!ending(*process) && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }

    EXPECT_TRUE(ending(*process));
    EXPECT_TRUE(alive(*process));
    kill(pid, SIGKILL);
    EXPECT_TRUE(wait_until_gone(*process, std::chrono::seconds(20)));
    EXPECT_FALSE(alive(*process));
    EXPECT_FALSE(ending(*process));
}

TEST(ProcessTest, PidFileSurvivesARoundTripAndRefusesRubbish) {
    Folder folder;
    std::optional<ProcessId> self = find_process(getpid());
    ASSERT_TRUE(self.has_value());

    EXPECT_FALSE(read_pid_file(folder / "a")->has_value());
    ASSERT_TRUE(write_pid_file(folder / "a", *self).ok());
    EXPECT_EQ(**read_pid_file(folder / "a"), *self);
    for (const char* text : {"", "x y z", "1 5 boot", "-5 5 boot", "77"}) {
        ASSERT_TRUE(write_file(folder / "b", text, 0644).ok());
        Result<std::optional<ProcessId>> read = read_pid_file(folder / "b");
        ASSERT_FALSE(read.ok()) << text;
        EXPECT_EQ(read.error().code, Errc::kMalformed);
    }
}

TEST(ProcessTest, LastLinesAreTheLastAndBounded) {
    Folder folder;
    std::string text;
    for (int i = 0; i < 5000; ++i) {
        text += "line " + std::to_string(i) + "\n";
    }
    ASSERT_TRUE(write_file(folder / "log", text, 0644).ok());

    EXPECT_EQ(last_lines(folder / "log", 2), (std::vector<std::string>{"line 4998", "line 4999"}));
    EXPECT_TRUE(last_lines(folder / "absent", 2).empty());
}

TEST(FilesTest, PathsAreResolvedByTextAlone) {
    EXPECT_EQ(absolute_path("/a//b/./c/../d/"), "/a/b/d");
    EXPECT_EQ(absolute_path("/../.."), "/");
    EXPECT_TRUE(path_within("/a/b", "/a"));
    EXPECT_TRUE(path_within("/a", "/a"));
    EXPECT_TRUE(path_within("/a", "/"));
    EXPECT_FALSE(path_within("/ab", "/a"));
    EXPECT_FALSE(path_within("/", "/a"));
}

TEST(FilesTest, AFileAboveItsBoundIsRefused) {
    Folder folder;
    ASSERT_TRUE(write_file(folder / "a", std::string(100, 'x'), 0600).ok());

    EXPECT_EQ(read_file(folder / "a", 99).error().code, Errc::kTooBig);
    EXPECT_EQ(read_file(folder / "a", 100)->size(), 100U);
    EXPECT_EQ(read_file(folder / "b", 100).error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace kdfs::tools
