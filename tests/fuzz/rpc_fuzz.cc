// One end of an RPC connection, with calls under way, and any frames from the other end.
//   per frame: u8 flags, u8 type, u8 request id, part body, part payload

#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/wire.h"
#include "kdfs/rpc/rpc.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/sim/sim_env.h"

#include <memory>
#include <utility>

namespace kdfs::fuzz {
namespace {

constexpr int kCallsUnderWay = 8;

class FakeConnection final : public Connection {
public:
    void start(Handlers handlers) override { handlers_ = std::move(handlers); }
    void send(Frame frame) override {
        ++sent_;
        if (frame.header.is_error()) {
            require(decode<pb::ErrorBody>(frame.body).ok(), "an error can be read by its receiver");
        }
    }
    uint64_t queued_bytes() const override { return 0; }
    void close(Error reason) override {
        if (handlers_.on_close) {
            handlers_.on_close(std::move(reason));
        }
    }
    const PeerIdentity& peer() const override { return peer_; }
    void deliver(Frame frame) { handlers_.on_frame(std::move(frame)); }
    size_t sent() const { return sent_; }

private:
    Handlers handlers_;
    PeerIdentity peer_;
    size_t sent_ = 0;
};

Task<void> make_call(std::shared_ptr<RpcConnection> rpc, TimePoint deadline, size_t* ended) {
    RpcCall call(MessageType::kMeta, Buffer(), deadline);
    auto reply = co_await rpc->call(std::move(call));
    if (!reply.ok()) {
        require(!errc_name(reply.error().code).empty(), "an error has a name");
    }
    ++*ended;
}

Task<Result<RpcReply>> answer(RpcRequest request) {
    if (request.body.size() % 2 == 1) {
        co_return Error(Errc::kInvalidArgument, std::string(request.body.view()));
    }
    co_return RpcReply(std::move(request.body), std::move(request.payload));
}

Frame next_frame(Input& input) {
    Frame frame;
    frame.header.flags = input.u8() % 4;
    frame.header.type = input.u8();
    frame.header.request_id = input.u8();
    frame.body = Buffer::copy_of(input.part());
    frame.payload = BufferChain(Buffer::copy_of(input.part()));
    return frame;
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    sim::SimShared shared(1);
    sim::SimEnv env(shared, 1, PeerIdentity());
    size_t ended = 0;
    size_t requests = 0;
    {
        RpcHandler handler = fuzz::answer;
        TaskScope scope(env.scheduler());
        auto connection = std::make_shared<fuzz::FakeConnection>();
        auto rpc = RpcConnection::start(env, scope, connection, &handler);
        TimePoint deadline = env.now() + std::chrono::seconds(1);
        for (int i = 0; i < fuzz::kCallsUnderWay; ++i) {
            scope.spawn(fuzz::make_call(rpc, deadline, &ended));
        }
        while (shared.clock.run_one(shared.clock.now())) {
        }
        while (!input.empty()) {
            Frame frame = fuzz::next_frame(input);
            requests += !frame.header.is_response() && frame.header.request_id != 0 ? 1 : 0;
            connection->deliver(std::move(frame));
        }
        while (shared.clock.run_one(shared.clock.now() + std::chrono::seconds(2))) {
        }
        fuzz::require(ended == fuzz::kCallsUnderWay, "every call ends");
        fuzz::require(connection->sent() == requests + fuzz::kCallsUnderWay,
                      "every request is answered once");
    }
    return 0;
}
