// A chunk store that opens a target with any records and blocks: it serves what is whole, names
// what is damaged, or says why it cannot start.
//   u8 mode: 1 give records their checksums, 2 keep the store's own record as it is;
//   part slab (repeated over 1 MiB); then parts: key, value, key, value, ...

#include "kdfs/base/checksum.h"
#include "storage/chunk_store.h"
#include "tests/fuzz/fuzz_world.h"

namespace kdfs::fuzz {
namespace {

constexpr uint8_t kMend = 1;
constexpr uint8_t kOwnMeta = 2;
constexpr uint64_t kChainsLookedAt = 4;

class StoreProcess final : public sim::Process {
public:
    StoreProcess(sim::SimNode& node, Env& env)
        : disk_(env, node.disk("t", GiB)),
          kv_(env, node.kv("t")),
          store_(env, disk_, kv_, options()) {}
    Task<Status> start() override { return store_.open(); }
    Task<void> stop() override { return store_.stop(); }
    storage::ChunkStore& store() { return store_; }

private:
    static storage::StoreOptions options() {
        storage::StoreOptions out;
        out.target = TargetId(1);
        out.slab_bytes = MiB;
        out.capacity_bytes = 8 * MiB;
        return out;
    }
    sim::SimDisk disk_;
    MemKv kv_;
    storage::ChunkStore store_;
};

KvBatch records(Input& input, uint8_t mode) {
    KvBatch batch;
    if ((mode & kOwnMeta) == 0) {
        std::string meta;
        Writer writer(meta);
        writer.u64(1);
        writer.u64(MiB);
        writer.u64(5);
        batch.put("M", std::move(meta));
    }
    while (!input.empty()) {
        std::string key(input.part());
        std::string value(input.part());
        if ((mode & kMend) != 0 && !key.empty() && key[0] != 'M') {
            Writer(value).u64(checksum(std::string_view(value)));
        }
        if ((mode & kOwnMeta) != 0 || key != "M") {
            batch.put(std::move(key), std::move(value));
        }
    }
    return batch;
}

void fill_slab(sim::SimNode& node, std::string_view pattern) {
    auto& files = node.disk("t", GiB).files();
    auto medium = std::make_shared<sim::FileMedium>();
    std::string bytes;
    while (!pattern.empty() && bytes.size() < MiB) {
        bytes += pattern;
    }
    bytes.resize(MiB);
    BufferChain data(Buffer::copy_of(std::string_view(bytes)));
    medium->end_change(medium->begin_write(0, data));
    medium->end_sync(medium->begin_sync());
    files["slab.000000"] = std::move(medium);
}

storage::ChunkWrite change_of(pb::WriteKind kind, ChunkVersion version) {
    storage::ChunkWrite write;
    write.kind = kind;
    write.new_version = version;
    if (kind == pb::WRITE_DATA) {
        Buffer data = Buffer::zeros(100);
        write.sums.push_back(checksum(data.span()));
        write.data.append(std::move(data));
    }
    return write;
}

Task<void> change(storage::ChunkStore* store, storage::ChunkKey key, storage::ChunkWrite write) {
    auto found = co_await store->find(key);
    storage::RecordPtr base = found.ok() ? *found : nullptr;
    auto staged = co_await store->stage(key, base, std::move(write));
    if (!staged.ok()) {
        co_return;
    }
    Status written = co_await store->write_data(*staged);
    if (written.ok()) {
        (void)store->commit(std::move(*staged));
    }
}

// Reads every chunk, puts a new one over each, and removes it.
Task<void> use(storage::ChunkStore* store) {
    for (uint64_t chain = 0; chain < kChainsLookedAt; ++chain) {
        storage::ChunkStore::Range range;
        range.chain = ChainId(chain);
        auto page = co_await store->list(range);
        if (!page.ok()) {
            continue;
        }
        for (const storage::ChunkStore::Listed& listed : page->chunks) {
            storage::ChunkKey key;
            key.chain = range.chain;
            key.chunk = listed.chunk;
            auto read = co_await store->read(key, 0, kPieceBytesMax);
            for (auto kind : {pb::WRITE_DATA, pb::WRITE_REMOVE}) {
                ChunkVersion next(listed.version.value + 1);
                co_await change(store, key, change_of(kind, next));
            }
        }
    }
    (void)co_await store->sync();
    (void)co_await store->space();
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    uint8_t mode = input.u8();
    fuzz::World world;
    sim::SimNode& node = world.add("storage", 1, [](sim::SimNode& self, Env& env) {
        return std::make_unique<fuzz::StoreProcess>(self, env);
    });
    fuzz::fill_slab(node, input.part());
    MemKvMedium& medium = node.kv("t");
    medium.apply(fuzz::records(input, mode));
    medium.mark_synced(medium.applied());
    node.boot();
    bool ended = world.run_until([&] { return node.started() || !node.failure().ok(); },
                                 std::chrono::seconds(60));
    fuzz::require(ended, "opening ends");
    if (!node.started()) {
        fuzz::require(!node.failure().error().detail.empty(), "a refusal says why");
        return 0;
    }
    storage::ChunkStore& store = static_cast<fuzz::StoreProcess&>(node.process()).store();
    fuzz::require(world.run_on(node, fuzz::use(&store), std::chrono::seconds(60)), "calls end");
    return 0;
}
