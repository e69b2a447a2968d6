// CPU and time of the chunk store on a real disk: kdfs-bench-store DIRECTORY.

#include "kdfs/base/checksum.h"
#include "kdfs/base/spdlog_sink.h"
#include "kdfs/kv/rocks_kv.h"
#include "kdfs/rt/real_env.h"
#include "kdfs/rt/thread_offload.h"
#include "kdfs/rt/uring_disk.h"
#include "storage/chunk_store.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

namespace kdfs::storage {
namespace {

double cpu_us() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    auto us = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
    };
    return us(usage.ru_utime) + us(usage.ru_stime);
}

struct Load {
    uint64_t operations = 0;
    uint64_t bytes = 0;
    uint64_t chunks = 0;
    bool random = false;
    uint64_t workers = 16;
};

Task<void> worker(ChunkStore& store, Load load, uint64_t number, uint64_t* failed) {
    Random random(number + 1);
    Buffer data = Buffer::allocate(load.bytes);
    for (uint64_t i = 0; i < load.bytes; ++i) {
        data.mutable_data()[i] = static_cast<std::byte>(random.u64());
    }
    std::vector<uint64_t> sums = block_checksums(data.span());
    for (uint64_t i = number; i < load.operations; i += load.workers) {
        ChunkKey key;
        key.chain = ChainId(1);
        key.chunk.data = DataId(1);
        // Each worker has chunks of its own.
        uint64_t mine = load.chunks / load.workers;
        key.chunk.index =
            number + load.workers * (load.random ? random.below(mine) : i / load.workers % mine);
        auto base = co_await store.find(key);
        ChunkWrite write;
        write.data = BufferChain(data);
        write.sums = sums;
        write.offset = load.random ? random.below(kPieceBytesMax / load.bytes) * load.bytes : 0;
        write.new_version = ChunkVersion(i + 1);
        write.writer.session = SessionId(1);
        auto staged = co_await store.stage(key, *base, std::move(write));
        bool done = staged.ok();
        if (done) {
            Status written = co_await store.write_data(*staged);
            done = written.ok() && store.commit(std::move(*staged)).ok();
        }
        if (done) {
            Status flushed = co_await store.flushed();
            done = flushed.ok();
        }
        *failed += done ? 0 : 1;
    }
}

Task<bool> run_load(ChunkStore& store, TaskScope& scope, Load load, const char* name) {
    uint64_t failed = 0;
    auto begun = std::chrono::steady_clock::now();
    double cpu = cpu_us();
    std::vector<Task<bool>> tasks;
    TaskScope workers(scope.scheduler());
    for (uint64_t i = 0; i < load.workers; ++i) {
        workers.spawn(worker(store, load, i, &failed));
    }
    co_await workers.close();
    double used = cpu_us() - cpu;
    double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    Status synced = co_await store.sync();
    double total = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    double n = static_cast<double>(load.operations);
    std::printf("%-24s %8.1f us CPU/op %10.0f op/s %8.0f MiB/s, with sync %.2f s, failed %llu\n",
                name,
                used / n,
                n / wall,
                n * static_cast<double>(load.bytes) / wall / 1048576.0,
                total,
                static_cast<unsigned long long>(failed));
    co_return synced.ok() && failed == 0;
}

Task<bool> run_all(ChunkStore& store, TaskScope& scope) {
    Status opened = co_await store.open();
    if (!opened.ok()) {
        std::printf("%s\n", opened.error().to_string().c_str());
        co_return false;
    }
    Load whole;
    whole.operations = 2000;
    whole.bytes = kPieceBytesMax;
    whole.chunks = 1024;
    bool good = co_await run_load(store, scope, whole, "write 1 MiB");
    Load small;
    small.operations = 50000;
    small.bytes = kBlockBytes;
    small.chunks = 1024;
    small.random = true;
    good = co_await run_load(store, scope, small, "write 4 KiB, random") && good;
    co_await store.stop();
    co_return good;
}

int run(const std::string& directory) {
    ::mkdir(directory.c_str(), 0700);
    NullLogSink log;
    auto env = RealEnv::create(log, TcpTransportOptions());
    if (!env.ok()) {
        std::printf("%s\n", env.error().to_string().c_str());
        return 1;
    }
    ThreadOffload offload((*env)->reactor(), 2);
    auto disk = UringDisk::open_directory((*env)->reactor(), directory);
    auto kv = RocksKv::open(offload, directory + "/kv", RocksKvOptions());
    if (!disk.ok() || !kv.ok()) {
        std::printf("cannot open %s\n", directory.c_str());
        return 1;
    }
    StoreOptions options;
    options.target = TargetId(1);
    ChunkStore store(**env, **disk, **kv, options);
    TaskScope scope((*env)->scheduler());
    return run_task((*env)->reactor(), run_all(store, scope)) ? 0 : 1;
}

}  // namespace
}  // namespace kdfs::storage

int main(int argc, char** argv) {
    if (argc != 2) {
        std::printf("usage: kdfs-bench-store DIRECTORY (a new one; about 5 GiB are written)\n");
        return 2;
    }
    return kdfs::storage::run(argv[1]);
}
