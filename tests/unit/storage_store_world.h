#pragma once

#include "kdfs/base/checksum.h"
#include "kdfs/base/random.h"
#include "kdfs/kv/mem_kv.h"
#include "storage/chunk_store.h"
#include "tests/sim/sim_node.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::storage {

// A chunk store on a simulated machine that can lose its power.
class StoreWorld {
public:
    explicit StoreWorld(uint64_t seed, StoreOptions options = default_options())
        : shared_(seed), options_(options), node_(shared_, identity(), factory()) {}

    static StoreOptions default_options() {
        StoreOptions options;
        options.target = TargetId(3);
        options.slab_bytes = 1 * MiB;
        options.capacity_bytes = 8 * MiB;
        options.cache_bytes = 16 * KiB;
        return options;
    }

    // Starts the machine and waits until the store is open.
    void boot() {
        node_.boot();
        while (!node_.started() && node_.failure().ok()) {
            ASSERT_TRUE(step());
        }
        ASSERT_TRUE(node_.failure().ok()) << node_.failure().error().to_string();
    }
    bool step() { return shared_.clock.run_one(shared_.clock.now() + std::chrono::hours(1)); }
    // Runs `task` on the machine to its end.
    void run(Task<void> task) {
        bool done = false;
        node_.spawn(then_set(std::move(task), &done));
        while (!done) {
            ASSERT_TRUE(step());
        }
    }
    ChunkStore& store() { return static_cast<StoreProcess&>(node_.process()).store; }
    sim::SimNode& node() { return node_; }
    sim::SimShared& shared() { return shared_; }
    StoreOptions& options() { return options_; }

private:
    struct StoreProcess final : sim::Process {
        sim::SimDisk disk;
        MemKv kv;
        ChunkStore store;

        StoreProcess(sim::SimNode& node, Env& env, const StoreOptions& options)
            : disk(env, node.disk("t", 1 * GiB)),
              kv(env, node.kv("t")),
              store(env, disk, kv, options) {}
        Task<Status> start() override { return store.open(); }
        Task<void> stop() override { return store.stop(); }
    };

    static PeerIdentity identity() {
        PeerIdentity out;
        out.role = PeerRole::kStorage;
        out.node = NodeId(1);
        out.name = "storage n1";
        return out;
    }
    sim::SimNode::Factory factory() {
        return [this](sim::SimNode& node, Env& env) {
            return std::make_unique<StoreProcess>(node, env, options_);
        };
    }
    static Task<void> then_set(Task<void> task, bool* done) {
        co_await std::move(task);
        *done = true;
    }

    sim::SimShared shared_;
    StoreOptions options_;
    sim::SimNode node_;
};

// How many seeds a test over random histories runs: KDFS_TEST_SEEDS asks for more than a quick
// run has time for.
inline uint64_t seed_count(uint64_t quick) {
    const char* wanted = std::getenv("KDFS_TEST_SEEDS");
    return wanted == nullptr ? quick : std::strtoull(wanted, nullptr, 10);
}

inline uint64_t seed_first() {
    const char* wanted = std::getenv("KDFS_TEST_SEED_FIRST");
    return wanted == nullptr ? 1 : std::strtoull(wanted, nullptr, 10);
}

inline ChunkKey key_of(uint64_t data, uint64_t index) {
    return ChunkKey{ChainId(1), ChunkId{DataId(data), index}};
}

inline std::string random_text(Random& random, size_t size) {
    std::string out(size, '\0');
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = random.u64();
        out.replace(
            i,
            std::min<size_t>(8, size - i),
            std::string_view(reinterpret_cast<char*>(&word), std::min<size_t>(8, size - i)));
    }
    return out;
}

// Checksums of `data` cut at the blocks of a chunk in which it begins at `offset`.
inline std::vector<uint64_t> sums_of(uint64_t offset, std::string_view data) {
    std::vector<uint64_t> out;
    while (!data.empty()) {
        size_t part = std::min<size_t>(data.size(), kBlockBytes - offset % kBlockBytes);
        out.push_back(checksum(data.substr(0, part)));
        data.remove_prefix(part);
        offset += part;
    }
    return out;
}

inline ChunkWrite change_of(pb::WriteKind kind, uint64_t offset, std::string data) {
    ChunkWrite write;
    write.kind = kind;
    write.offset = offset;
    write.sums = sums_of(offset, data);
    // In two pieces, as the network may hand it over.
    Buffer whole = Buffer::copy_of(std::string_view(data));
    write.data.append(whole.slice(0, whole.size() / 3));
    write.data.append(whole.slice(whole.size() / 3, whole.size() - whole.size() / 3));
    return write;
}

// One whole change, from find() to commit().
inline Task<Status> change(ChunkStore& store, ChunkKey key, ChunkWrite write) {
    auto base = co_await store.find(key);
    if (!base.ok()) {
        co_return std::move(base).error();
    }
    write.new_version = ChunkVersion(*base ? (*base)->version.value + 1 : 1);
    auto staged = co_await store.stage(key, *base, std::move(write));
    if (!staged.ok()) {
        co_return std::move(staged).error();
    }
    Status written = co_await store.write_data(*staged);
    if (!written.ok()) {
        co_return written;
    }
    co_return store.commit(std::move(*staged));
}

// What a model of strings says a change does.
inline void apply_to(std::optional<std::string>& model, const ChunkWrite& write) {
    std::string data(write.data.flatten().view());
    switch (write.kind) {
        case pb::WRITE_REMOVE:
            model.reset();
            return;
        case pb::WRITE_REPLACE:
            model = data;
            return;
        case pb::WRITE_TRUNCATE:
            model = model.value_or("");
            model->resize(write.offset);
            return;
        default:
            model = model.value_or("");
            model->resize(std::max<size_t>(model->size(), write.offset + data.size()));
            model->replace(write.offset, data.size(), data);
    }
}

// The chunk's bytes, or nothing if there is none.
inline Task<Result<std::optional<std::string>>> content_of(ChunkStore& store, ChunkKey key) {
    auto read = co_await store.read(key, 0, kPieceBytesMax);
    if (!read.ok()) {
        co_return std::move(read).error();
    }
    std::optional<std::string> out;
    if (read->record) {
        out = std::string(read->data.flatten().view());
        EXPECT_EQ(read->sums, sums_of(0, *out));
    }
    co_return out;
}

// Every block is used by exactly the records that name it: no leak, nothing used twice.
inline Task<void> check_space(ChunkStore& store) {
    ChunkStore::Range range;
    range.chain = ChainId(1);
    range.entries_max = 7;
    std::map<BlockNumber, uint64_t> users;
    for (bool more = true; more;) {
        auto page = co_await store.list(range);
        EXPECT_TRUE(page.ok());
        for (const ChunkStore::Listed& listed : page->chunks) {
            ChunkKey key;
            key.chain = ChainId(1);
            key.chunk = listed.chunk;
            range.after = listed.chunk;
            auto record = co_await store.find(key);
            EXPECT_TRUE(record.ok() && *record);
            for (BlockNumber block : (*record)->blocks) {
                users[block] += block == kHole ? 0 : 1;
            }
        }
        more = page->more;
    }
    users.erase(kHole);
    for (const auto& [block, count] : users) {
        EXPECT_EQ(store.allocator().users(block), count) << "block " << block;
    }
    EXPECT_EQ(store.allocator().quarantined_blocks(), 0u);
    uint64_t total = store.allocator().total_blocks();
    EXPECT_EQ(store.allocator().free_blocks(), total == 0 ? 0 : total - 1 - users.size());
}

}  // namespace kdfs::storage
