#include "kdfs/proto/layout.h"
#include "tools/cluster_choice.h"
#include "tools/command.h"
#include "tools/files.h"
#include "tools/meta_session.h"
#include "tools/status_view.h"

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace kdfs::tools {

namespace {

constexpr uint64_t kChunksShown = 1000;

CommandSpec where_spec() {
    CommandSpec spec;
    spec.name = "where";
    spec.summary = "Show which chunk of a file is on which nodes";
    spec.operands = "FILE";
    spec.operands_min = 1;
    spec.operands_max = 1;
    spec.details =
        "One line per chunk: its number, the bytes of the file it holds, its chain, and the nodes "
        "with their state; the first serving one orders the writes. FILE lies on a kdfs mount.";
    spec.options = cluster_options();
    spec.options.push_back({"limit", "N", "chunks to show at most (default 1000; 0 shows all)"});
    spec.options.push_back({"json", "", "print one JSON object"});
    spec.examples = {"kdfs where /kdfs/data.bin", "kdfs where --json --limit 10 /kdfs/data.bin"};
    return spec;
}

std::string_view state_name(pb::MemberState state) {
    switch (state) {
        case pb::MEMBER_SERVING:
            return "serving";
        case pb::MEMBER_SYNCING:
            return "syncing";
        case pb::MEMBER_WAITING:
            return "waiting";
        case pb::MEMBER_LAST_SERVING:
            return "last serving, offline";
        case pb::MEMBER_OFFLINE:
            return "offline";
        default:
            return "none";
    }
}

struct FileView {
    std::string path;
    uint64_t size = 0;
    pb::Layout layout;
    uint64_t chunks = 0;
    uint64_t shown = 0;
};

uint64_t chain_of_chunk(const FileView& file, const pb::ChainTable& table, uint64_t chunk) {
    uint64_t piece = piece_index(file.layout, chunk * file.layout.chunk_bytes());
    return chain_of_piece(file.layout, table, piece).value;
}

std::string node_name_of(const ClusterMap& map, uint64_t target) {
    const pb::Node* node = map.node_of(TargetId(target));
    return node == nullptr ? "unknown node" : node->name();
}

std::string members_text(const ClusterMap& map, uint64_t chain_id) {
    const pb::Chain* chain = map.chain(ChainId(chain_id));
    if (chain == nullptr) {
        return "chain is not in the map";
    }
    std::string out;
    for (const pb::ChainMember& member : chain->members()) {
        out += (out.empty() ? "" : ", ") + node_name_of(map, member.target()) + " (t" +
               std::to_string(member.target());
        if (member.state() != pb::MEMBER_SERVING) {
            out += ", " + std::string(state_name(member.state()));
        }
        out += ")";
    }
    return out;
}

void print_text(const FileView& file,
                const ClusterMap& map,
                const pb::ChainTable& table,
                Console& console) {
    console.out << file.path << ": " << file.size << " bytes, " << counted(file.chunks, "chunk")
                << " of " << human_bytes(file.layout.chunk_bytes()) << ", striped over "
                << std::min<uint64_t>(file.layout.width(),
                                      static_cast<uint64_t>(table.chains_size()))
                << " chains, " << file.layout.replicas() << " copies\n";
    for (uint64_t chunk = 0; chunk < file.shown; ++chunk) {
        uint64_t begin = chunk * file.layout.chunk_bytes();
        uint64_t end = std::min(begin + file.layout.chunk_bytes(), file.size);
        uint64_t chain = chain_of_chunk(file, table, chunk);
        console.out << "  chunk " << chunk << "  bytes " << begin << "-" << end - 1 << "  chain "
                    << chain << "  on " << members_text(map, chain) << "\n";
    }
    if (file.shown < file.chunks) {
        console.out << "  and " << file.chunks - file.shown
                    << " more; to see all: kdfs where --limit 0 " << file.path << "\n";
    }
}

nlohmann::json chunk_json(const FileView& file,
                          const ClusterMap& map,
                          uint64_t chunk,
                          uint64_t chain_id) {
    nlohmann::json one;
    one["chunk"] = chunk;
    one["offset"] = chunk * file.layout.chunk_bytes();
    one["length"] =
        std::min(file.layout.chunk_bytes(), file.size - chunk * file.layout.chunk_bytes());
    one["chain"] = chain_id;
    one["members"] = nlohmann::json::array();
    const pb::Chain* chain = map.chain(ChainId(chain_id));
    if (chain == nullptr) {
        return one;
    }
    for (const pb::ChainMember& member : chain->members()) {
        nlohmann::json entry;
        entry["node"] = node_name_of(map, member.target());
        entry["target"] = member.target();
        entry["state"] = state_name(member.state());
        one["members"].push_back(entry);
    }
    return one;
}

void print_json(const FileView& file,
                const ClusterMap& map,
                const pb::ChainTable& table,
                Console& console) {
    nlohmann::json out;
    out["path"] = file.path;
    out["size"] = file.size;
    out["chunk_bytes"] = file.layout.chunk_bytes();
    out["width"] = file.layout.width();
    out["replicas"] = file.layout.replicas();
    out["chunks_total"] = file.chunks;
    out["chunks"] = nlohmann::json::array();
    for (uint64_t chunk = 0; chunk < file.shown; ++chunk) {
        out["chunks"].push_back(chunk_json(file, map, chunk, chain_of_chunk(file, table, chunk)));
    }
    console.out << out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

Status run_where(const Arguments& arguments, Console& console) {
    FileView file;
    file.path = arguments.operands().front();
    KDFS_TRY_ASSIGN(uint64_t limit, arguments.number("limit", kChunksShown, {}));
    struct stat info {};
    if (lstat(file.path.c_str(), &info) != 0) {
        return errno_error(errno, file.path);
    }
    if (!S_ISREG(info.st_mode)) {
        return Error(Errc::kInvalidArgument,
                     file.path +
                         " is no regular file, so it has no chunks; for a directory see "
                         "kdfs policy get");
    }
    KDFS_TRY_ASSIGN(ClusterChoice choice, choose_cluster(arguments, file.path));
    KDFS_TRY_ASSIGN(std::unique_ptr<ClusterLink> link, ClusterLink::open(choice.key_file));
    KDFS_TRY_ASSIGN(std::unique_ptr<MetaSession> session,
                    MetaSession::open(*link, choice.mds_address));
    pb::MetaRequest request;
    request.mutable_getattr()->set_ino(info.st_ino);
    KDFS_TRY_ASSIGN(pb::MetaReply reply, session->run(request));
    file.size = reply.attr().size();
    file.layout = reply.attr().layout();
    KDFS_TRY(check_layout(file.layout));
    const pb::ChainTable* table = session->map().table(file.layout.table());
    if (table == nullptr || table->chains_size() == 0) {
        return Error(Errc::kMalformed,
                     "the layout of " + file.path + " names chain table " +
                         std::to_string(file.layout.table()) +
                         ", which the cluster map does not have; run kdfs fsck");
    }
    uint64_t chunk_bytes = file.layout.chunk_bytes();
    file.chunks = file.size / chunk_bytes + (file.size % chunk_bytes == 0 ? 0 : 1);
    file.shown = limit == 0 ? file.chunks : std::min(limit, file.chunks);
    if (arguments.has("json")) {
        print_json(file, session->map(), *table, console);
    } else {
        print_text(file, session->map(), *table, console);
    }
    return {};
}

int where(const Arguments& arguments, Console& console) {
    Status done = run_where(arguments, console);
    return done.ok() ? kExitOk : console.fail(done.error());
}

}  // namespace

Command where_command() { return {where_spec(), where}; }

}  // namespace kdfs::tools
