#include "kdfs/base/codec.h"
#include "kdfs/rpc/rpc.h"
#include "tests/sim/sim_node.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::sim {
namespace {

constexpr auto kAdd = static_cast<MessageType>(1000);
constexpr const char* kAddress = "server:1";
constexpr uint64_t kAddsPerClient = 40;

std::string number(uint64_t value) {
    std::string out;
    Writer(out).u64(value);
    return out;
}

uint64_t number_of(std::string_view bytes) { return Reader(bytes).u64(); }

// Adds to a counter, once per (client, sequence), durably before it answers.
class CounterServer final : public Process {
public:
    CounterServer(SimNode& node, Env& env)
        : store_(env, node.kv("counter")), server_(env, handler()) {}

    Task<Status> start() override { return server_.listen(kAddress); }
    Task<void> stop() override { return server_.stop(); }

private:
    RpcHandler handler() {
        return [this](RpcRequest request) { return add(std::move(request)); };
    }
    // Reads until what it needs is in memory.
    Task<uint64_t> read(std::string key) {
        while (true) {
            auto value = store_.get(key);
            if (value.ok()) {
                co_return *value ? number_of(**value) : 0;
            }
            Status loaded = co_await store_.load(key);
            EXPECT_TRUE(loaded.ok());
        }
    }
    Task<Result<RpcReply>> add(RpcRequest request) {
        Reader in(request.body.view());
        std::string client = "client" + std::to_string(in.u64());
        uint64_t sequence = in.u64();
        SemaphoreHold hold = co_await mutex_.lock();
        uint64_t last = co_await read(client);
        uint64_t total = co_await read("total");
        if (sequence > last) {
            EXPECT_EQ(sequence, last + 1);
            KvBatch batch;
            batch.put(client, number(sequence));
            batch.put("total", number(++total));
            EXPECT_TRUE(store_.apply(batch).ok());
        }
        hold.release();
        KDFS_CO_TRY(co_await store_.sync());
        co_return RpcReply(Buffer::copy_of(std::string_view(number(total))));
    }

    MemKv store_;
    AsyncMutex mutex_;
    RpcServer server_;
};

class CounterClient final : public Process {
public:
    CounterClient(Env& env, uint64_t id) : env_(env), id_(id), channel_(env, kAddress, kind()) {}
    Task<Status> start() override { co_return Status(); }
    Task<void> stop() override { return channel_.stop(); }
    uint64_t acknowledged() const { return acknowledged_; }
    uint64_t last_total() const { return last_total_; }

    static Task<void> add_all(CounterClient* self) {
        for (uint64_t sequence = 1; sequence <= kAddsPerClient; ++sequence) {
            while (!co_await self->add_once(sequence)) {
                co_await sleep_for(self->env_.scheduler(), std::chrono::milliseconds(50));
            }
            self->acknowledged_ = sequence;
        }
    }

private:
    static ChannelKind kind() { return ChannelKind::kControl; }
    Task<bool> add_once(uint64_t sequence) {
        Buffer body = Buffer::copy_of(std::string_view(number(id_) + number(sequence)));
        RpcCall call(kAdd, std::move(body), env_.now() + std::chrono::seconds(1));
        auto reply = co_await channel_.call(std::move(call));
        if (!reply.ok()) {
            co_return false;
        }
        uint64_t total = number_of(reply->body.view());
        EXPECT_GT(total, last_total_);
        last_total_ = total;
        co_return true;
    }

    Env& env_;
    uint64_t id_;
    uint64_t acknowledged_ = 0;
    uint64_t last_total_ = 0;
    RpcChannel channel_;
};

class CounterWorld {
public:
    explicit CounterWorld(uint64_t seed) : shared_(seed), random_(seed + 1) {
        SimNode::Factory make_server = [](SimNode& node, Env& env) {
            return std::make_unique<CounterServer>(node, env);
        };
        server_ = std::make_unique<SimNode>(shared_, identity("server"), make_server);
        for (uint64_t id = 1; id <= 3; ++id) {
            SimNode::Factory make_client = [id](SimNode&, Env& env) {
                return std::make_unique<CounterClient>(env, id);
            };
            PeerIdentity who = identity("client" + std::to_string(id));
            clients_.push_back(std::make_unique<SimNode>(shared_, who, make_client));
        }
        NetworkFaults& faults = shared_.network.faults();
        faults.stall_ppm = static_cast<uint32_t>(random_.below(20'000));
        faults.break_ppm = static_cast<uint32_t>(random_.below(50'000));
        faults.hang_ppm = static_cast<uint32_t>(random_.below(10'000));
        faults.duplicate_ppm = static_cast<uint32_t>(random_.below(100'000));
        faults.connect_fail_ppm = static_cast<uint32_t>(random_.below(100'000));
        shared_.faults.set_enabled(true);
        server_->boot();
        for (auto& client : clients_) {
            client->boot();
            auto& process = dynamic_cast<CounterClient&>(client->process());
            client->spawn(CounterClient::add_all(&process));
        }
    }

    // Breaks things for a while, then lets everyone finish.
    void run() {
        for (int turn = 0; turn < 40; ++turn) {
            run_for(std::chrono::milliseconds(random_.range(1, 500)));
            break_something();
        }
        shared_.network.faults() = NetworkFaults();
        shared_.faults.set_enabled(false);
        shared_.network.heal();
        if (!server_->running()) {
            server_->boot();
        }
        run_for(std::chrono::seconds(120));
        for (auto& client : clients_) {
            auto& process = dynamic_cast<CounterClient&>(client->process());
            EXPECT_EQ(process.acknowledged(), kAddsPerClient)
                << client->name() << " did not finish";
        }
        std::string total = server_->kv("counter").map().at("total");
        EXPECT_EQ(number_of(total), kAddsPerClient * clients_.size());
    }
    uint64_t digest() const { return shared_.clock.digest(); }

private:
    static PeerIdentity identity(std::string name) {
        PeerIdentity out;
        out.name = std::move(name);
        return out;
    }
    void run_for(Duration time) {
        TimePoint until = shared_.clock.now() + time;
        while (shared_.clock.run_one(until)) {
        }
    }
    void break_something() {
        SimNode& client = *clients_[random_.below(clients_.size())];
        switch (random_.below(6)) {
            case 0:
                server_->kill();
                break;
            case 1:
                server_->cut_power();
                break;
            case 2:
            case 3:
                if (!server_->running()) {
                    server_->boot();
                }
                break;
            case 4:
                shared_.network.set_blocked(client.machine(), server_->machine(), true);
                break;
            default:
                shared_.network.heal();
                break;
        }
    }

    SimShared shared_;
    Random random_;
    std::unique_ptr<SimNode> server_;
    std::vector<std::unique_ptr<SimNode>> clients_;
};

TEST(RpcUnderFaults, EveryAddCountsOnce) {
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        CounterWorld(seed).run();
    }
}

TEST(RpcUnderFaults, TheSameSeedGivesTheSameTrace) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
        CounterWorld first(seed);
        CounterWorld second(seed);
        first.run();
        second.run();
        EXPECT_EQ(first.digest(), second.digest()) << "seed " << seed;
    }
    CounterWorld one(1);
    CounterWorld other(2);
    one.run();
    other.run();
    EXPECT_NE(one.digest(), other.digest());
}

}  // namespace
}  // namespace kdfs::sim
