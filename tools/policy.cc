#include "kdfs/proto/layout.h"
#include "tools/cluster_choice.h"
#include "tools/command.h"
#include "tools/files.h"
#include "tools/meta_session.h"
#include "tools/status_view.h"

#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>

namespace kdfs::tools {

namespace {

constexpr const char* kInherit = "inherit";

CommandSpec policy_spec() {
    CommandSpec spec;
    spec.name = "policy";
    spec.summary = "Show or set how new files below a directory are stored";
    spec.operands = "get|set PATH";
    spec.operands_min = 2;
    spec.operands_max = 2;
    spec.details =
        "A directory inherits what it does not set itself. Files that exist keep their layout; for "
        "a file, get shows it. The same settings are the extended attributes kdfs.chunk_size, "
        "kdfs.width, kdfs.replicas and kdfs.placement. The value 'inherit' removes a setting.";
    spec.options = {{"chunk-size", "BYTES", "size of a chunk: a power of two from 64K to 64M"},
                    {"width", "N", "chains a file is striped over: 1 to 256"},
                    {"replicas", "N", "copies of each chunk: 1 to 4, and at most one per node"},
                    {"placement",
                     "WORD",
                     "striped (over all chains) or local (first copy on the writer's "
                     "node)"},
                    {"json", "", "with get: print one JSON object"}};
    for (const OptionSpec& option : cluster_options()) {
        spec.options.push_back(option);
    }
    spec.examples = {"kdfs policy get /kdfs/data",
                     "kdfs policy set /kdfs/data --chunk-size 4M --replicas 3"};
    return spec;
}

std::string placement_name(pb::Placement placement) {
    return placement == pb::PLACEMENT_LOCAL ? "local" : "striped";
}

struct Setting {
    std::string attribute;
    // Empty: removed.
    std::string value;
};

Result<std::string> checked_value(const Arguments& arguments, const std::string& option) {
    std::string text = arguments.get(option);
    if (text == kInherit) {
        return std::string();
    }
    if (option == "chunk-size") {
        KDFS_TRY_ASSIGN(uint64_t bytes, parse_bytes(text, "--chunk-size"));
        if (!check_chunk_bytes(bytes).ok()) {
            return Error(
                Errc::kInvalidArgument,
                "--chunk-size is '" + text + "' but must be a power of two from 64K to 64M");
        }
        return std::to_string(bytes);
    }
    if (option == "placement") {
        if (text != "striped" && text != "local") {
            return Error(Errc::kInvalidArgument,
                         "--placement is '" + text + "' but must be striped or local");
        }
        return text;
    }
    uint64_t max = option == "width" ? kWidthMax : kReplicasMax;
    KDFS_TRY_ASSIGN(uint64_t number, parse_number(text, "--" + option, {1, max}));
    return std::to_string(number);
}

Result<std::vector<Setting>> wanted_settings(const Arguments& arguments) {
    std::vector<Setting> out;
    const std::pair<const char*, const char*> options[] = {{"chunk-size", "kdfs.chunk_size"},
                                                           {"width", "kdfs.width"},
                                                           {"replicas", "kdfs.replicas"},
                                                           {"placement", "kdfs.placement"}};
    for (const auto& [option, attribute] : options) {
        if (arguments.has(option)) {
            KDFS_TRY_ASSIGN(std::string value, checked_value(arguments, option));
            out.push_back({attribute, value});
        }
    }
    return out;
}

Status apply_setting(const std::string& path, const Setting& setting) {
    int done = setting.value.empty() ? removexattr(path.c_str(), setting.attribute.c_str())
                                     : setxattr(path.c_str(),
                                                setting.attribute.c_str(),
                                                setting.value.data(),
                                                setting.value.size(),
                                                0);
    bool was_absent = done != 0 && setting.value.empty() && errno == ENODATA;
    if (done != 0 && !was_absent) {
        return errno_error(errno, "set " + setting.attribute + " of " + path);
    }
    return {};
}

// Opened for as long as a command looks at one path.
struct PathView {
    ClusterChoice choice;
    std::unique_ptr<ClusterLink> link;
    std::unique_ptr<MetaSession> session;
    struct stat info {};
};

Result<PathView> open_path(const Arguments& arguments, const std::string& path) {
    PathView view;
    if (stat(path.c_str(), &view.info) != 0) {
        return errno_error(errno, path);
    }
    if (!S_ISDIR(view.info.st_mode) && !S_ISREG(view.info.st_mode)) {
        return Error(Errc::kInvalidArgument, path + " is neither a directory nor a file");
    }
    KDFS_TRY_ASSIGN(view.choice, choose_cluster(arguments, path));
    KDFS_TRY_ASSIGN(view.link, ClusterLink::open(view.choice.key_file));
    KDFS_TRY_ASSIGN(view.session, MetaSession::open(*view.link, view.choice.mds_address));
    return view;
}

Status check_replicas(const std::vector<Setting>& settings, const ClusterMap& map) {
    for (const Setting& setting : settings) {
        if (setting.attribute != "kdfs.replicas" || setting.value.empty()) {
            continue;
        }
        auto nodes = static_cast<uint64_t>(map.proto().nodes_size());
        KDFS_TRY_ASSIGN(uint64_t wanted, parse_number(setting.value, "--replicas", {}));
        if (wanted > nodes) {
            return Error(Errc::kInvalidArgument,
                         "--replicas is " + setting.value + ", but the cluster has " +
                             counted(nodes, "node") +
                             " and each copy needs its own; give at most " + std::to_string(nodes));
        }
    }
    return {};
}

Status set_policy(const Arguments& arguments, const std::string& path) {
    KDFS_TRY_ASSIGN(std::vector<Setting> settings, wanted_settings(arguments));
    if (settings.empty()) {
        return Error(Errc::kInvalidArgument,
                     "kdfs policy set lacks a setting: --chunk-size, --width, --replicas or "
                     "--placement");
    }
    KDFS_TRY_ASSIGN(PathView view, open_path(arguments, path));
    if (!S_ISDIR(view.info.st_mode)) {
        return Error(Errc::kInvalidArgument,
                     path +
                         " is a file and keeps its layout; set the policy of a directory, then "
                         "copy the file into it");
    }
    KDFS_TRY(check_replicas(settings, view.session->map()));
    for (const Setting& setting : settings) {
        KDFS_TRY(apply_setting(path, setting));
    }
    return {};
}

struct Row {
    std::string name;
    std::string value;
    // Why it is so; empty: it is the directory's own.
    std::string source;
};

// A value that no directory up to the root sets is the default.
Row number_row(const std::string& name, uint64_t value, uint64_t own, uint64_t otherwise) {
    if (own != 0) {
        return {name, std::to_string(own), ""};
    }
    if (value != 0) {
        return {name, std::to_string(value), "inherited"};
    }
    return {name, std::to_string(otherwise), "default"};
}

std::vector<Row> policy_rows(const pb::MetaReply& reply, const ClusterMap& map) {
    const pb::Policy& all = reply.policy();
    const pb::Policy& own = reply.own_policy();
    auto nodes = static_cast<uint64_t>(map.proto().nodes_size());
    std::string placement_source = own.has_placement()   ? ""
                                   : all.has_placement() ? "inherited"
                                                         : "default";
    return {number_row("chunk-size", all.chunk_bytes(), own.chunk_bytes(), kChunkBytesDefault),
            number_row("width", all.width(), own.width(), kWidthDefault),
            number_row("replicas", all.replicas(), own.replicas(), std::min<uint64_t>(2, nodes)),
            {"placement", placement_name(all.placement()), placement_source}};
}

std::vector<Row> layout_rows(const pb::Layout& layout) {
    return {{"chunk-size", std::to_string(layout.chunk_bytes()), ""},
            {"width", std::to_string(layout.width()), ""},
            {"replicas", std::to_string(layout.replicas()), ""},
            {"placement", placement_name(layout.placement()), ""}};
}

void print_rows(const std::vector<Row>& rows,
                bool as_json,
                const std::string& path,
                Console& console) {
    if (as_json) {
        nlohmann::json out;
        out["path"] = path;
        for (const Row& row : rows) {
            nlohmann::json& one = out[row.name == "chunk-size" ? "chunk_size" : row.name];
            one["value"] = row.name == "placement" ? nlohmann::json(row.value)
                                                   : nlohmann::json(std::stoull(row.value));
            one["source"] = row.source.empty() ? "own" : row.source;
        }
        console.out << out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
        return;
    }
    for (const Row& row : rows) {
        std::string head = row.name + ":";
        head.resize(13, ' ');
        console.out << head << row.value << (row.source.empty() ? "" : "  (" + row.source + ")")
                    << "\n";
    }
}

Status get_policy(const Arguments& arguments, const std::string& path, Console& console) {
    for (const char* option : {"chunk-size", "width", "replicas", "placement"}) {
        if (arguments.has(option)) {
            return Error(Errc::kInvalidArgument,
                         "--" + std::string(option) + " belongs to kdfs policy set");
        }
    }
    KDFS_TRY_ASSIGN(PathView view, open_path(arguments, path));
    pb::MetaRequest request;
    std::vector<Row> rows;
    if (S_ISDIR(view.info.st_mode)) {
        request.mutable_get_policy()->set_ino(view.info.st_ino);
        KDFS_TRY_ASSIGN(pb::MetaReply reply, view.session->run(request));
        rows = policy_rows(reply, view.session->map());
    } else {
        request.mutable_getattr()->set_ino(view.info.st_ino);
        KDFS_TRY_ASSIGN(pb::MetaReply reply, view.session->run(request));
        rows = layout_rows(reply.attr().layout());
    }
    print_rows(rows, arguments.has("json"), path, console);
    return {};
}

int policy(const Arguments& arguments, Console& console) {
    const std::string& verb = arguments.operands()[0];
    const std::string& path = arguments.operands()[1];
    Status done;
    if (verb == "get") {
        done = get_policy(arguments, path, console);
    } else if (verb == "set") {
        done = set_policy(arguments, path);
    } else {
        done = Error(Errc::kInvalidArgument,
                     "kdfs policy knows get and set, not '" + verb + "'; see kdfs policy --help");
    }
    return done.ok() ? kExitOk : console.fail(done.error());
}

}  // namespace

Command policy_command() { return {policy_spec(), policy}; }

}  // namespace kdfs::tools
