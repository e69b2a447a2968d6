#pragma once

#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"
#include "kdfs/rt/transport.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::contract {

// What a Transport contract suite needs of an implementation: a world, a class with these members.
//   Scheduler& scheduler();
//   void run(Task<void> task);     // runs the loop until the task has ended
//   Transport& server();           // two nodes of one cluster that reach each other
//   Transport& client();
//   PeerIdentity server_identity();
//   PeerIdentity client_identity();
//   std::string listen_address();  // where server() may listen; a free port each time
// The world is built anew for each test.
template <class World>
class TransportContract : public testing::Test {
protected:
    World world_;
};

// One end of a connection, collecting what arrives.
struct End {
    std::shared_ptr<Connection> connection;
    ChannelKind kind = ChannelKind::kControl;
    std::vector<Frame> frames;
    std::optional<Error> closed;
    size_t after_close = 0;
    Event changed;

    void attach(std::shared_ptr<Connection> to) {
        connection = std::move(to);
        Connection::Handlers handlers;
        handlers.on_frame = [this](Frame frame) {
            after_close += closed ? 1 : 0;
            frames.push_back(std::move(frame));
            changed.pulse();
        };
        handlers.on_close = [this](Error reason) {
            after_close += closed ? 1 : 0;
            closed = std::move(reason);
            changed.pulse();
        };
        connection->start(std::move(handlers));
        changed.pulse();
    }
};

inline Frame make_frame(uint64_t id, std::string body, std::string payload) {
    Frame frame;
    frame.header.type = 7;
    frame.header.request_id = id;
    frame.header.trace_id = id * 3;
    frame.header.job_tag = id * 5;
    frame.header.deadline_ms = 1234;
    frame.body = Buffer::copy_of(std::string_view(body));
    if (!payload.empty()) {
        // In two pieces, as a slice of a larger buffer and a small rest.
        Buffer whole = Buffer::copy_of(std::string_view(payload));
        size_t half = payload.size() / 2;
        frame.payload.append(whole.slice(0, half));
        frame.payload.append(whole.slice(half, payload.size() - half));
    }
    return frame;
}

inline std::string text_of(size_t size, size_t seed) {
    std::string out(size, '\0');
    for (size_t i = 0; i < size; ++i) {
        out[i] = static_cast<char>((i * 131 + seed + i / 4096) & 0xff);
    }
    return out;
}

// A listener and one connection through it.
struct Pair {
    Transport& server;
    Transport& client;
    Scheduler& scheduler;
    std::unique_ptr<Listener> listener;
    End accepted;
    End connected;

    template <class World>
    explicit Pair(World& world)
        : server(world.server()), client(world.client()), scheduler(world.scheduler()) {}

    TimePoint soon() const { return scheduler.now() + std::chrono::seconds(10); }
};

struct TransportCases {
    static Task<void> wait_frames(End& end, size_t count) {
        while (end.frames.size() < count && !end.closed) {
            co_await end.changed.wait();
        }
    }
    static Task<void> wait_closed(End& end) {
        while (!end.closed) {
            co_await end.changed.wait();
        }
    }

    static Task<bool> open(Pair& pair, std::string address, ChannelKind kind) {
        Transport::AcceptHandler on_accept = [&pair](std::shared_ptr<Connection> connection,
                                                     ChannelKind accepted_kind) {
            pair.accepted.kind = accepted_kind;
            pair.accepted.attach(std::move(connection));
        };
        auto listener = co_await pair.server.listen(std::move(address), std::move(on_accept));
        EXPECT_TRUE(listener.ok());
        if (!listener.ok()) {
            co_return false;
        }
        pair.listener = std::move(*listener);
        auto connected = co_await pair.client.connect(pair.listener->address(), kind, pair.soon());
        if (!connected.ok()) {
            ADD_FAILURE() << connected.error().to_string();
            co_return false;
        }
        pair.connected.attach(std::move(*connected));
        while (!pair.accepted.connection) {
            co_await pair.accepted.changed.wait();
        }
        co_return true;
    }

    static void expect_frame(const Frame& frame, uint64_t id, const std::string& body) {
        EXPECT_EQ(frame.header.request_id, id);
        EXPECT_EQ(frame.header.trace_id, id * 3);
        EXPECT_EQ(frame.header.job_tag, id * 5);
        EXPECT_EQ(frame.header.type, 7);
        EXPECT_EQ(frame.header.deadline_ms, 1234U);
        EXPECT_TRUE(frame.body.view() == body);
    }

    static Task<void> both_ways(Pair& pair, std::string address, ChannelKind kind) {
        bool opened = co_await open(pair, std::move(address), kind);
        if (!opened) {
            co_return;
        }
        std::string large = text_of(1 * MiB, 9);

        pair.connected.connection->send(make_frame(1, "", ""));
        pair.connected.connection->send(make_frame(2, "hello", ""));
        pair.connected.connection->send(make_frame(3, "with payload", large));
        pair.connected.connection->send(make_frame(4, text_of(2 * MiB, 1), "x"));
        co_await wait_frames(pair.accepted, 4);
        pair.accepted.connection->send(make_frame(5, "back", large));
        co_await wait_frames(pair.connected, 1);

        EXPECT_EQ(pair.accepted.kind, kind);
        EXPECT_EQ(pair.accepted.frames.size(), 4U);
        EXPECT_EQ(pair.connected.frames.size(), 1U);
        if (pair.accepted.frames.size() != 4 || pair.connected.frames.size() != 1) {
            co_return;
        }
        expect_frame(pair.accepted.frames[0], 1, "");
        expect_frame(pair.accepted.frames[1], 2, "hello");
        expect_frame(pair.accepted.frames[2], 3, "with payload");
        EXPECT_TRUE(pair.accepted.frames[2].payload.flatten().view() == large);
        expect_frame(pair.accepted.frames[3], 4, text_of(2 * MiB, 1));
        EXPECT_EQ(pair.accepted.frames[3].payload.flatten().view(), "x");
        expect_frame(pair.connected.frames[0], 5, "back");
        EXPECT_TRUE(pair.connected.frames[0].payload.flatten().view() == large);
    }

    static Task<void> many_in_order(Pair& pair, std::string address, ChannelKind kind) {
        bool opened = co_await open(pair, std::move(address), kind);
        if (!opened) {
            co_return;
        }
        constexpr uint64_t kFrames = 2000;

        for (uint64_t i = 0; i < kFrames; ++i) {
            pair.connected.connection->send(
                make_frame(i, text_of(i % 300, i), text_of(i % 7 == 0 ? i * 9 : 0, i)));
            pair.accepted.connection->send(make_frame(i, text_of(i % 50, i), ""));
        }
        co_await wait_frames(pair.accepted, kFrames);
        co_await wait_frames(pair.connected, kFrames);

        EXPECT_EQ(pair.accepted.frames.size(), kFrames);
        EXPECT_EQ(pair.connected.frames.size(), kFrames);
        for (uint64_t i = 0; i < pair.accepted.frames.size(); ++i) {
            expect_frame(pair.accepted.frames[i], i, text_of(i % 300, i));
        }
        EXPECT_EQ(pair.connected.connection->queued_bytes(), 0U);
    }

    static Task<void> streams_both_ways(Pair& pair, std::string address, ChannelKind kind) {
        bool opened = co_await open(pair, std::move(address), kind);
        if (!opened) {
            co_return;
        }
        constexpr uint64_t kFrames = 24;
        std::string large = text_of(1 * MiB, 3);

        // Far more than the sockets hold, so that both ends have to wait for room.
        for (uint64_t i = 0; i < kFrames; ++i) {
            pair.connected.connection->send(make_frame(i, "there", large));
            pair.accepted.connection->send(make_frame(i, "back", large));
        }
        co_await wait_frames(pair.accepted, kFrames);
        co_await wait_frames(pair.connected, kFrames);

        EXPECT_EQ(pair.accepted.frames.size(), kFrames);
        EXPECT_EQ(pair.connected.frames.size(), kFrames);
        for (const Frame& frame : pair.accepted.frames) {
            EXPECT_TRUE(frame.payload.flatten().view() == large);
        }
    }

    static Task<void> identities(Pair& pair, std::string address) {
        bool opened = co_await open(pair, std::move(address), ChannelKind::kControl);
        if (!opened) {
            co_return;
        }
    }

    static Task<void> queued_before_close(Pair& pair, std::string address) {
        bool opened = co_await open(pair, std::move(address), ChannelKind::kData);
        if (!opened) {
            co_return;
        }

        pair.connected.connection->send(make_frame(1, "last words", text_of(100000, 1)));
        pair.connected.connection->close(Error(Errc::kCancelled, "enough"));
        pair.connected.connection->send(make_frame(2, "too late", ""));
        EXPECT_FALSE(pair.connected.closed.has_value());
        co_await wait_closed(pair.connected);
        co_await wait_closed(pair.accepted);

        EXPECT_EQ(pair.accepted.frames.size(), 1U);
        EXPECT_EQ(pair.connected.closed->code, Errc::kCancelled);
        EXPECT_EQ(pair.connected.closed->detail, "enough");
        EXPECT_EQ(pair.accepted.closed->code, Errc::kUnreachable);
        // Closing twice, or sending on a closed connection, does nothing.
        pair.accepted.connection->close(Error(Errc::kCancelled, "again"));
        pair.accepted.connection->send(make_frame(3, "nobody", ""));
        co_await yield_turn(pair.scheduler);
        EXPECT_EQ(pair.accepted.after_close + pair.connected.after_close, 0U);
    }

    static Task<void> dropped(Pair& pair, std::string address) {
        bool opened = co_await open(pair, std::move(address), ChannelKind::kControl);
        if (!opened) {
            co_return;
        }

        pair.connected.connection.reset();
        co_await wait_closed(pair.accepted);

        EXPECT_EQ(pair.accepted.closed->code, Errc::kUnreachable);
    }

    static Task<void> without_listener(Pair& pair, std::string address) {
        bool opened = co_await open(pair, std::move(address), ChannelKind::kControl);
        if (!opened) {
            co_return;
        }
        std::string real = pair.listener->address();

        pair.listener.reset();
        auto refused = co_await pair.client.connect(real, ChannelKind::kControl, pair.soon());
        pair.connected.connection->send(make_frame(1, "still here", ""));
        co_await wait_frames(pair.accepted, 1);

        EXPECT_EQ(pair.accepted.frames.size(), 1U);
        EXPECT_FALSE(refused.ok());
        if (!refused.ok()) {
            EXPECT_EQ(refused.error().code, Errc::kUnreachable);
            EXPECT_NE(refused.error().detail.find(real), std::string::npos);
        }
    }

    static Task<void> address_taken(Pair& pair, std::string address) {
        bool opened = co_await open(pair, std::move(address), ChannelKind::kControl);
        if (!opened) {
            co_return;
        }
        std::string real = pair.listener->address();

        Transport::AcceptHandler nobody = [](std::shared_ptr<Connection>, ChannelKind) {};
        auto second = co_await pair.server.listen(real, std::move(nobody));

        EXPECT_FALSE(second.ok());
        if (!second.ok()) {
            EXPECT_EQ(second.error().code, Errc::kBusy);
            EXPECT_NE(second.error().detail.find(real), std::string::npos);
        }
    }
};

TYPED_TEST_SUITE_P(TransportContract);

TYPED_TEST_P(TransportContract, ControlFramesArriveWholeBothWays) {
    Pair pair(this->world_);
    this->world_.run(
        TransportCases::both_ways(pair, this->world_.listen_address(), ChannelKind::kControl));
}
TYPED_TEST_P(TransportContract, DataFramesArriveWholeBothWays) {
    Pair pair(this->world_);
    this->world_.run(
        TransportCases::both_ways(pair, this->world_.listen_address(), ChannelKind::kData));
}
TYPED_TEST_P(TransportContract, ManyControlFramesArriveInOrder) {
    Pair pair(this->world_);
    this->world_.run(
        TransportCases::many_in_order(pair, this->world_.listen_address(), ChannelKind::kControl));
}
TYPED_TEST_P(TransportContract, ManyDataFramesArriveInOrder) {
    Pair pair(this->world_);
    this->world_.run(
        TransportCases::many_in_order(pair, this->world_.listen_address(), ChannelKind::kData));
}
TYPED_TEST_P(TransportContract, StreamsBeyondTheSocketsRoomArrive) {
    Pair data(this->world_);
    this->world_.run(
        TransportCases::streams_both_ways(data, this->world_.listen_address(), ChannelKind::kData));
    Pair control(this->world_);
    this->world_.run(TransportCases::streams_both_ways(control,
                                                       this->world_.listen_address(),
                                                       ChannelKind::kControl));
}
TYPED_TEST_P(TransportContract, BothEndsKnowEachOther) {
    Pair pair(this->world_);

    this->world_.run(TransportCases::identities(pair, this->world_.listen_address()));

    ASSERT_TRUE(pair.accepted.connection && pair.connected.connection);
    const PeerIdentity& client = pair.accepted.connection->peer();
    EXPECT_EQ(client.role, this->world_.client_identity().role);
    EXPECT_EQ(client.node, this->world_.client_identity().node);
    EXPECT_EQ(client.name, this->world_.client_identity().name);
    const PeerIdentity& server = pair.connected.connection->peer();
    EXPECT_EQ(server.role, this->world_.server_identity().role);
    EXPECT_EQ(server.node, this->world_.server_identity().node);
    EXPECT_EQ(server.name, this->world_.server_identity().name);
}
TYPED_TEST_P(TransportContract, WhatWasQueuedBeforeCloseArrivesAndNothingFollows) {
    Pair pair(this->world_);
    this->world_.run(TransportCases::queued_before_close(pair, this->world_.listen_address()));
}
TYPED_TEST_P(TransportContract, DroppedConnectionIsClosed) {
    Pair pair(this->world_);
    this->world_.run(TransportCases::dropped(pair, this->world_.listen_address()));
}
TYPED_TEST_P(TransportContract, WithoutAListenerConnectFailsAndAcceptedConnectionsStay) {
    Pair pair(this->world_);
    this->world_.run(TransportCases::without_listener(pair, this->world_.listen_address()));
}
TYPED_TEST_P(TransportContract, AddressInUseIsBusy) {
    Pair pair(this->world_);
    this->world_.run(TransportCases::address_taken(pair, this->world_.listen_address()));
}

REGISTER_TYPED_TEST_SUITE_P(TransportContract,
                            ControlFramesArriveWholeBothWays,
                            DataFramesArriveWholeBothWays,
                            ManyControlFramesArriveInOrder,
                            ManyDataFramesArriveInOrder,
                            StreamsBeyondTheSocketsRoomArrive,
                            BothEndsKnowEachOther,
                            WhatWasQueuedBeforeCloseArrivesAndNothingFollows,
                            DroppedConnectionIsClosed,
                            WithoutAListenerConnectFailsAndAcceptedConnectionsStay,
                            AddressInUseIsBusy);

}  // namespace kdfs::contract
