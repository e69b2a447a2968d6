#pragma once

#include "kdfs/kv/kv_store.h"
#include "kdfs/rt/sync.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {

// The promises of KvStore. `Harness` is default constructible and has:
//   KvStore& store()
//   Scheduler& scheduler()
//   void run()                  runs the loop until nothing is left to do
//   void reopen()               closes the store in good order and opens it again
//   void kill_process()         opens what is left when the process dies now
template <class Harness>
class KvContract : public testing::Test {
protected:
    Status finish(Task<Status> task) {
        std::optional<Status> result;
        TaskScope scope(harness_.scheduler());
        scope.spawn_now(keep(std::move(task), &result));
        harness_.run();
        EXPECT_TRUE(result.has_value()) << "the task never ended";
        return result ? *result : Status(Error(Errc::kTimeout, "never ended"));
    }
    // Reads as a caller does: loads what is not in memory, then reads again.
    std::optional<std::string> get(std::string key) {
        for (int attempt = 0; attempt < 10; ++attempt) {
            auto value = harness_.store().get(key);
            if (value.ok()) {
                return *value;
            }
            EXPECT_EQ(value.error().code, Errc::kWouldBlock) << value.error().to_string();
            EXPECT_TRUE(finish(harness_.store().load(key)).ok());
        }
        ADD_FAILURE() << "load() did not bring the key in";
        return std::nullopt;
    }
    std::string scan(std::string first, std::string beyond, uint64_t entries_max = 1000) {
        for (int attempt = 0; attempt < 10; ++attempt) {
            auto entries = harness_.store().scan(first, beyond, entries_max);
            if (entries.ok()) {
                std::string out;
                for (const KvEntry& entry : *entries) {
                    out += entry.key + "=" + entry.value + " ";
                }
                return out;
            }
            EXPECT_EQ(entries.error().code, Errc::kWouldBlock) << entries.error().to_string();
            EXPECT_TRUE(finish(harness_.store().load_range(first, beyond, entries_max)).ok());
        }
        ADD_FAILURE() << "load_range() did not bring the range in";
        return {};
    }
    void put(std::string key, std::string value) {
        KvBatch batch;
        batch.put(std::move(key), std::move(value));
        ASSERT_TRUE(harness_.store().apply(batch).ok());
    }
    // Puts one numbered key per batch.
    void put_numbers(int first, int beyond) {
        for (int i = first; i < beyond; ++i) {
            put("n" + std::to_string(1000 + i), std::string(100, 'x'));
        }
    }
    // How many numbered keys there are; they must be the first ones.
    int count_numbers() {
        int count = 0;
        while (get("n" + std::to_string(1000 + count))) {
            ++count;
        }
        for (int i = count; i < count + 50; ++i) {
            EXPECT_FALSE(get("n" + std::to_string(1000 + i))) << "a batch in the middle is lost";
        }
        return count;
    }

    Harness harness_;

private:
    static Task<void> keep(Task<Status> task, std::optional<Status>* result) {
        *result = co_await std::move(task);
    }
};

TYPED_TEST_SUITE_P(KvContract);

TYPED_TEST_P(KvContract, ReadsWhatWasApplied) {
    EXPECT_FALSE(this->get("a"));
    this->put("a", "1");
    EXPECT_EQ(this->get("a"), "1");
    this->put("a", "");
    EXPECT_EQ(this->get("a"), "");
    std::string binary("\0\xff\n", 3);
    this->put(binary, binary);
    EXPECT_EQ(this->get(binary), binary);
}

TYPED_TEST_P(KvContract, ChangesOfOneBatchApplyInOrder) {
    this->put("b", "old");
    KvBatch batch;
    batch.put("a", "1");
    batch.put("a", "2");
    batch.erase("b");
    batch.put("c", "1");
    batch.erase("c");
    batch.put("d", "1");
    batch.erase_range("d", "e");
    batch.put("d2", "2");
    ASSERT_TRUE(this->harness_.store().apply(batch).ok());
    EXPECT_EQ(this->scan("", ""), "a=2 d2=2 ");
    EXPECT_TRUE(this->harness_.store().apply(KvBatch()).ok());
}

TYPED_TEST_P(KvContract, ScansInKeyOrderWithinBounds) {
    for (const char* key : {"b", "a", "d", "c", "c0"}) {
        this->put(key, "v");
    }
    EXPECT_EQ(this->scan("", ""), "a=v b=v c=v c0=v d=v ");
    EXPECT_EQ(this->scan("b", "d"), "b=v c=v c0=v ");
    EXPECT_EQ(this->scan("b", "d", 2), "b=v c=v ");
    EXPECT_EQ(this->scan("b1", "b2"), "");
    EXPECT_EQ(this->scan("a", "", 0), "");
    KvBatch batch;
    batch.erase_range("b", "c0");
    batch.erase_range("z", "a");
    ASSERT_TRUE(this->harness_.store().apply(batch).ok());
    EXPECT_EQ(this->scan("", ""), "a=v c0=v d=v ");
}

TYPED_TEST_P(KvContract, SyncedDataSurvivesEverything) {
    this->put_numbers(0, 10);
    ASSERT_TRUE(this->finish(this->harness_.store().sync()).ok());
    this->put_numbers(10, 20);
    this->harness_.kill_process();
    EXPECT_GE(this->count_numbers(), 10);
    this->harness_.reopen();
    EXPECT_GE(this->count_numbers(), 10);
}

TYPED_TEST_P(KvContract, FlushedDataSurvivesTheProcess) {
    this->put_numbers(0, 25);
    ASSERT_TRUE(this->harness_.store().flush().ok());
    this->put_numbers(25, 30);
    this->harness_.kill_process();
    EXPECT_GE(this->count_numbers(), 25);
}

TYPED_TEST_P(KvContract, ABatchIsNeverLostInPart) {
    for (int round = 0; round < 20; ++round) {
        KvBatch batch;
        batch.put("left", std::to_string(round));
        batch.put("right", std::to_string(round));
        ASSERT_TRUE(this->harness_.store().apply(batch).ok());
    }
    this->harness_.kill_process();
    EXPECT_EQ(this->get("left"), this->get("right"));
}

TYPED_TEST_P(KvContract, GoesOnAfterACrash) {
    this->put("a", "1");
    ASSERT_TRUE(this->finish(this->harness_.store().sync()).ok());
    this->harness_.kill_process();
    this->put("a", "2");
    ASSERT_TRUE(this->finish(this->harness_.store().sync()).ok());
    this->harness_.kill_process();
    EXPECT_EQ(this->get("a"), "2");
}

TYPED_TEST_P(KvContract, LoadsAfterReopening) {
    this->put_numbers(0, 40);
    this->harness_.reopen();
    EXPECT_EQ(this->count_numbers(), 40);
    this->harness_.reopen();
    EXPECT_EQ(this->scan("n1010", "n1011"), "n1010=" + std::string(100, 'x') + " ");
    EXPECT_TRUE(this->finish(this->harness_.store().load("absent")).ok());
    EXPECT_FALSE(this->get("absent"));
}

TYPED_TEST_P(KvContract, ManySyncsAtOnceAllEnd) {
    int done = 0;
    struct Flow {
        static Task<void> run(KvStore* store, int number, int* count) {
            KvBatch batch;
            batch.put("k" + std::to_string(number), "v");
            EXPECT_TRUE(store->apply(batch).ok());
            Status status = co_await store->sync();
            EXPECT_TRUE(status.ok());
            ++*count;
        }
    };
    TaskScope scope(this->harness_.scheduler());
    for (int i = 0; i < 50; ++i) {
        scope.spawn(Flow::run(&this->harness_.store(), i, &done));
    }
    this->harness_.run();
    EXPECT_EQ(done, 50);
}

REGISTER_TYPED_TEST_SUITE_P(KvContract,
                            ReadsWhatWasApplied,
                            ChangesOfOneBatchApplyInOrder,
                            ScansInKeyOrderWithinBounds,
                            SyncedDataSurvivesEverything,
                            FlushedDataSurvivesTheProcess,
                            ABatchIsNeverLostInPart,
                            GoesOnAfterACrash,
                            LoadsAfterReopening,
                            ManySyncsAtOnceAllEnd);

}  // namespace kdfs
