#include "tools/command.h"
#include "tools/scrub_view.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <sstream>

namespace kdfs::tools {
namespace {

// Two targets in one chain, the scrub of which has found a chunk that is lost.
pb::StatusReply reply_of() {
    pb::StatusReply reply;
    pb::ClusterMap& map = *reply.mutable_map();
    pb::Chain* chain = map.add_chains();
    for (uint64_t id = 1; id <= 2; ++id) {
        pb::Node* node = map.add_nodes();
        node->set_id(id);
        node->set_name("n" + std::to_string(id));
        pb::Target* target = map.add_targets();
        target->set_id(id);
        target->set_node(id);
        chain->add_members()->set_target(id);
        pb::TargetReport* report = reply.add_targets();
        report->set_target(id);
        pb::ScrubProgress* progress = report->mutable_scrub();
        progress->set_number(4);
        progress->set_chains(1);
        progress->set_chunks(10);
        progress->set_bytes(10 * MiB);
        progress->set_damaged(2);
        progress->set_repaired(1);
        progress->set_unrepairable(1);
    }
    map.mutable_scrub()->set_number(4);
    map.mutable_scrub()->set_running(true);
    map.mutable_scrub()->set_bytes_per_second(64 * MiB);
    pb::TargetReport* report = reply.mutable_targets(0);
    report->set_damaged_chunks(3);
    report->add_damaged()->set_data(17);
    report->mutable_damaged(0)->set_chain(1);
    report->mutable_damaged(0)->set_index(2);
    report->add_damaged()->set_data(99);
    return reply;
}

FileNames names_of() {
    FileNames names;
    FileName& file = names[17];
    file.ino = 5;
    file.path = "/a/b";
    file.layout.set_chunk_bytes(64 * KiB);
    return names;
}

TEST(ScrubViewTest, TargetsAreAddedUpAndLostFilesAreNamed) {
    pb::StatusReply reply = reply_of();
    ScrubView view = judge_scrub(reply);
    EXPECT_EQ(view.state, ScrubState::kRunning);
    EXPECT_EQ(view.total.chunks(), 20U);
    EXPECT_EQ(view.total.repaired(), 2U);
    EXPECT_EQ(view.lost, 3U);
    EXPECT_FALSE(view.sound());
    EXPECT_EQ(view.lost_data, (std::set<uint64_t>{17, 99}));

    std::string text = scrub_text(view, reply, names_of());
    EXPECT_NE(text.find("running, number 4"), std::string::npos) << text;
    EXPECT_NE(text.find("/a/b (inode 5), bytes from 131072 to 196607"), std::string::npos) << text;
    EXPECT_NE(text.find("data 99 piece 0, which belongs to no file"), std::string::npos) << text;
    EXPECT_NE(text.find("and 1 more"), std::string::npos) << text;

    nlohmann::json json = scrub_json(view, reply, names_of());
    EXPECT_EQ(json["state"], "running");
    EXPECT_EQ(json["lost_chunks"], 3);
    EXPECT_EQ(json["lost"][0]["path"], "/a/b");
    EXPECT_EQ(json["lost"][0]["offset"], 131072);
    EXPECT_EQ(json["targets"][1]["damaged"], 2);
}

TEST(ScrubViewTest, ItIsDoneWhenEveryTargetOfAChainIs) {
    pb::StatusReply reply = reply_of();
    reply.mutable_targets(0)->mutable_scrub()->set_finished(true);
    EXPECT_EQ(judge_scrub(reply).state, ScrubState::kRunning);
    reply.mutable_targets(1)->mutable_scrub()->set_finished(true);
    EXPECT_EQ(judge_scrub(reply).state, ScrubState::kDone);
    // What was found by an older one does not count.
    reply.mutable_map()->mutable_scrub()->set_number(5);
    ScrubView view = judge_scrub(reply);
    EXPECT_EQ(view.state, ScrubState::kRunning);
    EXPECT_EQ(view.total.chunks(), 0U);
    reply.mutable_map()->mutable_scrub()->set_running(false);
    EXPECT_EQ(judge_scrub(reply).state, ScrubState::kStopped);
    EXPECT_EQ(judge_scrub(pb::StatusReply()).state, ScrubState::kNone);
}

TEST(ScrubViewTest, WrongWordsAreRefused) {
    for (const std::vector<std::string>& words : {std::vector<std::string>{"scrub"},
                                                  {"scrub", "begin"},
                                                  {"scrub", "stop", "--rate", "1M"},
                                                  {"scrub", "start", "--json"},
                                                  {"scrub", "start", "--rate", "fast"},
                                                  {"scrub", "start", "--wait", "1"},
                                                  {"scrub", "status", "--wait", "x"},
                                                  {"scrub", "start", "--rat", "1M"}}) {
        std::ostringstream out;
        std::ostringstream err;
        Console console{out, err};
        EXPECT_EQ(run_kdfs(words, console), kExitUsage) << err.str();
        EXPECT_FALSE(err.str().empty());
    }
}

}  // namespace
}  // namespace kdfs::tools
