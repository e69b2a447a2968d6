#include "storage/chunk_store.h"
#include "tests/unit/storage_store_world.h"

#include <gtest/gtest.h>

namespace kdfs::storage {
namespace {

Task<void> expect_change(ChunkStore& store, ChunkKey key, ChunkWrite write) {
    Status changed = co_await change(store, key, std::move(write));
    EXPECT_TRUE(changed.ok()) << changed.error().to_string();
}

Task<void> expect_content(ChunkStore& store, ChunkKey key, std::optional<std::string> expected) {
    auto content = co_await content_of(store, key);
    EXPECT_TRUE(content.ok()) << content.error().to_string();
    if (content.ok()) {
        EXPECT_TRUE(*content == expected);
    }
}

Task<void> random_changes(ChunkStore& store, uint64_t seed) {
    Random random(seed);
    std::optional<std::string> model;
    ChunkKey key = key_of(1, 0);
    for (int step = 0; step < 300; ++step) {
        uint64_t what = random.below(20);
        uint64_t offset =
            random.chance(300000) ? random.below(10) * kBlockBytes : random.below(40000);
        ChunkWrite write;
        if (what == 0) {
            write = change_of(pb::WRITE_REMOVE, 0, "");
        } else if (what == 1) {
            write = change_of(pb::WRITE_REPLACE, 0, random_text(random, random.below(30000)));
        } else if (what < 6) {
            write = change_of(pb::WRITE_TRUNCATE, offset, "");
        } else {
            size_t size =
                random.chance(300000) ? kBlockBytes * random.range(1, 4) : random.range(1, 20000);
            write = change_of(pb::WRITE_DATA, offset, random_text(random, size));
        }
        apply_to(model, write);
        co_await expect_change(store, key, std::move(write));
        co_await expect_content(store, key, model);
        if (random.chance(50000)) {
            EXPECT_TRUE((co_await store.sync()).ok());
        }
    }
    EXPECT_TRUE((co_await store.sync()).ok());
    EXPECT_TRUE((co_await store.sync()).ok());
    co_await check_space(store);
}

TEST(ChunkStoreTest, ChangesAgreeWithAString) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        StoreWorld world(seed);
        world.boot();
        world.run(random_changes(world.store(), seed));
    }
}

Task<void> partial_reads(ChunkStore& store) {
    Random random(1);
    std::string text = random_text(random, 3 * kBlockBytes + 100);
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_DATA, 0, text));

    auto middle = co_await store.read(key_of(1, 0), kBlockBytes, 10);
    auto tail = co_await store.read(key_of(1, 0), 3 * kBlockBytes, kPieceBytesMax);
    auto behind = co_await store.read(key_of(1, 0), 4 * kBlockBytes, kBlockBytes);
    auto absent = co_await store.read(key_of(2, 0), 0, kBlockBytes);

    EXPECT_TRUE(middle.ok() && tail.ok() && behind.ok() && absent.ok());
    EXPECT_TRUE(middle->data.flatten().view() == text.substr(kBlockBytes, kBlockBytes));
    EXPECT_EQ(middle->sums.size(), 1u);
    EXPECT_TRUE(tail->data.flatten().view() == text.substr(3 * kBlockBytes));
    EXPECT_TRUE(behind->data.empty());
    EXPECT_EQ(behind->record->length, text.size());
    EXPECT_EQ(absent->record, nullptr);
}

TEST(ChunkStoreTest, ReadGivesWholeBlocksAsFarAsTheChunkGoes) {
    StoreWorld world(1);
    world.boot();
    world.run(partial_reads(world.store()));
}

Task<void> fill(ChunkStore& store, Errc* end) {
    Random random(1);
    std::string text = random_text(random, 300 * KiB);
    for (uint64_t i = 0; i < 1000; ++i) {
        Status changed = co_await change(store, key_of(1, i), change_of(pb::WRITE_DATA, 0, text));
        if (!changed.ok()) {
            *end = changed.error().code;
            break;
        }
    }
    // The same chunk over and over needs only what its predecessors give back.
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_REMOVE, 0, ""));
    for (int i = 0; i < 20; ++i) {
        co_await expect_change(store,
                               key_of(2, 0),
                               change_of(pb::WRITE_REPLACE, 0, text.substr(0, 100 * KiB)));
    }
    co_await expect_content(store, key_of(2, 0), text.substr(0, 100 * KiB));
}

TEST(ChunkStoreTest, FullTargetSaysSoAndGoesOn) {
    StoreWorld world(1);
    world.boot();
    Errc end{};
    world.run(fill(world.store(), &end));
    EXPECT_EQ(end, Errc::kNoSpace);
    EXPECT_EQ(world.store().allocator().slabs(), 8u);
}

Task<void> clone_all(ChunkStore& store) {
    Random random(1);
    std::string text = random_text(random, 30000);
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_DATA, 0, text));
    uint64_t free = store.allocator().free_blocks();
    auto from = co_await store.find(key_of(1, 0));
    EXPECT_TRUE((co_await store.clone(*from, key_of(2, 0), nullptr)).ok());
    EXPECT_EQ(store.allocator().free_blocks(), free);

    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_DATA, 5, "changed"));

    co_await expect_content(store, key_of(2, 0), text);
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_REMOVE, 0, ""));
    EXPECT_TRUE((co_await store.sync()).ok());
    EXPECT_TRUE((co_await store.sync()).ok());
    co_await expect_content(store, key_of(2, 0), text);
    // Once more over what it shares already.
    co_await expect_change(store, key_of(2, 0), change_of(pb::WRITE_DATA, 9000, "changed"));
    auto source = co_await store.find(key_of(2, 0));
    EXPECT_TRUE((co_await store.clone(*source, key_of(3, 0), nullptr)).ok());
    co_await expect_change(store, key_of(3, 0), change_of(pb::WRITE_DATA, 20000, "x"));
    auto target = co_await store.find(key_of(3, 0));
    EXPECT_TRUE((co_await store.clone(*source, key_of(3, 0), *target)).ok());
    EXPECT_TRUE((co_await store.sync()).ok());
    EXPECT_TRUE((co_await store.sync()).ok());
    co_await check_space(store);
}

TEST(ChunkStoreTest, CloneSharesBlocksAndIsIndependent) {
    StoreWorld world(1);
    world.boot();
    world.run(clone_all(world.store()));
}

Task<void> write_two(ChunkStore& store) {
    std::string text(20000, 'a');
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_DATA, 0, text));
    co_await expect_change(store, key_of(1, 1), change_of(pb::WRITE_DATA, 0, text));
    EXPECT_TRUE((co_await store.sync()).ok());
}

Task<void> expect_damage(ChunkStore& store, ChunkKey key) {
    auto content = co_await content_of(store, key);
    EXPECT_FALSE(content.ok());
    if (!content.ok()) {
        EXPECT_EQ(content.error().code, Errc::kCorrupt);
        EXPECT_NE(content.error().detail.find("target 3, chain 1 chunk 1.0"), std::string::npos);
    }
    co_await expect_content(store, key_of(1, 1), std::string(20000, 'a'));
    // Resync heals it.
    ChunkWrite heal = change_of(pb::WRITE_REPLACE, 0, "healed");
    heal.new_version = ChunkVersion(4);
    auto staged = co_await store.stage(key, nullptr, std::move(heal));
    EXPECT_TRUE(staged.ok());
    EXPECT_TRUE((co_await store.write_data(*staged)).ok());
    EXPECT_TRUE(store.commit(std::move(*staged)).ok());
    co_await expect_content(store, key, "healed");
}

TEST(ChunkStoreTest, DamagedBlockIsReportedAndOthersAreNotAffected) {
    StoreWorld world(1);
    world.boot();
    world.run(write_two(world.store()));
    world.node().disk("t", 0).files().at("slab.000000")->flip_byte(2 * kBlockBytes + 17);

    world.run(expect_damage(world.store(), key_of(1, 0)));
}

TEST(ChunkStoreTest, DamagedRecordIsReportedAndOthersAreNotAffected) {
    StoreWorld world(1);
    world.boot();
    world.run(write_two(world.store()));
    world.node().kill();
    KvBatch batch;
    batch.put(record_key(key_of(1, 0)), "garbage");
    world.node().kv("t").apply(batch);
    world.boot();

    EXPECT_EQ(world.store().damaged().size(), 1u);
    world.run(expect_damage(world.store(), key_of(1, 0)));
    EXPECT_TRUE(world.store().damaged().empty());
}

Task<void> list_pages(ChunkStore& store) {
    for (uint64_t i = 0; i < 10; ++i) {
        co_await expect_change(store, key_of(1 + i / 5, i % 5), change_of(pb::WRITE_DATA, 0, "x"));
    }
    ChunkStore::Range range;
    range.chain = ChainId(1);
    range.entries_max = 3;
    size_t pages = 0;
    std::vector<ChunkId> seen;
    for (bool more = true; more; ++pages) {
        auto page = co_await store.list(range);
        EXPECT_TRUE(page.ok());
        for (const ChunkStore::Listed& listed : page->chunks) {
            seen.push_back(listed.chunk);
            range.after = listed.chunk;
        }
        more = page->more;
    }
    EXPECT_EQ(pages, 4u);
    EXPECT_EQ(seen.size(), 10u);
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
    range.after.reset();
    range.only_data = DataId(2);
    auto second = co_await store.list(range);
    EXPECT_TRUE(second.ok());
    EXPECT_EQ(second->chunks.size(), 3u);
    EXPECT_EQ(second->chunks[0].chunk, key_of(2, 0).chunk);
    range.chain = ChainId(2);
    auto other = co_await store.list(range);
    EXPECT_TRUE(other.ok() && other->chunks.empty());
}

TEST(ChunkStoreTest, ListsAChainInPages) {
    StoreWorld world(1);
    world.boot();
    world.run(list_pages(world.store()));
}

// Crashes. Each worker owns chunks, changes them at random and remembers every content that a
// crash may leave.
struct ChunkHistory {
    std::optional<std::string> synced;
    // States since, oldest first; the last may be under way.
    std::vector<std::optional<std::string>> later;
    // How many of them survive the death of the process.
    size_t flushed = 0;

    std::optional<std::string> newest() const { return later.empty() ? synced : later.back(); }
    void sync_up_to(size_t states) {
        if (states != 0) {
            synced = later[states - 1];
            later.erase(later.begin(), later.begin() + static_cast<ptrdiff_t>(states));
            flushed -= std::min(flushed, states);
        }
    }
};
using Histories = std::map<ChunkKey, ChunkHistory>;

ChunkWrite random_change(Random& random) {
    uint64_t what = random.below(12);
    if (what == 0) {
        return change_of(pb::WRITE_REMOVE, 0, "");
    }
    if (what == 1) {
        return change_of(pb::WRITE_TRUNCATE, random.below(30000), "");
    }
    if (what == 2) {
        return change_of(pb::WRITE_REPLACE, 0, random_text(random, random.below(30000)));
    }
    size_t size = random.chance(300000) ? 2 * kBlockBytes : random.range(1, 12000);
    return change_of(pb::WRITE_DATA, random.below(20000), random_text(random, size));
}

Task<void> clone_chunk(ChunkStore& store, Histories& all, ChunkKey from, ChunkKey to) {
    auto source = co_await store.find(from);
    auto base = co_await store.find(to);
    EXPECT_TRUE(source.ok() && base.ok());
    if (*source) {
        std::optional<std::string> content = all[from].newest();
        auto made = co_await store.clone(*source, to, *base);
        EXPECT_TRUE(made.ok());
        all[to].later.push_back(content);
        size_t states = all[to].later.size();
        EXPECT_TRUE((co_await store.flushed()).ok());
        all[to].flushed = std::max(all[to].flushed, states);
    }
}

Task<void> sync_own(ChunkStore& store, Histories& all, uint64_t worker) {
    std::map<ChunkKey, size_t> states;
    for (uint64_t i = 0; i < 4; ++i) {
        states[key_of(worker, i)] = all[key_of(worker, i)].later.size();
    }
    Status synced = co_await store.sync();
    EXPECT_TRUE(synced.ok());
    for (const auto& [key, count] : states) {
        all[key].sync_up_to(count);
    }
}

Task<void> work(ChunkStore& store, Histories& all, uint64_t worker, uint64_t seed) {
    Random random(seed);
    uint64_t synced_percent = random.below(3) * 45;
    for (;;) {
        ChunkKey key = key_of(worker, random.below(4));
        uint64_t what = random.below(20);
        if (what == 0) {
            co_await sync_own(store, all, worker);
            continue;
        }
        if (what == 1) {
            co_await clone_chunk(store, all, key, key_of(worker, random.below(4)));
            continue;
        }
        ChunkWrite write = random_change(random);
        bool synced = random.below(100) < synced_percent;
        write.redo = synced && random.below(8) != 0;
        std::optional<std::string> next = all[key].newest();
        apply_to(next, write);
        all[key].later.push_back(next);
        Status changed = co_await change(store, key, std::move(write));
        if (!changed.ok()) {
            EXPECT_EQ(changed.error().code, Errc::kNoSpace) << changed.error().to_string();
            all[key].later.pop_back();
            continue;
        }
        size_t states = all[key].later.size();
        if (synced) {
            EXPECT_TRUE((co_await store.sync_change(key)).ok());
            all[key].sync_up_to(states);
            continue;
        }
        EXPECT_TRUE((co_await store.flushed()).ok());
        all[key].flushed = std::max(all[key].flushed, std::min(states, all[key].later.size()));
    }
}

// What is there after a crash becomes the new synced state.
Task<void> check_after_crash(ChunkStore& store, Histories& all, bool power_cut) {
    EXPECT_TRUE(store.damaged().empty());
    for (auto& [key, history] : all) {
        auto content = co_await content_of(store, key);
        EXPECT_TRUE(content.ok()) << content.error().to_string();
        bool found = power_cut || history.flushed == 0 ? *content == history.synced : false;
        for (size_t i = power_cut || history.flushed == 0 ? 0 : history.flushed - 1;
             i < history.later.size();
             ++i) {
            found = found || *content == history.later[i];
        }
        EXPECT_TRUE(found) << to_string(key) << " has a content it never had, or an old one";
        history = ChunkHistory();
        history.synced = *content;
    }
    co_await check_space(store);
}

void crash_rounds(uint64_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    StoreOptions options = StoreWorld::default_options();
    options.sync_interval = std::chrono::milliseconds(random.range(1, 20));
    options.capacity_bytes = random.range(2, 8) * MiB;
    options.cache_bytes = random.range(1, 64) * KiB;
    StoreWorld world(seed, options);
    Histories all;
    for (int round = 0; round < 12 && !testing::Test::HasFailure(); ++round) {
        world.boot();
        for (uint64_t worker = 1; worker <= 3; ++worker) {
            world.node().spawn(work(world.store(), all, worker, random.u64()));
        }
        for (uint64_t steps = random.below(2000); steps != 0; --steps) {
            world.step();
        }
        bool power_cut = random.chance(700000);
        power_cut ? world.node().cut_power() : world.node().kill();
        // Often the machine dies again while it recovers.
        if (random.chance(300000)) {
            world.node().boot();
            for (uint64_t steps = random.below(200); steps != 0; --steps) {
                world.step();
            }
            power_cut = true;
            world.node().cut_power();
        }
        world.boot();
        world.run(check_after_crash(world.store(), all, power_cut));
        world.node().kill();
    }
}

// A small change synced by itself; then a large one that nobody syncs; then the power goes.
Task<void> lose_what_follows(ChunkStore& store, std::string small, std::string large) {
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_DATA, 0, large));
    EXPECT_TRUE((co_await store.sync()).ok());
    ChunkWrite write = change_of(pb::WRITE_DATA, kBlockBytes, small);
    write.redo = true;
    co_await expect_change(store, key_of(1, 0), std::move(write));
    EXPECT_TRUE((co_await store.sync_change(key_of(1, 0))).ok());
    co_await expect_change(store, key_of(1, 0), change_of(pb::WRITE_DATA, 0, large));
    EXPECT_TRUE((co_await store.flushed()).ok());
}

TEST(ChunkStoreTest, SmallSyncedChangeSurvivesALargeOneThatIsLost) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        StoreWorld world(seed);
        Random random(seed);
        std::string small = random_text(random, kBlockBytes);
        std::string large = random_text(random, 20 * kBlockBytes);
        std::string both = large;
        both.replace(kBlockBytes, small.size(), small);
        world.boot();
        world.run(lose_what_follows(world.store(), small, large));
        world.node().cut_power();
        world.boot();
        Histories all;
        all[key_of(1, 0)].synced = both;
        all[key_of(1, 0)].later.emplace_back(large);
        world.run(check_after_crash(world.store(), all, true));
    }
}

TEST(ChunkStoreTest, CrashAtAnyStepKeepsWhatWasSynced) {
    for (uint64_t seed = 1; seed <= seed_count(30) && !HasFailure(); ++seed) {
        crash_rounds(seed);
    }
}

}  // namespace
}  // namespace kdfs::storage
