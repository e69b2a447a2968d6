#pragma once

#include "kdfs/rt/disk.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::contract {

// What a Disk contract suite needs of an implementation: a world, a class with these members.
//   Disk& disk();                     // empty at first
//   Scheduler& scheduler();
//   void run(Task<void> task);        // runs the loop until the task has ended
//   void reopen();                    // disk() is a new object over the same durable contents
// The world is built anew for each test.
template <class World>
class DiskContract : public testing::Test {
protected:
    World world_;
};

inline std::string pattern(size_t size, size_t seed) {
    std::string out(size, '\0');
    for (size_t i = 0; i < size; ++i) {
        out[i] = static_cast<char>('a' + (i * 7 + seed + i / 251) % 26);
    }
    return out;
}

inline BufferChain chain_of(std::string text) {
    return BufferChain(Buffer::copy_of(std::string_view(text)));
}

template <class T>
void expect_ok(const Result<T>& result) {
    if (!result.ok()) {
        ADD_FAILURE() << result.error().to_string();
    }
}

// Leaves the coroutine if `result`, a named Result, failed.
#define KDFS_CO_ASSERT_OK(result) \
    expect_ok(result);            \
    if (!(result).ok()) {         \
        co_return;                \
    }

TYPED_TEST_SUITE_P(DiskContract);

struct DiskCases {
    static Task<void> create_write_read(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        std::string text = pattern(10000, 1);

        auto written = co_await (*file)->write(3, chain_of(text));
        auto read = co_await (*file)->read(3, text.size());

        expect_ok(written);
        KDFS_CO_ASSERT_OK(read);
        EXPECT_EQ(read->view(), text);
        EXPECT_EQ((*file)->size(), text.size() + 3);
    }

    static Task<void> gap_reads_as_zeros(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        expect_ok(co_await (*file)->write(5000, chain_of("x")));

        auto read = co_await (*file)->read(0, 5001);

        KDFS_CO_ASSERT_OK(read);
        EXPECT_EQ(read->view(), std::string(5000, '\0') + "x");
    }

    static Task<void> pieces_are_written_in_order(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        BufferChain data;
        std::string whole;
        for (size_t i = 0; i < 1500; ++i) {
            std::string part = pattern(1 + i % 97, i);
            whole += part;
            data.append(Buffer::copy_of(std::string_view(part)));
        }

        auto written = co_await (*file)->write(11, std::move(data));
        auto read = co_await (*file)->read(11, whole.size());

        expect_ok(written);
        KDFS_CO_ASSERT_OK(read);
        EXPECT_TRUE(read->view() == whole);
    }

    static Task<void> large_write(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        std::string text = pattern(3 * MiB + 17, 5);

        expect_ok(co_await (*file)->write(4096, chain_of(text)));
        auto read = co_await (*file)->read(4096, text.size());

        KDFS_CO_ASSERT_OK(read);
        EXPECT_TRUE(read->view() == text);
    }

    static Task<void> read_beyond_the_end(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        expect_ok(co_await (*file)->write(0, chain_of("abc")));

        auto partly = co_await (*file)->read(1, 3);
        auto wholly = co_await (*file)->read(100, 1);
        auto nothing = co_await (*file)->read(100, 0);

        EXPECT_FALSE(partly.ok());
        EXPECT_FALSE(wholly.ok());
        if (!partly.ok()) {
            EXPECT_EQ(partly.error().code, Errc::kIo);
            EXPECT_NE(partly.error().detail.find("slab"), std::string::npos);
        }
        expect_ok(nothing);
    }

    static Task<void> names(Disk& disk) {
        auto missing = co_await disk.open("b");
        auto b = co_await disk.create("b");
        auto a = co_await disk.create("a");
        auto again = co_await disk.create("b");
        auto listed = co_await disk.list();

        EXPECT_FALSE(missing.ok());
        if (!missing.ok()) {
            EXPECT_EQ(missing.error().code, Errc::kNotFound);
            EXPECT_NE(missing.error().detail.find('b'), std::string::npos);
        }
        expect_ok(a);
        expect_ok(b);
        EXPECT_FALSE(again.ok());
        if (!again.ok()) {
            EXPECT_EQ(again.error().code, Errc::kExists);
        }
        KDFS_CO_ASSERT_OK(listed);
        std::vector<std::string> expected{"a", "b"};
        EXPECT_EQ(*listed, expected);
    }

    static Task<void> removed_is_gone(Disk& disk) {
        expect_ok(co_await disk.create("slab"));

        auto removed = co_await disk.remove("slab");
        auto twice = co_await disk.remove("slab");
        auto listed = co_await disk.list();

        expect_ok(removed);
        EXPECT_FALSE(twice.ok());
        KDFS_CO_ASSERT_OK(listed);
        EXPECT_TRUE(listed->empty());
    }

    static Task<void> allocate_reserves(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        expect_ok(co_await (*file)->write(0, chain_of("abc")));

        auto grown = co_await (*file)->allocate(1 * MiB);
        auto smaller = co_await (*file)->allocate(10);
        auto read = co_await (*file)->read(0, 1 * MiB);

        expect_ok(grown);
        expect_ok(smaller);
        EXPECT_EQ((*file)->size(), 1 * MiB);
        KDFS_CO_ASSERT_OK(read);
        EXPECT_TRUE(read->view() == "abc" + std::string(1 * MiB - 3, '\0'));
    }

    static Task<void> punched_reads_as_zeros(Disk& disk) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        std::string text = pattern(16384, 2);
        expect_ok(co_await (*file)->write(0, chain_of(text)));

        auto punched = co_await (*file)->punch(4096, 8192);
        auto read = co_await (*file)->read(0, text.size());

        expect_ok(punched);
        EXPECT_EQ((*file)->size(), text.size());
        KDFS_CO_ASSERT_OK(read);
        text.replace(4096, 8192, 8192, '\0');
        EXPECT_TRUE(read->view() == text);
    }

    static Task<void> write_synced(Disk& disk, std::string text) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        expect_ok(co_await (*file)->write(8192, chain_of(std::move(text))));
        expect_ok(co_await (*file)->sync());
    }

    static Task<void> expect_synced(Disk& disk, std::string text) {
        auto file = co_await disk.open("slab");
        KDFS_CO_ASSERT_OK(file);
        EXPECT_EQ((*file)->size(), 8192 + text.size());
        auto read = co_await (*file)->read(8192, text.size());
        KDFS_CO_ASSERT_OK(read);
        EXPECT_TRUE(read->view() == text);
    }

    static Task<void> write_one(File& file, uint64_t offset, std::string text, size_t& done) {
        expect_ok(co_await file.write(offset, chain_of(std::move(text))));
        ++done;
    }

    // More at once than any queue below holds.
    static Task<void> many_at_once(Disk& disk, TaskScope& scope) {
        constexpr size_t kWrites = 700;
        constexpr size_t kSize = 512;
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        size_t done = 0;

        for (size_t i = 0; i < kWrites; ++i) {
            scope.spawn_now(write_one(**file, i * kSize, pattern(kSize, i), done));
        }
        co_await scope.close();

        EXPECT_EQ(done, kWrites);
        auto read = co_await (*file)->read(0, kWrites * kSize);
        KDFS_CO_ASSERT_OK(read);
        for (size_t i = 0; i < kWrites; ++i) {
            EXPECT_TRUE(read->view().substr(i * kSize, kSize) == pattern(kSize, i)) << i;
        }
    }

    static Task<void> space_is_told(Disk& disk) {
        auto space = co_await disk.space();
        KDFS_CO_ASSERT_OK(space);
        EXPECT_GT(space->total_bytes, 0U);
        EXPECT_LE(space->free_bytes, space->total_bytes);
    }
};

TYPED_TEST_P(DiskContract, ReadsWhatWasWritten) {
    this->world_.run(DiskCases::create_write_read(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, GapBeforeAWriteReadsAsZeros) {
    this->world_.run(DiskCases::gap_reads_as_zeros(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, WritesManyPiecesInOrder) {
    this->world_.run(DiskCases::pieces_are_written_in_order(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, WritesSeveralMebibytes) {
    this->world_.run(DiskCases::large_write(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, ReadBeyondTheEndIsAnErrorThatNamesTheFile) {
    this->world_.run(DiskCases::read_beyond_the_end(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, CreatesOnceAndLists) {
    this->world_.run(DiskCases::names(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, RemovedFileIsGone) {
    this->world_.run(DiskCases::removed_is_gone(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, AllocateExtendsWithZerosAndNeverShrinks) {
    this->world_.run(DiskCases::allocate_reserves(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, PunchedRangeReadsAsZeros) {
    this->world_.run(DiskCases::punched_reads_as_zeros(this->world_.disk()));
}
TYPED_TEST_P(DiskContract, SyncedDataIsThereAfterReopening) {
    std::string text = pattern(9000, 3);
    this->world_.run(DiskCases::write_synced(this->world_.disk(), text));

    this->world_.reopen();

    this->world_.run(DiskCases::expect_synced(this->world_.disk(), text));
}
TYPED_TEST_P(DiskContract, ManyWritesAtOnceAllEnd) {
    TaskScope scope(this->world_.scheduler());
    this->world_.run(DiskCases::many_at_once(this->world_.disk(), scope));
}
TYPED_TEST_P(DiskContract, TellsItsSpace) {
    this->world_.run(DiskCases::space_is_told(this->world_.disk()));
}

REGISTER_TYPED_TEST_SUITE_P(DiskContract,
                            ReadsWhatWasWritten,
                            GapBeforeAWriteReadsAsZeros,
                            WritesManyPiecesInOrder,
                            WritesSeveralMebibytes,
                            ReadBeyondTheEndIsAnErrorThatNamesTheFile,
                            CreatesOnceAndLists,
                            RemovedFileIsGone,
                            AllocateExtendsWithZerosAndNeverShrinks,
                            PunchedRangeReadsAsZeros,
                            SyncedDataIsThereAfterReopening,
                            ManyWritesAtOnceAllEnd,
                            TellsItsSpace);

}  // namespace kdfs::contract
