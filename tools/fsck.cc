#include "tools/fsck.h"

#include "kdfs/proto/cluster_map.h"
#include "tools/cluster_choice.h"
#include "tools/cluster_link.h"
#include "tools/command.h"
#include "tools/progress.h"
#include "tools/status_view.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

namespace kdfs::tools {

namespace {

constexpr uint32_t kRecordsPerPage = 4096;
constexpr uint32_t kChunksPerPage = 4096;
constexpr auto kPagePatience = std::chrono::seconds(30);
// A namespace that changes during the scan is scanned again, this often.
constexpr int kScansMax = 8;
// A chunk that differs may be under way; it is looked at again, this often.
constexpr int kLooksMax = 10;
constexpr auto kLookDelay = std::chrono::milliseconds(200);
// A chain whose members change is begun again, this often.
constexpr int kChainTriesMax = 5;
// Chunks to look at again at the end of each chain.
constexpr size_t kDoubtsMax = 10000;

CommandSpec fsck_spec() {
    CommandSpec spec;
    spec.name = "fsck";
    spec.summary = "Check that names, files, chunks and copies fit together";
    spec.operands = "[PATH]";
    spec.operands_max = 1;
    spec.details =
        "Checks that every name has a file and every file its names, that every chunk belongs to a "
        "file, and that all copies of each chunk are equal. Changes nothing, and works on a "
        "cluster in use. The exit code is 1 if there are problems, and also if files changed so "
        "much "
        "meanwhile that names and owners could not be judged. PATH is any path on a kdfs "
        "mount. Memory: about 150 bytes per file.";
    spec.options = cluster_options();
    spec.options.push_back({"json", "", "print one JSON object"});
    spec.examples = {"kdfs fsck", "kdfs fsck --json /kdfs"};
    return spec;
}

class Fsck {
public:
    Fsck(ClusterLink& link, const ClusterChoice& choice, Console& console)
        : link_(link), choice_(choice), console_(console) {}

    Status run();
    // Everything was judged and nothing was found.
    bool clean() const { return problems_.count() == 0 && !names_changed_; }
    void print_text() const;
    void print_json() const;

private:
    Result<bool> scan_names();
    Status fetch_map();
    Status check_chunks();
    Status check_chain(const pb::Chain& chain);
    Result<bool> walk_chain(const pb::Chain& chain, std::vector<ChunkSight>& doubts);
    Status fill(const pb::Chain& chain, MemberPage& page);
    Result<pb::ListChunksReply> list(const pb::Chain& chain, pb::ListChunksRequest request);
    Status settle(const pb::Chain& chain, ChunkSight sight);

    ClusterLink& link_;
    const ClusterChoice& choice_;
    Console& console_;
    mds::NamespaceReport names_;
    bool names_changed_ = false;
    std::unique_ptr<ChunkOwners> owners_;
    std::shared_ptr<const ClusterMap> map_;
    uint64_t chains_checked_ = 0;
    uint64_t chains_skipped_ = 0;
    uint64_t chunks_ = 0;
    ProblemList problems_;
};

Status Fsck::run() {
    // The map first: chunks are then looked for by a map that is not newer than the names.
    KDFS_TRY(fetch_map());
    bool consistent = false;
    for (int i = 0; i < kScansMax && !consistent; ++i) {
        KDFS_TRY_ASSIGN(consistent, scan_names());
    }
    names_changed_ = !consistent;
    if (!names_changed_) {
        for (const std::string& problem : names_.problems) {
            problems_.add(problem);
        }
    }
    owners_ = std::make_unique<ChunkOwners>(names_.owned);
    return check_chunks();
}

// False if the namespace changed while it was read, so that the pages do not fit together.
Result<bool> Fsck::scan_names() {
    Progress progress(console_, "reading names");
    mds::NamespaceCheck check;
    pb::ScanMetaRequest request;
    request.set_entries_max(kRecordsPerPage);
    uint64_t changes = 0;
    uint64_t records = 0;
    bool consistent = true;
    for (bool first = true;; first = false) {
        KDFS_TRY_ASSIGN(pb::ScanMetaReply page,
                        link_.ask<pb::ScanMetaReply>(choice_.mds_address,
                                                     MessageType::kScanMeta,
                                                     request,
                                                     kPagePatience));
        consistent = consistent && (first || page.changes() == changes);
        changes = page.changes();
        for (const pb::MetaRecord& record : page.records()) {
            check.add(record.key(), record.value());
            ++records;
        }
        progress.show(records, 0, "records");
        if (!page.more() || page.records().empty()) {
            break;
        }
        request.set_after(page.records(page.records_size() - 1).key());
    }
    names_ = check.finish();
    return consistent;
}

Status Fsck::fetch_map() {
    KDFS_TRY_ASSIGN(
        pb::GetMapReply reply,
        link_.ask<pb::GetMapReply>(choice_.mds_address, MessageType::kGetMap, pb::GetMapRequest()));
    KDFS_TRY_ASSIGN(map_, ClusterMap::make(std::move(*reply.mutable_map())));
    return {};
}

Status Fsck::check_chunks() {
    Progress progress(console_, "comparing copies");
    auto total = static_cast<uint64_t>(map_->proto().chains_size());
    std::vector<uint64_t> chains;
    for (const pb::Chain& chain : map_->proto().chains()) {
        chains.push_back(chain.id());
    }
    for (uint64_t id : chains) {
        progress.show(chains_checked_, total, "chains, " + counted(chunks_, "chunk"));
        for (int i = 0;; ++i) {
            // Kept: it may be replaced while doubts are settled.
            std::shared_ptr<const ClusterMap> map = map_;
            const pb::Chain* chain = map->chain(ChainId(id));
            if (chain == nullptr) {
                break;
            }
            Status done = check_chain(*chain);
            if (done.ok()) {
                break;
            }
            ErrorClass kind = error_class(done.error().code);
            if (i == kChainTriesMax || kind == ErrorClass::kFatal || kind == ErrorClass::kCaller) {
                ++chains_skipped_;
                problems_.add("chain " + std::to_string(id) +
                              " could not be checked: " + done.error().to_string());
                break;
            }
            std::this_thread::sleep_for(kLookDelay);
            KDFS_TRY(fetch_map());
        }
        ++chains_checked_;
    }
    return {};
}

Status Fsck::check_chain(const pb::Chain& chain) {
    std::vector<ChunkSight> doubts;
    KDFS_TRY_ASSIGN(bool served, walk_chain(chain, doubts));
    if (!served) {
        problems_.add("chain " + std::to_string(chain.id()) +
                      " has no serving member, so its chunks cannot be checked");
        return {};
    }
    for (ChunkSight& doubt : doubts) {
        KDFS_TRY(settle(chain, std::move(doubt)));
    }
    return {};
}

// False if nobody serves the chain.
Result<bool> Fsck::walk_chain(const pb::Chain& chain, std::vector<ChunkSight>& doubts) {
    std::vector<MemberPage> pages;
    for (TargetId target : serving_members(chain)) {
        MemberPage page;
        page.target = target.value;
        pages.push_back(page);
    }
    if (pages.empty()) {
        return false;
    }
    uint64_t chunks = 0;
    for (;;) {
        for (MemberPage& page : pages) {
            KDFS_TRY(fill(chain, page));
        }
        ChunkSight sight;
        if (!next_chunk(chain.id(), pages, sight)) {
            break;
        }
        ++chunks;
        bool doubtful = !sight.equal() || sight.any_pending() || !owners_->owned(sight.chunk.data);
        if (doubtful && doubts.size() < kDoubtsMax) {
            doubts.push_back(std::move(sight));
        }
    }
    chunks_ += chunks;
    return true;
}

Status Fsck::fill(const pb::Chain& chain, MemberPage& page) {
    if (!page.more || page.next != page.entries.size()) {
        return {};
    }
    pb::ListChunksRequest request;
    request.set_target(page.target);
    request.set_entries_max(kChunksPerPage);
    if (!page.entries.empty()) {
        *request.mutable_after() = page.entries.back().chunk();
    }
    KDFS_TRY_ASSIGN(pb::ListChunksReply reply, list(chain, request));
    page.more = reply.more() && !reply.entries().empty();
    page.entries.assign(reply.entries().begin(), reply.entries().end());
    page.next = 0;
    return {};
}

Result<pb::ListChunksReply> Fsck::list(const pb::Chain& chain, pb::ListChunksRequest request) {
    request.set_chain(chain.id());
    request.set_chain_version(chain.version());
    const pb::Node* node = map_->node_of(TargetId(request.target()));
    if (node == nullptr) {
        return Error(Errc::kStaleMap,
                     "target " + std::to_string(request.target()) + " is on no node");
    }
    return link_.ask<pb::ListChunksReply>(node->address(),
                                          MessageType::kListChunks,
                                          request,
                                          kPagePatience);
}

// Looks at one chunk again until its copies are equal and nothing is under way, or it is clear that
// they stay different.
Status Fsck::settle(const pb::Chain& chain, ChunkSight sight) {
    for (int i = 0; i < kLooksMax && (!sight.equal() || sight.any_pending()); ++i) {
        std::this_thread::sleep_for(kLookDelay);
        for (size_t m = 0; m < sight.targets.size(); ++m) {
            pb::ListChunksRequest request;
            request.set_target(sight.targets[m]);
            request.set_only_data(sight.chunk.data.value);
            request.set_entries_max(1);
            if (sight.chunk.index != 0) {
                request.mutable_after()->set_data(sight.chunk.data.value);
                request.mutable_after()->set_index(sight.chunk.index - 1);
            }
            KDFS_TRY_ASSIGN(pb::ListChunksReply reply, list(chain, request));
            bool there =
                !reply.entries().empty() && reply.entries(0).chunk().index() == sight.chunk.index;
            sight.entries[m] = there ? reply.entries(0) : pb::ChunkEntry();
        }
    }
    bool gone = std::all_of(sight.entries.begin(), sight.entries.end(), [](const auto& entry) {
        return entry.version() == 0;
    });
    if (gone) {
        return {};
    }
    if (!sight.equal()) {
        problems_.add(describe_difference(sight));
    }
    if (!names_changed_ && !owners_->owned(sight.chunk.data)) {
        problems_.add("chunk " + to_string(sight.chunk) + " of chain " +
                      std::to_string(sight.chain) + " belongs to no file");
    }
    return {};
}

void Fsck::print_text() const {
    for (const std::string& problem : problems_.shown()) {
        console_.out << "problem: " << problem << "\n";
    }
    if (names_changed_) {
        console_.out << "not judged: files changed during all " << kScansMax
                     << " looks at the names, so names and owners of chunks were not checked; run "
                        "it again when it is quieter\n";
    }
    console_.out << counted(names_.regular_files, "file") << ", " << names_.directories
                 << (names_.directories == 1 ? " directory" : " directories") << ", "
                 << counted(chunks_, "chunk") << " on "
                 << counted(chains_checked_ - chains_skipped_, "chain") << ": "
                 << (problems_.count() == 0 ? "no problems" : counted(problems_.count(), "problem"))
                 << (names_changed_ ? " in what was checked" : "") << "\n";
}

void Fsck::print_json() const {
    nlohmann::json out;
    out["ok"] = clean();
    out["names_judged"] = !names_changed_;
    out["files"] = names_.regular_files;
    out["directories"] = names_.directories;
    out["chunks"] = chunks_;
    out["chains_checked"] = chains_checked_ - chains_skipped_;
    out["problem_count"] = problems_.count();
    out["problems"] = problems_.shown();
    console_.out << out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

int fsck(const Arguments& arguments, Console& console) {
    std::string path = arguments.operands().empty() ? "" : arguments.operands().front();
    Result<ClusterChoice> choice = choose_cluster(arguments, path);
    if (!choice.ok()) {
        return console.fail(choice.error());
    }
    Result<std::unique_ptr<ClusterLink>> link = ClusterLink::open(choice->key_file);
    if (!link.ok()) {
        return console.fail(link.error());
    }
    Fsck fsck(**link, *choice, console);
    Status done = fsck.run();
    if (!done.ok()) {
        return console.fail(done.error());
    }
    if (arguments.has("json")) {
        fsck.print_json();
    } else {
        fsck.print_text();
    }
    return fsck.clean() ? kExitOk : kExitFailed;
}

}  // namespace

Command fsck_command() { return {fsck_spec(), fsck}; }

}  // namespace kdfs::tools
