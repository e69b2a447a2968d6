#include "kdfs/rt/cluster_key.h"
#include "tools/files.h"
#include "tools/local_cluster.h"
#include "tools/process.h"
#include "tools/state_dir.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace kdfs::tools {
namespace {

class StateDirTest : public testing::Test {
protected:
    StateDirTest() {
        std::string name = "/tmp/kdfs_state_XXXXXX";
        root_ = mkdtemp(name.data());
    }
    ~StateDirTest() override {
        std::string output;
        EXPECT_TRUE(run_program({"rm", "-rf", root_}, output).ok());
    }
    static mode_t mode_of(const std::string& path) {
        struct stat info {};
        EXPECT_EQ(stat(path.c_str(), &info), 0);
        return info.st_mode & 07777;
    }
    static ClusterSettings settings() {
        ClusterSettings out;
        out.nodes = 5;
        out.replicas = 3;
        out.targets_per_node = 2;
        out.mount = "/some where/\xff";
        return out;
    }

    std::string root_;
};

TEST_F(StateDirTest, ANewOneIsPrivateAndHasItsOwnKey) {
    Result<StateDir> a = StateDir::create(root_ + "/deep/er/a", settings());
    Result<StateDir> b = StateDir::create(root_ + "/b", settings());

    ASSERT_TRUE(a.ok()) << a.error().to_string();
    ASSERT_TRUE(b.ok());
    EXPECT_EQ(mode_of(a->path()), 0700U);
    EXPECT_EQ(mode_of(a->key_file()), 0600U);
    EXPECT_NE(*load_cluster_key(a->key_file()), *load_cluster_key(b->key_file()));
}

TEST_F(StateDirTest, OpenGivesWhatWasSaved) {
    ClusterSettings wanted = settings();
    wanted.mount = "/mnt/k";
    ASSERT_TRUE(StateDir::create(root_ + "/a", wanted).ok());
    Result<StateDir> state = StateDir::open(root_ + "/a");
    ASSERT_TRUE(state.ok());
    wanted.cluster_id = "id";
    ASSERT_TRUE(state->save(wanted).ok());

    Result<StateDir> again = StateDir::open(root_ + "/a");

    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->settings().nodes, 5U);
    EXPECT_EQ(again->settings().replicas, 3U);
    EXPECT_EQ(again->settings().targets_per_node, 2U);
    EXPECT_EQ(again->settings().mount, "/mnt/k");
    EXPECT_EQ(again->settings().cluster_id, "id");
}

TEST_F(StateDirTest, AForeignDirectoryIsRefusedAndLeftAlone) {
    ASSERT_TRUE(write_file(root_ + "/precious", "x", 0644).ok());

    Result<StateDir> state = StateDir::create(root_, settings());

    ASSERT_FALSE(state.ok());
    EXPECT_EQ(state.error().code, Errc::kNotEmpty);
    EXPECT_NE(state.error().detail.find("precious"), std::string::npos);
    EXPECT_EQ(list_directory(root_), std::vector<std::string>{"precious"});
    EXPECT_EQ(StateDir::create(root_ + "/precious", settings()).error().code, Errc::kNotDirectory);
}

TEST_F(StateDirTest, DamagedSettingsAreNamed) {
    Result<StateDir> state = StateDir::create(root_ + "/a", settings());
    ASSERT_TRUE(state.ok());
    for (const char* text : {"",
                             "[]",
                             "{",
                             "{\"format\":1}",
                             "{\"format\":1,\"nodes\":0,\"replicas\":1,\"targets_per_node\":1,"
                             "\"port_base\":0,\"mount\":\"/m\",\"cluster_id\":\"\"}",
                             "{\"format\":1,\"nodes\":-3,\"replicas\":1,\"targets_per_node\":1,"
                             "\"port_base\":0,\"mount\":\"/m\",\"cluster_id\":\"\"}"}) {
        ASSERT_TRUE(write_file(root_ + "/a/kdfs.json", text, 0600).ok());
        Result<StateDir> opened = StateDir::open(root_ + "/a");
        ASSERT_FALSE(opened.ok()) << text;
        EXPECT_EQ(opened.error().code, Errc::kMalformed) << text;
        EXPECT_NE(opened.error().detail.find("kdfs.json is damaged"), std::string::npos);
    }
    ASSERT_TRUE(write_file(root_ + "/a/kdfs.json", "{\"format\":9}", 0600).ok());
    EXPECT_EQ(StateDir::open(root_ + "/a").error().code, Errc::kWrongVersion);
}

TEST_F(StateDirTest, OnlyOneCommandWorksOnAStateDirectory) {
    Result<StateDir> state = StateDir::create(root_ + "/a", settings());
    ASSERT_TRUE(state.ok());
    {
        Result<StateLock> first = StateLock::take(*state);
        ASSERT_TRUE(first.ok());
        EXPECT_EQ(StateLock::take(*state).error().code, Errc::kBusy);
    }
    EXPECT_TRUE(StateLock::take(*state).ok());
}

TEST_F(StateDirTest, ATakenPortIsNamed) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    ASSERT_EQ(listen(fd, 1), 0);
    socklen_t bytes = sizeof where;
    ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&where), &bytes), 0);
    std::string port = std::to_string(ntohs(where.sin_port));

    Status taken = check_port_free("127.0.0.1:" + port);
    close(fd);

    ASSERT_FALSE(taken.ok());
    EXPECT_EQ(taken.error().code, Errc::kBusy);
    EXPECT_NE(taken.error().detail.find("port " + port), std::string::npos);
    EXPECT_TRUE(check_port_free("127.0.0.1:" + port).ok());
}

}  // namespace
}  // namespace kdfs::tools
