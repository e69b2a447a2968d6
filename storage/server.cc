#include "storage/server.h"

#include <utility>

namespace kdfs::storage {
namespace {

// 0 means none.
uint64_t draw_incarnation(Env& env) {
    Random random = env.random().fork("incarnation");
    return random.range(1, UINT64_MAX);
}

}  // namespace

Server::Server(Env& env, std::vector<TargetOptions> targets, ServerOptions options)
    : env_(env),
      options_(std::move(options)),
      view_(options_.node, draw_incarnation(env)),
      peers_(env),
      manager_(env,
               options_.manager,
               ChannelKind::kControl,
               [this](RpcRequest request) { return membership_.on_push(std::move(request)); }),
      replicator_(env, view_, peers_),
      resync_(env, view_, replicator_, peers_, manager_),
      scrubber_(env, view_, replicator_, resync_),
      membership_(env, view_, manager_, replicator_),
      rpc_(env, [this](RpcRequest request) { return serve(std::move(request)); }),
      scope_(env.scheduler()) {
    for (TargetOptions& target : targets) {
        stores_.push_back(
            std::make_unique<ChunkStore>(env, *target.disk, *target.kv, target.store));
        replicator_.add_target(*stores_.back());
    }
    membership_.set_hooks(std::move(options_.hooks));
}

Server::~Server() = default;

Task<Status> Server::recover(ChunkStore* store) {
    Status opened = co_await store->open();
    if (!opened.ok()) {
        co_return Error(opened.error().code,
                        "target " + std::to_string(store->target().value) +
                            " cannot be opened: " + opened.error().detail);
    }
    co_return opened;
}

Task<Status> Server::start() {
    std::vector<Task<Status>> opens;
    for (const auto& store : stores_) {
        opens.push_back(recover(store.get()));
    }
    std::vector<Status> opened = co_await when_all(scope_, std::move(opens));
    for (Status& status : opened) {
        KDFS_CO_TRY(std::move(status));
    }
    KDFS_CO_TRY(co_await rpc_.listen(options_.listen));
    if (!options_.unix_listen.empty()) {
        KDFS_CO_TRY(co_await rpc_.listen(options_.unix_listen));
    }
    NodeDescription self;
    self.node = options_.node;
    self.name = options_.name;
    self.failure_domain = options_.failure_domain;
    self.address = options_.advertise.empty() ? rpc_.address() : options_.advertise;
    self.unix_address = options_.unix_listen;
    self.boot = options_.boot;
    self.cluster_id = options_.cluster_id;
    std::vector<ChunkStore*> stores;
    for (const auto& store : stores_) {
        stores.push_back(store.get());
    }
    scrubber_.start(stores);
    membership_.start(std::move(self), std::move(stores), resync_, scrubber_);
    LogEvent(env_.log(), LogLevel::kInfo, "storage daemon started")
        .with("node", options_.node)
        .with("address", rpc_.address())
        .with("targets", stores_.size());
    co_return Status();
}

Task<void> Server::stop() {
    membership_.begin_stop();
    resync_.begin_stop();
    scrubber_.begin_stop();
    replicator_.begin_stop();
    // Calls to others end with an error, so that nobody below waits for an answer.
    co_await peers_.stop();
    co_await manager_.stop();
    co_await membership_.stop();
    co_await resync_.stop();
    co_await scrubber_.stop();
    co_await rpc_.stop();
    co_await replicator_.stop();
    for (const auto& store : stores_) {
        (void)co_await store->sync();
        co_await store->stop();
    }
    co_await scope_.close();
}

Task<Result<RpcReply>> Server::serve(RpcRequest request) {
    switch (request.type) {
        case MessageType::kWrite:
            return replicator_.write(std::move(request));
        case MessageType::kRead:
            return replicator_.read(std::move(request));
        case MessageType::kSync:
            return replicator_.sync(std::move(request));
        case MessageType::kRemoveData:
            return replicator_.remove_data(std::move(request));
        case MessageType::kListChunks:
            return replicator_.list_chunks(std::move(request));
        case MessageType::kCloneData:
            return replicator_.clone_data(std::move(request));
        default:
            return refuse();
    }
}

Task<Result<RpcReply>> Server::refuse() {
    co_return Error(Errc::kUnimplemented, "a storage daemon does not take this request");
}

}  // namespace kdfs::storage
