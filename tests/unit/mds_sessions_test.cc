#include "mds/sessions.h"

#include <gtest/gtest.h>

namespace kdfs::mds {
namespace {

TimePoint at(int64_t seconds) { return TimePoint(std::chrono::seconds(seconds)); }

Session session(uint64_t id, TimePoint heard) {
    Session out;
    out.id = SessionId(id);
    out.name = "host /kdfs";
    out.heard = heard;
    out.resumed = true;
    return out;
}

TEST(SessionsTest, AContestedSessionEndsWithItsLease) {
    Sessions sessions(std::chrono::seconds(8));
    Session s = session(1, at(0));
    s.contested = true;
    ASSERT_TRUE(sessions.add(s).ok());

    EXPECT_TRUE(sessions.take_expired(at(8)).empty());
    EXPECT_EQ(sessions.take_expired(at(9)).size(), 1U);
    EXPECT_TRUE(sessions.take_expired(at(9)).empty());
    EXPECT_EQ(sessions.use(SessionId(1), at(9)).error().code, Errc::kFenced);
}

TEST(SessionsTest, ASessionInNobodysWayMayComeBackLate) {
    Sessions sessions(std::chrono::seconds(8));
    ASSERT_TRUE(sessions.add(session(1, at(0))).ok());

    EXPECT_TRUE(sessions.take_expired(at(60)).empty());
    EXPECT_TRUE(sessions.use(SessionId(1), at(60)).ok());
    EXPECT_TRUE(sessions.take_expired(at(120)).empty());
    EXPECT_EQ(sessions.take_expired(at(125)).size(), 1U);
}

TEST(SessionsTest, RequestsRenewTheLease) {
    Sessions sessions(std::chrono::seconds(8));
    Session s = session(1, at(0));
    s.contested = true;
    ASSERT_TRUE(sessions.add(s).ok());
    for (int64_t now = 5; now < 100; now += 5) {
        ASSERT_TRUE(sessions.use(SessionId(1), at(now)).ok());
        EXPECT_TRUE(sessions.take_expired(at(now)).empty());
    }
}

TEST(SessionsTest, ASessionIsEndedByItsWholeNameAndOnce) {
    Sessions sessions(std::chrono::seconds(8));
    sessions.restore(SessionId(1), "dead", "n1", at(0));
    sessions.restore(SessionId(2), "dead or not", "n1", at(0));

    EXPECT_TRUE(sessions.take_named("nobody").empty());
    EXPECT_EQ(sessions.take_named("dead"), std::vector<SessionId>{SessionId(1)});

    EXPECT_TRUE(sessions.take_named("dead").empty());
    EXPECT_EQ(sessions.use(SessionId(1), at(0)).error().code, Errc::kFenced);
    EXPECT_TRUE(sessions.take_expired(at(0)).empty());
}

TEST(SessionsTest, TheTimeInWhichTheServerStoodStillCountsForNobody) {
    Sessions sessions(std::chrono::seconds(8));
    Session s = session(1, at(0));
    s.contested = true;
    ASSERT_TRUE(sessions.add(s).ok());

    sessions.excuse(std::chrono::seconds(20), at(20));

    EXPECT_TRUE(sessions.take_expired(at(28)).empty());
    EXPECT_EQ(sessions.take_expired(at(29)).size(), 1U);
}

TEST(SessionsTest, AfterARestartGraceLastsUntilAllAreBackOrRunOut) {
    Sessions sessions(std::chrono::seconds(8));
    sessions.restore(SessionId(1), "a", "n1", at(0));
    sessions.restore(SessionId(2), "b", "n2", at(0));
    EXPECT_TRUE(sessions.in_grace());
    EXPECT_EQ(sessions.use(SessionId(1), at(0)).error().code, Errc::kBusy);

    sessions.find(SessionId(1))->resumed = true;
    sessions.find(SessionId(1))->contested = false;
    EXPECT_TRUE(sessions.in_grace());
    auto expired = sessions.take_expired(at(9));
    ASSERT_EQ(expired.size(), 1U);
    EXPECT_EQ(expired[0], SessionId(2));
    sessions.remove(SessionId(2));

    EXPECT_FALSE(sessions.in_grace());
    EXPECT_EQ(sessions.floor(SessionId(10)), SessionId(1));
}

TEST(SessionsTest, RecordsSurviveEncodingAndDamageIsNoticed) {
    Session s = session(77, at(0));
    s.node_name = "n3";
    std::string key = Sessions::key(s.id);
    std::string value = Sessions::encode(s);

    auto back = Sessions::decode(key, value);

    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->id, s.id);
    EXPECT_EQ(back->name, s.name);
    EXPECT_EQ(back->node_name, "n3");
    for (size_t n = 0; n < value.size(); ++n) {
        EXPECT_FALSE(Sessions::decode(key, value.substr(0, n)).ok());
    }
}

}  // namespace
}  // namespace kdfs::mds
