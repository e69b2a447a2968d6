// What must hold of the stores when nobody works any more.

#include "mds/fsck.h"
#include "storage/server.h"
#include "tests/sim/cluster.h"
#include "tests/sim/processes.h"
#include "tests/sim/storage_process.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::sim {
namespace {

constexpr Duration kCheckBound = std::chrono::seconds(60);
// Within this the chunks of files that are gone must be collected.
constexpr int kCollectionLooks = 30;
constexpr Duration kCollectionPause = std::chrono::seconds(4);

using ReportSlot = std::shared_ptr<std::optional<Result<mds::NamespaceReport>>>;

Task<void> check_flow(KvStore* store, ReportSlot out) {
    auto report = co_await mds::check_namespace(*store);
    out->emplace(std::move(report));
}

// What one member of a chain holds; every byte of it was read and fits its checksums.
struct Holding {
    bool done = false;
    Status status;
    std::map<ChunkId, std::string> chunks;
};

Task<void> list_flow(storage::ChunkStore* store, ChainId chain, std::shared_ptr<Holding> out) {
    storage::ChunkStore::Range range;
    range.chain = chain;
    bool more = true;
    while (more && out->status.ok()) {
        auto page = co_await store->list(range);
        if (!page.ok()) {
            out->status = page.error();
            break;
        }
        for (const auto& listed : page->chunks) {
            out->chunks[listed.chunk] = "version " + std::to_string(listed.version.value) +
                                        ", length " + std::to_string(listed.length) + ", digest " +
                                        std::to_string(listed.digest);
            range.after = listed.chunk;
            storage::ChunkKey key;
            key.chain = chain;
            key.chunk = listed.chunk;
            auto bytes = co_await store->read(key, 0, listed.length);
            if (!bytes.ok()) {
                out->status = bytes.error();
                break;
            }
        }
        more = page->more;
    }
    out->done = true;
}

std::string at(const std::map<ChunkId, std::string>& chunks, const ChunkId& chunk) {
    auto found = chunks.find(chunk);
    return found == chunks.end() ? "nothing" : found->second;
}

}  // namespace

std::optional<mds::NamespaceReport> Cluster::check_namespace() {
    auto report = std::make_shared<std::optional<Result<mds::NamespaceReport>>>();
    auto& process = dynamic_cast<MdsProcess&>(mds_->process());
    mds_->spawn(check_flow(&process.store(), report));
    if (!run_until([report] { return report->has_value(); }, kCheckBound)) {
        verdict_.fail(Verdict::Kind::kNoProgress, "the check of the namespace does not end");
        return std::nullopt;
    }
    if (!(*report)->ok()) {
        verdict_.wrong("the namespace cannot be read: " + (*report)->error().to_string());
        return std::nullopt;
    }
    return ***report;
}

void Cluster::check_stores() {
    mds::Counts left;
    for (int look = 0; look < kCollectionLooks; ++look) {
        auto report = check_namespace();
        if (!report) {
            return;
        }
        if (!report->clean()) {
            verdict_.wrong("the namespace is inconsistent: " + report->problems.front());
            return;
        }
        if (report->counts.gc_queued == 0 && report->counts.orphans == 0) {
            std::set<DataId> owned;
            for (const mds::OwnedData& data : report->owned) {
                owned.insert(data.data);
            }
            check_chunks(owned);
            return;
        }
        left = report->counts;
        run_for(kCollectionPause);
    }
    verdict_.fail(Verdict::Kind::kNoProgress,
                  "files that are gone are not collected: " + std::to_string(left.orphans) +
                      " orphans, " + std::to_string(left.gc_queued) + " dead data");
}

void Cluster::check_chunks(const std::set<DataId>& owned) {
    auto now = map();
    for (const pb::Chain& chain : now->proto().chains()) {
        std::vector<std::shared_ptr<Holding>> holdings;
        for (const pb::ChainMember& member : chain.members()) {
            auto holding = std::make_shared<Holding>();
            holdings.push_back(holding);
            TargetId target(member.target());
            SimNode& node = *storage_[now->node_of(target)->id() - 1];
            auto& process = dynamic_cast<StorageProcess&>(node.process());
            node.spawn(list_flow(process.server().store(target), ChainId(chain.id()), holding));
            if (!run_until([holding] { return holding->done; }, kCheckBound)) {
                verdict_.fail(Verdict::Kind::kNoProgress, "listing chunks does not end");
                return;
            }
            if (!holding->status.ok()) {
                verdict_.wrong("chunks cannot be listed and read: " +
                               holding->status.error().to_string());
            }
        }
        for (const auto& holding : holdings) {
            compare(chain, holdings.front()->chunks, holding->chunks);
        }
        for (const auto& [chunk, what] : holdings.front()->chunks) {
            if (!owned.contains(chunk.data)) {
                verdict_.wrong("chunk " + to_string(chunk) + " of chain " +
                               std::to_string(chain.id()) + " belongs to no file (" + what + ")");
            }
        }
    }
}

void Cluster::compare(const pb::Chain& chain,
                      const std::map<ChunkId, std::string>& head,
                      const std::map<ChunkId, std::string>& other) {
    std::set<ChunkId> all;
    for (const auto& [chunk, what] : head) {
        all.insert(chunk);
    }
    for (const auto& [chunk, what] : other) {
        all.insert(chunk);
    }
    for (const ChunkId& chunk : all) {
        if (at(head, chunk) != at(other, chunk)) {
            verdict_.wrong("replicas of chunk " + to_string(chunk) + " in chain " +
                           std::to_string(chain.id()) + " differ: " + at(head, chunk) +
                           " at the head, " + at(other, chunk) + " at another member");
        }
    }
}

}  // namespace kdfs::sim
