#include "tools/doctor.h"
#include "tools/mounts.h"
#include "tools/status_view.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace kdfs::tools {
namespace {

pb::StatusReply healthy_cluster() {
    pb::StatusReply reply;
    pb::ClusterMap& map = *reply.mutable_map();
    map.set_epoch(7);
    map.set_cluster_id("11111111-2222-3333-4444-555555555555");
    for (uint64_t i = 1; i <= 3; ++i) {
        pb::Node& node = *map.add_nodes();
        node.set_id(i);
        node.set_name("storage-" + std::to_string(i));
        node.set_address("127.0.0.1:400" + std::to_string(i));
        node.set_online(true);
        pb::Target& target = *map.add_targets();
        target.set_id(i);
        target.set_node(i);
        pb::TargetReport& report = *reply.add_targets();
        report.set_target(i);
        report.set_total_bytes(100ULL << 30);
        report.set_free_bytes(60ULL << 30);
        report.set_chunks(10);
        pb::Chain& chain = *map.add_chains();
        chain.set_id(i);
        chain.set_version(1);
        chain.set_replicas(2);
        for (uint64_t member = 0; member < 2; ++member) {
            pb::ChainMember& one = *chain.add_members();
            one.set_target((i + member - 1) % 3 + 1);
            one.set_state(pb::MEMBER_SERVING);
        }
    }
    reply.set_replicas(2);
    return reply;
}

void set_state(pb::StatusReply& reply, int chain, int member, pb::MemberState state) {
    reply.mutable_map()->mutable_chains(chain)->mutable_members(member)->set_state(state);
}

StatusContext local() {
    StatusContext context;
    context.mds_address = "127.0.0.1:4000";
    context.state_dir = "/s";
    context.nodes_expected = 3;
    return context;
}

bool has_problem(const StatusView& view, const std::string& what, const std::string& fix) {
    for (const Problem& problem : view.problems) {
        if (problem.what.find(what) != std::string::npos &&
            problem.fix.find(fix) != std::string::npos && !problem.cause.empty()) {
            return true;
        }
    }
    return false;
}

TEST(StatusViewTest, ACompleteClusterIsHealthyWithoutProblems) {
    StatusView view = judge_status(healthy_cluster(), local());

    EXPECT_EQ(view.health, Health::kHealthy);
    EXPECT_TRUE(view.problems.empty());
    EXPECT_EQ(view.chains.full, 3U);
    EXPECT_EQ(view.chains.copies_min, 2U);
    EXPECT_EQ(view.space.free_bytes, 180ULL << 30);
}

TEST(StatusViewTest, AnOfflineNodeDegradesAndUpMendsIt) {
    pb::StatusReply reply = healthy_cluster();
    reply.mutable_map()->mutable_nodes(1)->set_online(false);
    set_state(reply, 0, 1, pb::MEMBER_OFFLINE);
    StatusContext context = local();
    context.nodes_not_running = {"storage-2"};

    StatusView view = judge_status(reply, context);

    EXPECT_EQ(view.health, Health::kDegraded);
    EXPECT_TRUE(has_problem(view, "node storage-2 is offline", "kdfs up --dir /s"));
    EXPECT_TRUE(has_problem(view, "1 chain with missing copies", "kdfs up --dir /s"));
    EXPECT_EQ(view.chains.copies_min, 1U);
}

TEST(StatusViewTest, ResyncIsDegradedAndNeedsPatienceOnly) {
    pb::StatusReply reply = healthy_cluster();
    set_state(reply, 2, 1, pb::MEMBER_SYNCING);

    StatusView view = judge_status(reply, local());

    EXPECT_EQ(view.health, Health::kDegraded);
    EXPECT_EQ(view.chains.syncing, 1U);
    EXPECT_TRUE(has_problem(view, "being brought up to date", "--wait"));
}

TEST(StatusViewTest, AChainThatNobodyServesIsCritical) {
    pb::StatusReply reply = healthy_cluster();
    set_state(reply, 0, 0, pb::MEMBER_OFFLINE);
    set_state(reply, 0, 1, pb::MEMBER_LAST_SERVING);

    StatusView view = judge_status(reply, local());

    EXPECT_EQ(view.health, Health::kCritical);
    EXPECT_TRUE(has_problem(view, "without a serving member", "kdfs up --dir /s"));
}

TEST(StatusViewTest, ALostChainOfFewerCopiesThanUsualIsNotCritical) {
    pb::StatusReply reply = healthy_cluster();
    pb::Chain& thin = *reply.mutable_map()->mutable_chains(0);
    thin.set_replicas(1);
    thin.mutable_members()->RemoveLast();
    set_state(reply, 0, 0, pb::MEMBER_LAST_SERVING);

    StatusView view = judge_status(reply, local());

    EXPECT_EQ(view.health, Health::kDegraded);
    EXPECT_TRUE(has_problem(view, "fewer copies than usual", "kdfs up --dir /s"));
    EXPECT_EQ(view.chains.copies_min, 2U);
}

TEST(StatusViewTest, ALostChainIsCriticalWhereFilesHaveOneCopyByDefault) {
    pb::StatusReply reply = healthy_cluster();
    pb::Chain& thin = *reply.mutable_map()->mutable_chains(0);
    thin.set_replicas(1);
    thin.mutable_members()->RemoveLast();
    set_state(reply, 0, 0, pb::MEMBER_LAST_SERVING);
    reply.set_replicas(1);

    StatusView view = judge_status(reply, local());

    EXPECT_EQ(view.health, Health::kCritical);
    EXPECT_EQ(view.chains.down, 1U);
    EXPECT_EQ(view.chains.copies_min, 0U);
}

TEST(StatusViewTest, ADeadMountIsAProblemThatUpMends) {
    StatusContext context = local();
    context.dead_mount = "/kdfs";

    StatusView view = judge_status(healthy_cluster(), context);

    EXPECT_EQ(view.health, Health::kDegraded);
    EXPECT_TRUE(has_problem(view, "the mount at /kdfs is dead", "kdfs up --dir /s"));
}

TEST(StatusViewTest, NoChainsIsCritical) {
    pb::StatusReply reply;

    EXPECT_EQ(judge_status(reply, local()).health, Health::kCritical);
}

TEST(StatusViewTest, FailedAndFullTargetsAreNamed) {
    pb::StatusReply reply = healthy_cluster();
    reply.mutable_targets(0)->set_failed(true);
    reply.mutable_targets(0)->set_failure("slab.3: Input/output error");
    reply.mutable_targets(2)->set_free_bytes(1);

    StatusView view = judge_status(reply, local());

    EXPECT_TRUE(has_problem(view, "target 1 on storage-1 has failed", "dmesg"));
    EXPECT_TRUE(has_problem(view, "target 3 on storage-3 is nearly full: 1 B free", "rm"));
}

TEST(StatusViewTest, TextStartsWithTheHealthAndShowsCauseAndFix) {
    pb::StatusReply reply = healthy_cluster();
    reply.add_warnings("something odd");
    StatusView view = judge_status(reply, local());

    std::string text = status_text(view, reply, local());

    EXPECT_TRUE(text.starts_with("health:     degraded\n")) << text;
    EXPECT_NE(text.find("nodes:      3 of 3 online"), std::string::npos);
    EXPECT_NE(text.find("problem:    something odd\n  cause: "), std::string::npos);
    EXPECT_NE(text.find("fix:      see /s/log/mds.log"), std::string::npos);
}

TEST(StatusViewTest, UnreachableSaysWhyAndHowToStartIt) {
    StatusView view = unreachable_status("connection refused", local());

    EXPECT_EQ(view.health, Health::kUnreachable);
    std::string text = status_text(view, {}, local());
    EXPECT_TRUE(text.starts_with("health:     unreachable\n"));
    EXPECT_NE(text.find("connection refused"), std::string::npos);
    EXPECT_NE(text.find("kdfs up --dir /s"), std::string::npos);
    EXPECT_EQ(status_json(view, {}, local())["health"], "unreachable");
}

TEST(StatusViewTest, JsonHasWhatTheTextHas) {
    pb::StatusReply reply = healthy_cluster();
    set_state(reply, 2, 1, pb::MEMBER_SYNCING);
    pb::SessionStatus& session = *reply.add_sessions();
    session.set_id(9);
    session.set_name("host:1 /kdfs");

    nlohmann::json json = status_json(judge_status(reply, local()), reply, local());

    EXPECT_EQ(json["health"], "degraded");
    EXPECT_EQ(json["nodes"].size(), 3U);
    EXPECT_EQ(json["targets"][0]["chains_serving"], 1);
    EXPECT_EQ(json["targets"][0]["chains_syncing"], 1);
    EXPECT_EQ(json["chains"]["complete"], 2);
    EXPECT_EQ(json["sessions"][0]["name"], "host:1 /kdfs");
    EXPECT_EQ(json["problems"].size(), 1U);
}

TEST(StatusViewTest, BytesAreReadable) {
    EXPECT_EQ(human_bytes(0), "0 B");
    EXPECT_EQ(human_bytes(1023), "1023 B");
    EXPECT_EQ(human_bytes(1536), "1.5 KiB");
    EXPECT_EQ(human_bytes(UINT64_MAX), "16.0 EiB");
}

TEST(MountsTest, MountinfoIsParsedWithItsEscapes) {
    std::vector<Mount> mounts = parse_mounts(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "rubbish\n"
        "90 22 0:50 / /mnt/a\\040b rw,nosuid - fuse.kdfs kdfs:127.0.0.1:7000 rw,user_id=0\n");

    ASSERT_EQ(mounts.size(), 2U);
    EXPECT_EQ(mounts[0].type, "ext4");
    EXPECT_EQ(mounts[1].path, "/mnt/a b");
    EXPECT_EQ(mounts[1].source, "kdfs:127.0.0.1:7000");
    EXPECT_TRUE(mounts[1].is_kdfs());
}

TEST(DoctorTest, AMissingDeviceFailsWithAdvice) {
    DoctorPaths paths;
    paths.fuse_device = "/nonexistent/fuse";

    Finding finding = check_fuse_device(paths);

    EXPECT_EQ(finding.grade, Finding::Grade::kFail);
    EXPECT_NE(finding.advice.find("modprobe fuse"), std::string::npos);
}

TEST(DoctorTest, AnAbsentKernelParameterIsAWarningAndSpaceIsThatOfTheNearestFolder) {
    DoctorPaths paths;
    paths.fuse_uring = "/nonexistent/parameter";
    paths.space = "/nonexistent/deep/state";

    EXPECT_EQ(check_fuse_uring(paths).grade, Finding::Grade::kWarn);
    EXPECT_NE(check_space(paths).what.find("free at /"), std::string::npos);
}

}  // namespace
}  // namespace kdfs::tools
