// The client library against servers whose answers are any bytes. Whatever they are, operations end
// and nothing of the process is lost.
//   u8 mode: 1 the answer to OpenSession comes from the input too;
//   u8 operations, that many bytes: which operation each is;
//   then one answer per request: u8 kind, part body, u16 payload in units of 64 bytes;
//   kind: 0 to 3 an answer, 4 an error with the body's first byte as its code,
//   5 a recall with this body before an empty answer, 6 a map update with it

#include "client/file_client.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "tests/fuzz/fuzz_world.h"

#include <sys/stat.h>

#include <cstring>

namespace kdfs::fuzz {
namespace {

constexpr const char* kServer = "mds:1";
constexpr uint8_t kOwnOpening = 1;
constexpr size_t kOperationsMax = 16;
// Of an answer: the rest of the input may be short, but is used again from its start.
constexpr size_t kAnswersMax = 400;

// One server for everything: sessions, names and chunks.
class Servers {
public:
    Servers(std::string_view script, bool own_opening)
        : script_(script), input_(script), own_opening_(own_opening) {}

    Task<Result<RpcReply>> answer(RpcRequest request) {
        if (request.type == MessageType::kOpenSession && !own_opening_) {
            pb::OpenSessionReply reply;
            reply.set_session(5);
            reply.set_lease_ms(8000);
            fill_map(*reply.mutable_map());
            co_return RpcReply(encode(reply));
        }
        if (++answers_ > kAnswersMax) {
            co_return Error(Errc::kNotFound, "enough");
        }
        if (input_.empty()) {
            input_ = Input(script_);
        }
        uint8_t kind = input_.u8() % 7;
        Buffer body = Buffer::copy_of(input_.part());
        size_t bytes = std::min<size_t>(size_t{input_.u16()} * 64, kPayloadBytesMax);
        if (kind == 4) {
            uint32_t code = body.empty() ? 1 : static_cast<uint32_t>(body.span()[0]);
            co_return Error(errc_from_wire(code), "as the input says");
        }
        if (kind >= 5) {
            request.connection->notify(kind == 5 ? MessageType::kRecall : MessageType::kMapUpdate,
                                       std::move(body));
            co_return RpcReply(Buffer());
        }
        co_return RpcReply(std::move(body), BufferChain(Buffer::zeros(bytes)));
    }

private:
    static void fill_map(pb::ClusterMap& map) {
        map.set_epoch(2);
        map.set_cluster_id("fuzz");
        pb::Node* node = map.add_nodes();
        node->set_id(1);
        node->set_address(kServer);
        node->set_online(true);
        pb::Target* target = map.add_targets();
        target->set_id(1);
        target->set_node(1);
        pb::ChainTable* table = map.add_tables();
        table->set_id(1);
        for (uint64_t id = 1; id <= 3; ++id) {
            pb::Chain* chain = map.add_chains();
            chain->set_id(id);
            chain->set_version(1);
            pb::ChainMember* member = chain->add_members();
            member->set_target(1);
            member->set_state(pb::MEMBER_SERVING);
            table->add_chains(id);
        }
    }
    std::string script_;
    Input input_;
    bool own_opening_;
    size_t answers_ = 0;
};

class ClientProcess final : public sim::Process {
public:
    explicit ClientProcess(Env& env) : env_(env), files_(env, options(), nullptr) {}
    Task<Status> start() override {
        co_return co_await files_.start(env_.now() + std::chrono::seconds(2));
    }
    Task<void> stop() override { (void)co_await files_.stop(); }
    client::FileClient& files() { return files_; }

private:
    static client::ClientOptions options() {
        client::ClientOptions out;
        out.mds_address = kServer;
        out.name = "fuzz";
        out.write_buffer_bytes = 2 * MiB;
        out.read_ahead_bytes = 256 * KiB;
        out.read_cache_bytes = MiB;
        out.window_bytes = MiB;
        out.patience = std::chrono::seconds(2);
        return out;
    }
    Env& env_;
    client::FileClient files_;
};

// What a user of the library does, with whatever came of it before.
class User {
public:
    explicit User(client::FileClient& files) : files_(files) {}

    Task<void> run(std::string operations) {
        for (char operation : operations) {
            co_await one(static_cast<uint8_t>(operation) % 16);
        }
        for (client::OpenId id : opened_) {
            files_.release(id);
        }
    }

private:
    Task<void> one(uint8_t operation) {
        if (operation < 5) {
            co_await name_operation(operation);
        } else if (operation < 9) {
            co_await attribute_operation(operation);
        } else {
            co_await file_operation(operation);
        }
    }
    void take(const Result<client::Opened>& opened) {
        if (opened.ok()) {
            opened_.push_back(opened->id);
            last_ = InodeId(opened->attr.ino());
        }
    }
    Task<void> name_operation(uint8_t operation) {
        if (operation == 0) {
            auto found = co_await files_.lookup(kRootInode, "name");
            if (found.ok()) {
                last_ = InodeId(found->ino());
            }
        } else if (operation == 1) {
            pb::Create request;
            request.set_parent(kRootInode.value);
            request.set_name("new");
            request.set_mode(S_IFREG | 0644);
            auto made = co_await files_.create(std::move(request));
            take(made);
        } else if (operation == 2) {
            (void)co_await files_.list(kRootInode, "");
        } else if (operation == 3) {
            (void)co_await files_.unlink(kRootInode, "name");
        } else {
            pb::Rename request;
            request.set_parent(kRootInode.value);
            request.set_name("name");
            request.set_new_parent(kRootInode.value);
            request.set_new_name("other");
            (void)co_await files_.rename(std::move(request));
        }
    }
    Task<void> attribute_operation(uint8_t operation) {
        if (operation == 5) {
            (void)co_await files_.getattr(last_);
        } else if (operation == 6) {
            pb::SetAttr request;
            request.set_ino(last_.value);
            request.set_size(70000);
            (void)co_await files_.setattr(std::move(request));
        } else if (operation == 7) {
            (void)co_await files_.listxattr(last_);
        } else {
            (void)co_await files_.statfs();
        }
    }
    Task<void> file_operation(uint8_t operation) {
        if (operation == 9) {
            client::OpenOptions options;
            options.write = true;
            auto opened = co_await files_.open(last_, options);
            take(opened);
            co_return;
        }
        if (opened_.empty()) {
            co_return;
        }
        client::OpenId id = opened_.back();
        if (operation <= 11) {
            Buffer data = Buffer::zeros(operation == 10 ? 100 : 300000);
            client::WriteOp op(id, operation == 10 ? 50 : 0, std::move(data));
            (void)co_await files_.write(std::move(op));
        } else if (operation <= 13) {
            uint64_t offset = operation == 12 ? 0 : 65530;
            (void)co_await files_.read(id, offset, 200000);
        } else {
            (void)co_await files_.fsync(id, operation == 14);
        }
    }
    client::FileClient& files_;
    InodeId last_ = kRootInode;
    std::vector<client::OpenId> opened_;
};

Task<void> stop(sim::Process* process) { co_await process->stop(); }

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    uint8_t mode = input.u8();
    std::string operations(std::min<size_t>(input.u8(), fuzz::kOperationsMax), '\0');
    for (char& operation : operations) {
        operation = static_cast<char>(input.u8());
    }
    fuzz::Servers servers(input.rest(), (mode & fuzz::kOwnOpening) != 0);
    fuzz::World world;
    sim::SimNode& server = world.add("mds", 0, [&servers](sim::SimNode&, Env& env) {
        RpcHandler handler = [&servers](RpcRequest request) {
            return servers.answer(std::move(request));
        };
        return std::make_unique<fuzz::Peer>(env, fuzz::kServer, std::move(handler));
    });
    server.boot();
    sim::SimNode& client = world.add("client", 0, [](sim::SimNode&, Env& env) {
        return std::make_unique<fuzz::ClientProcess>(env);
    });
    client.boot();
    bool ended = world.run_until([&] { return client.started() || !client.failure().ok(); },
                                 std::chrono::seconds(100));
    fuzz::require(ended, "the start ends");
    if (client.started()) {
        auto& process = static_cast<fuzz::ClientProcess&>(client.process());
        fuzz::User user(process.files());
        ended = world.run_on(client, user.run(operations), std::chrono::minutes(60));
        fuzz::require(ended, "operations end");
        ended = world.run_on(client, fuzz::stop(&process), std::chrono::minutes(60));
        fuzz::require(ended, "unmounting ends");
    }
    client.kill();
    return 0;
}
