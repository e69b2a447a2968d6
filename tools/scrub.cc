#include "tools/cluster_choice.h"
#include "tools/cluster_link.h"
#include "tools/command.h"
#include "tools/progress.h"
#include "tools/scrub_view.h"
#include "tools/status_view.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <thread>

namespace kdfs::tools {

namespace {

constexpr uint64_t kRateDefault = 64 * MiB;
constexpr auto kWaitPoll = std::chrono::milliseconds(100);

CommandSpec scrub_spec() {
    CommandSpec spec;
    spec.name = "scrub";
    spec.summary = "Look for damage in all that is stored, and repair it";
    spec.operands = "start|status|stop [PATH]";
    spec.operands_min = 1;
    spec.operands_max = 2;
    spec.details =
        "Every storage daemon reads all its chunks in the background, checks them against their "
        "checksums, and repairs a damaged one from another copy. Where copies differ although no "
        "write is under way, that of the chain's head is copied to the others, unless another is "
        "newer: then both stay and the log names the chunk. start begins one, or changes the rate "
        "of the one that runs; a daemon that is started again goes on where it was. status shows "
        "how far it is, what it found, and which files have a chunk that is whole nowhere; its "
        "exit code is 1 if there are such, or copies that still differ, or if --wait ended before "
        "the scrub. PATH is any path on a kdfs mount.";
    spec.options = {
        {"rate", "BYTES", "with start: read at most this per second and target (default 64M)"},
        {"wait", "SECONDS", "with status: wait until it is done, for this time at most"},
        {"json", "", "with status: print one JSON object"}};
    for (const OptionSpec& option : cluster_options()) {
        spec.options.push_back(option);
    }
    spec.examples = {"kdfs scrub start --rate 16M", "kdfs scrub status", "kdfs scrub stop /kdfs"};
    return spec;
}

Status check_words(const Arguments& arguments) {
    const std::string& word = arguments.operands().front();
    if (word != "start" && word != "status" && word != "stop") {
        return Error(Errc::kInvalidArgument,
                     "kdfs scrub takes start, status or stop, not '" + word + "'");
    }
    if (arguments.has("rate") && word != "start") {
        return Error(Errc::kInvalidArgument, "--rate goes with kdfs scrub start only");
    }
    for (const char* option : {"json", "wait"}) {
        if (arguments.has(option) && word != "status") {
            return Error(Errc::kInvalidArgument,
                         "--" + std::string(option) + " goes with kdfs scrub status only");
        }
    }
    return {};
}

struct Session {
    ClusterChoice choice;
    std::unique_ptr<ClusterLink> link;
};

Result<Session> open_session(const Arguments& arguments) {
    Session out;
    std::string path = arguments.operands().size() < 2 ? "" : arguments.operands()[1];
    KDFS_TRY_ASSIGN(out.choice, choose_cluster(arguments, path));
    KDFS_TRY_ASSIGN(out.link, ClusterLink::open(out.choice.key_file));
    return out;
}

Status order(const Arguments& arguments, Console& console) {
    pb::ScrubRequest request;
    request.set_run(arguments.operands().front() == "start");
    if (request.run()) {
        uint64_t rate = kRateDefault;
        if (arguments.has("rate")) {
            KDFS_TRY_ASSIGN(rate, parse_bytes(arguments.get("rate"), "--rate"));
        }
        request.set_bytes_per_second(rate);
    }
    KDFS_TRY_ASSIGN(Session session, open_session(arguments));
    KDFS_TRY_ASSIGN(pb::ScrubReply reply,
                    session.link->ask<pb::ScrubReply>(session.choice.mds_address,
                                                      MessageType::kScrub,
                                                      request));
    if (request.run()) {
        console.out << "scrub " << reply.order().number() << " runs, at most "
                    << human_bytes(reply.order().bytes_per_second())
                    << " per second and target; to see how far it is: kdfs scrub status\n";
    } else {
        console.out << "no scrub runs now\n";
    }
    return {};
}

struct Answer {
    pb::StatusReply reply;
    ScrubView view;
    FileNames names;
};

Result<Answer> ask(Session& session) {
    Answer answer;
    KDFS_TRY_ASSIGN(answer.reply,
                    session.link->ask<pb::StatusReply>(session.choice.mds_address,
                                                       MessageType::kStatus,
                                                       pb::StatusRequest()));
    answer.view = judge_scrub(answer.reply);
    return answer;
}

Result<Answer> ask_status(const Arguments& arguments, Console& console) {
    KDFS_TRY_ASSIGN(uint64_t seconds, arguments.number("wait", 0, {0, 604800}));
    KDFS_TRY_ASSIGN(Session session, open_session(arguments));
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    Progress progress(console, "scrubbing");
    for (;;) {
        KDFS_TRY_ASSIGN(Answer answer, ask(session));
        if (answer.view.state != ScrubState::kRunning ||
            std::chrono::steady_clock::now() >= deadline) {
            if (!answer.view.lost_data.empty()) {
                KDFS_TRY_ASSIGN(answer.names,
                                find_file_names(*session.link,
                                                session.choice.mds_address,
                                                answer.view.lost_data));
            }
            return answer;
        }
        progress.show(answer.view.total.chains_done(), answer.view.total.chains(), "chains");
        std::this_thread::sleep_for(kWaitPoll);
    }
}

int scrub(const Arguments& arguments, Console& console) {
    Status words = check_words(arguments);
    if (!words.ok()) {
        return console.fail(words.error());
    }
    if (arguments.operands().front() != "status") {
        Status done = order(arguments, console);
        return done.ok() ? kExitOk : console.fail(done.error());
    }
    Result<Answer> answer = ask_status(arguments, console);
    if (!answer.ok()) {
        return console.fail(answer.error());
    }
    if (arguments.has("json")) {
        console.out << scrub_json(answer->view, answer->reply, answer->names)
                           .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                    << "\n";
    } else {
        console.out << scrub_text(answer->view, answer->reply, answer->names);
    }
    bool in_time = !arguments.has("wait") || answer->view.state != ScrubState::kRunning;
    return answer->view.sound() && in_time ? kExitOk : kExitFailed;
}

}  // namespace

Command scrub_command() { return {scrub_spec(), scrub}; }

}  // namespace kdfs::tools
