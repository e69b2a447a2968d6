#include "tools/cluster_choice.h"
#include "tools/cluster_link.h"
#include "tools/command.h"
#include "tools/local_cluster.h"
#include "tools/mounts.h"
#include "tools/progress.h"
#include "tools/status_view.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <thread>

namespace kdfs::tools {

namespace {

constexpr auto kAnswerPatience = std::chrono::seconds(5);
constexpr auto kWaitPoll = std::chrono::milliseconds(100);

CommandSpec status_spec() {
    CommandSpec spec;
    spec.name = "status";
    spec.summary = "Show the health of a cluster, and what to do about problems";
    spec.operands = "[PATH]";
    spec.operands_max = 1;
    spec.details =
        "The first line is the health in one word: healthy (every chunk has all its copies), "
        "degraded (everything can be read and written, but something is missing), critical (some "
        "data is not available), unreachable (the metadata server does not answer). The exit code "
        "is 0, 1, 2 or 3. Each problem is shown with its cause and the command that mends it. "
        "PATH is any path on a kdfs mount.";
    spec.options = cluster_options();
    spec.options.push_back({"json", "", "print one JSON object"});
    spec.options.push_back({"wait", "SECONDS", "wait until it is healthy, for this time at most"});
    spec.examples = {"kdfs status",
                     "kdfs status --dir /var/tmp/k1 --json",
                     "kdfs status --wait 60 /kdfs"};
    return spec;
}

// What is known of a cluster without asking it.
StatusContext context_of(const ClusterChoice& choice) {
    StatusContext context;
    context.mds_address = choice.mds_address;
    context.state_dir = choice.state_dir;
    if (choice.state_dir.empty()) {
        return context;
    }
    Result<StateDir> state = StateDir::open(choice.state_dir);
    if (state.ok()) {
        context.nodes_expected = state->settings().nodes;
        LocalCluster cluster(*state);
        context.nodes_not_running = cluster.not_running();
        std::optional<Mount> mount = mount_at(state->settings().mount);
        if (mount && mount->is_kdfs() && !cluster.running("mount")) {
            context.dead_mount = mount->path;
        }
    }
    return context;
}

struct Answer {
    StatusView view;
    pb::StatusReply reply;
    StatusContext context;
};

// Fails where the server refuses us for good: that is our mistake and says nothing of its health.
Result<Answer> ask_status(ClusterLink& link, const ClusterChoice& choice) {
    Answer answer;
    answer.context = context_of(choice);
    Result<pb::StatusReply> reply = link.ask<pb::StatusReply>(choice.mds_address,
                                                              MessageType::kStatus,
                                                              pb::StatusRequest(),
                                                              kAnswerPatience);
    if (!reply.ok() && error_class(reply.error().code) == ErrorClass::kFatal) {
        return reply.error();
    }
    if (reply.ok()) {
        answer.reply = std::move(*reply);
        answer.view = judge_status(answer.reply, answer.context);
    } else {
        answer.view = unreachable_status(reply.error().detail, answer.context);
    }
    return answer;
}

Result<Answer> wait_for_status(ClusterLink& link,
                               const ClusterChoice& choice,
                               uint64_t wait_seconds,
                               Console& console) {
    auto begin = LocalCluster::Clock::now();
    auto deadline = begin + std::chrono::seconds(wait_seconds);
    Progress progress(console, "waiting until healthy");
    for (;;) {
        KDFS_TRY_ASSIGN(Answer answer, ask_status(link, choice));
        if (answer.view.health == Health::kHealthy || LocalCluster::Clock::now() >= deadline) {
            return answer;
        }
        const ChainCounts& chains = answer.view.chains;
        progress.show(chains.full, chains.total, "chains complete");
        std::this_thread::sleep_for(kWaitPoll);
    }
}

int exit_code_of(Health health) {
    switch (health) {
        case Health::kHealthy:
            return kExitOk;
        case Health::kDegraded:
            return kExitFailed;
        case Health::kCritical:
            return kExitCritical;
        case Health::kUnreachable:
            return kExitUnreachable;
    }
    return kExitFailed;
}

Result<Answer> run_status(const Arguments& arguments, Console& console) {
    KDFS_TRY_ASSIGN(uint64_t wait, arguments.number("wait", 0, {0, 86400}));
    std::string path = arguments.operands().empty() ? "" : arguments.operands().front();
    KDFS_TRY_ASSIGN(ClusterChoice choice, choose_cluster(arguments, path));
    KDFS_TRY_ASSIGN(std::unique_ptr<ClusterLink> link, ClusterLink::open(choice.key_file));
    return wait_for_status(*link, choice, wait, console);
}

int status(const Arguments& arguments, Console& console) {
    Result<Answer> answer = run_status(arguments, console);
    if (!answer.ok()) {
        return console.fail(answer.error());
    }
    if (arguments.has("json")) {
        console.out << status_json(answer->view, answer->reply, answer->context)
                           .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                    << "\n";
    } else {
        console.out << status_text(answer->view, answer->reply, answer->context);
    }
    return exit_code_of(answer->view.health);
}

}  // namespace

Command status_command() { return {status_spec(), status}; }

}  // namespace kdfs::tools
