// Calls over the real transport between two ends in one process.

#include "kdfs/base/spdlog_sink.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/real_env.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

std::unique_ptr<RealEnv> make_env(LogSink& log) {
    TcpTransportOptions options;
    options.self.role = PeerRole::kTool;
    options.self.name = "test";
    options.cluster_id = "c1";
    auto env = RealEnv::create(log, std::move(options));
    KDFS_CHECK(env.ok());
    return std::move(*env);
}

// What the server does is in the body of the request.
struct Served {
    Env& env;
    Event release;
    size_t waiting = 0;
    std::shared_ptr<RpcConnection> peer;

    static Task<Result<RpcReply>> serve(Served& self, RpcRequest request) {
        std::string what(request.body.view());
        self.peer = request.connection;
        if (what == "fail") {
            co_return Error(Errc::kNoSpace, "target t3 is full");
        }
        if (what == "wait") {
            ++self.waiting;
            co_await self.release.wait();
        }
        if (what == "call back") {
            RpcCall call(MessageType::kRecall,
                         Buffer::copy_of(std::string_view("from the server")),
                         self.env.now() + std::chrono::seconds(10));
            co_return co_await request.connection->call(std::move(call));
        }
        co_return RpcReply(request.body, request.payload);
    }
};

class RpcTest : public testing::Test {
protected:
    RpcTest() : env_(make_env(log_)), served_{*env_, {}, 0, {}} {
        start("127.0.0.1:0");
        RpcHandler client = [](RpcRequest request) { return echo(std::move(request)); };
        channel_ = std::make_unique<RpcChannel>(*env_,
                                                server_->address(),
                                                ChannelKind::kControl,
                                                std::move(client));
    }
    ~RpcTest() override {
        served_.release.set();
        served_.peer.reset();
        run_task(*loop(), stop(*channel_, server_.get()));
    }
    void start(std::string address) {
        RpcHandler handler = [this](RpcRequest request) {
            return Served::serve(served_, std::move(request));
        };
        server_ = std::make_unique<RpcServer>(*env_, std::move(handler));
        Status listening = run_task(*loop(), server_->listen(std::move(address)));
        KDFS_CHECK(listening.ok());
    }
    void stop_server() {
        served_.peer.reset();
        run_task(*loop(), stop_one(*server_));
        server_.reset();
    }
    Reactor* loop() { return &env_->reactor(); }
    RpcCall call_of(const std::string& what, Duration time = std::chrono::seconds(10)) {
        BufferChain payload(Buffer::copy_of(std::string_view("payload")));
        return RpcCall(MessageType::kStatus,
                       Buffer::copy_of(std::string_view(what)),
                       std::move(payload),
                       env_->now() + time);
    }
    Result<RpcReply> call(const std::string& what, Duration time = std::chrono::seconds(10)) {
        return run_task(*loop(), channel_->call(call_of(what, time)));
    }
    static Task<Result<RpcReply>> echo(RpcRequest request) { co_return RpcReply(request.body); }
    static Task<bool> stop_one(RpcServer& server) {
        co_await server.stop();
        co_return true;
    }
    static Task<bool> stop(RpcChannel& channel, RpcServer* server) {
        co_await channel.stop();
        if (server != nullptr) {
            co_await server->stop();
        }
        co_return true;
    }
    static Task<bool> pause(Scheduler& scheduler) {
        co_await sleep_for(scheduler, std::chrono::milliseconds(5));
        co_return true;
    }
    static Task<void> collect(RpcChannel& channel,
                              RpcCall call,
                              std::vector<Result<RpcReply>>& replies,
                              Event& changed) {
        Result<RpcReply> reply = co_await channel.call(std::move(call));
        replies.push_back(std::move(reply));
        changed.pulse();
    }
    static Task<bool> until_waiting(Served& served, Scheduler& scheduler, size_t count) {
        while (served.waiting < count) {
            co_await sleep_for(scheduler, std::chrono::milliseconds(1));
        }
        co_return true;
    }
    static Task<bool> until_replies(std::vector<Result<RpcReply>>& replies,
                                    size_t count,
                                    Event& changed) {
        while (replies.size() < count) {
            co_await changed.wait();
        }
        co_return true;
    }

    NullLogSink log_;
    std::unique_ptr<RealEnv> env_;
    Served served_;
    std::unique_ptr<RpcServer> server_;
    std::unique_ptr<RpcChannel> channel_;
};

TEST_F(RpcTest, ReplyCarriesBodyAndPayload) {
    Result<RpcReply> reply = call("hello");
    ASSERT_TRUE(reply.ok()) << reply.error().to_string();
    EXPECT_EQ(reply->body.view(), "hello");
    EXPECT_EQ(reply->payload.flatten().view(), "payload");
}

TEST_F(RpcTest, ErrorOfTheHandlerTravelsWithItsText) {
    Result<RpcReply> reply = call("fail");
    ASSERT_FALSE(reply.ok());
    EXPECT_EQ(reply.error().code, Errc::kNoSpace);
    EXPECT_EQ(reply.error().detail, "target t3 is full");
}

TEST_F(RpcTest, ServerCallsBackOverTheSameConnection) {
    Result<RpcReply> reply = call("call back");
    ASSERT_TRUE(reply.ok()) << reply.error().to_string();
    EXPECT_EQ(reply->body.view(), "from the server");
}

TEST_F(RpcTest, CallEndsAtItsDeadlineAndTheConnectionServesOn) {
    Result<RpcReply> late = call("wait", std::chrono::milliseconds(20));
    ASSERT_FALSE(late.ok());
    EXPECT_EQ(late.error().code, Errc::kTimeout);
    EXPECT_TRUE(call("hello").ok());
}

TEST_F(RpcTest, AnswersComeInAnyOrder) {
    std::vector<Result<RpcReply>> replies;
    Event changed;
    TaskScope scope(env_->scheduler());
    scope.spawn(collect(*channel_, call_of("wait"), replies, changed));
    run_task(*loop(), until_waiting(served_, env_->scheduler(), 1));
    EXPECT_TRUE(call("overtakes").ok());
    EXPECT_TRUE(replies.empty());
    served_.release.set();
    run_task(*loop(), until_replies(replies, 1, changed));
    EXPECT_TRUE(replies[0].ok());
}

TEST_F(RpcTest, BrokenConnectionFailsWhatWaitsAndTheNextCallConnectsAnew) {
    std::vector<Result<RpcReply>> replies;
    Event changed;
    TaskScope scope(env_->scheduler());
    scope.spawn(collect(*channel_, call_of("wait"), replies, changed));
    run_task(*loop(), until_waiting(served_, env_->scheduler(), 1));
    std::string address = server_->address();

    served_.peer.reset();
    server_ = nullptr;
    run_task(*loop(), until_replies(replies, 1, changed));
    Result<RpcReply> nobody = call("hello");
    start(address);
    Result<RpcReply> again = call("hello");
    while (!again.ok() && again.error().code == Errc::kUnreachable) {
        run_task(*loop(), pause(env_->scheduler()));
        again = call("hello");
    }

    ASSERT_FALSE(replies[0].ok());
    EXPECT_EQ(replies[0].error().code, Errc::kUnreachable);
    ASSERT_FALSE(nobody.ok());
    EXPECT_EQ(nobody.error().code, Errc::kUnreachable);
    EXPECT_TRUE(again.ok());
}

TEST_F(RpcTest, MoreThanTheBoundAtOnceAreRefusedNotQueued) {
    std::vector<Result<RpcReply>> replies;
    Event changed;
    TaskScope scope(env_->scheduler());
    constexpr size_t kExtra = 10;
    for (size_t i = 0; i < RpcConnection::kInFlightMax + kExtra; ++i) {
        scope.spawn(collect(*channel_, call_of("wait"), replies, changed));
    }
    run_task(*loop(), until_replies(replies, kExtra, changed));
    EXPECT_EQ(replies.size(), kExtra);
    for (const Result<RpcReply>& reply : replies) {
        ASSERT_FALSE(reply.ok());
        EXPECT_EQ(reply.error().code, Errc::kOverloaded);
    }
    served_.release.set();
    run_task(*loop(), until_replies(replies, RpcConnection::kInFlightMax + kExtra, changed));
}

TEST_F(RpcTest, ServerStopsWhileRequestsAreServed) {
    std::vector<Result<RpcReply>> replies;
    Event changed;
    TaskScope scope(env_->scheduler());
    scope.spawn(collect(*channel_, call_of("wait"), replies, changed));
    run_task(*loop(), until_waiting(served_, env_->scheduler(), 1));
    served_.release.set();
    stop_server();
    run_task(*loop(), until_replies(replies, 1, changed));
}

}  // namespace
}  // namespace kdfs
