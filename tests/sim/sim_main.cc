// kdfs-sim: runs a simulated cluster from a seed.

#include "kdfs/proto/placement.h"
#include "tests/sim/fault_points.h"
#include "tests/sim/simulation.h"

#include <boost/program_options.hpp>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <utility>

namespace {

namespace po = boost::program_options;
using kdfs::sim::RunOptions;
using kdfs::sim::RunResult;
using kdfs::sim::Verdict;

// Exit codes.
constexpr int kUsage = 1;
constexpr int kWrongData = 2;
constexpr int kNoProgress = 3;
constexpr int kCrash = 4;
constexpr int kNotRepeatable = 5;
constexpr int kPointsUnhit = 6;

using PointCounts = std::map<std::string, std::pair<uint64_t, uint64_t>>;

// For the crash handler, which may not allocate.
char replay_line[128];

void on_crash(int signal) {
    (void)!::write(STDERR_FILENO, "CRASH; ", 7);
    (void)!::write(STDERR_FILENO, replay_line, std::strlen(replay_line));
    std::signal(signal, SIG_DFL);
    ::_exit(kCrash);
}

struct Arguments {
    uint64_t first = 1;
    uint64_t last = 1;
    bool twice = false;
    bool quiet = false;
    uint64_t seconds_max = 0;
    bool all_points = false;
    RunOptions run;
};

int report(const RunResult& result, uint64_t seed) {
    if (!result.verdict.failed()) {
        return 0;
    }
    bool wrong = result.verdict.kind() == Verdict::Kind::kWrongData;
    std::fprintf(stderr,
                 "%s%s: %s\nshape: %s\n%s",
                 result.log.c_str(),
                 wrong ? "WRONG" : "NO PROGRESS",
                 result.verdict.what().c_str(),
                 result.shape.c_str(),
                 replay_line);
    std::printf("seed %llu failed: %s\n",
                static_cast<unsigned long long>(seed),
                result.verdict.what().c_str());
    return wrong ? kWrongData : kNoProgress;
}

int run_seed(const Arguments& arguments, uint64_t seed, PointCounts& points) {
    char chains[32] = "";
    if (arguments.run.chains_per_target != kdfs::kChainsPerTarget) {
        std::snprintf(chains,
                      sizeof chains,
                      "--chains %llu ",
                      static_cast<unsigned long long>(arguments.run.chains_per_target));
    }
    std::snprintf(replay_line,
                  sizeof replay_line,
                  "replay with: kdfs-sim %s%s%s%s%s--seed %llu --verbose\n",
                  arguments.run.mix == kdfs::sim::Mix::kFull ? "--mix full " : "",
                  arguments.run.fault_points ? "--points " : "",
                  arguments.run.flips ? "--flips " : "",
                  arguments.run.harsh ? "--harsh " : "",
                  chains,
                  static_cast<unsigned long long>(seed));
    if (!arguments.quiet) {
        std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
        std::fflush(stdout);
    }
    RunOptions options = arguments.run;
    options.seed = seed;
    RunResult result = kdfs::sim::run_simulation(options);
    for (const auto& [name, count] : result.fault_points) {
        points[name].first += count.first;
        points[name].second += count.second;
    }
    if (int code = report(result, seed)) {
        return code;
    }
    if (arguments.twice && kdfs::sim::run_simulation(options).digest != result.digest) {
        std::fprintf(stderr, "NOT REPEATABLE: two runs of one seed differ\n%s", replay_line);
        return kNotRepeatable;
    }
    if (!arguments.quiet) {
        double seconds = std::chrono::duration<double>(result.virtual_time).count();
        std::printf(
            "  ok: %s\n  %llu operations, %.0f s of virtual time, %llu events, digest "
            "%016llx\n  faults: %s\n",
            result.shape.c_str(),
            static_cast<unsigned long long>(result.operations),
            seconds,
            static_cast<unsigned long long>(result.events),
            static_cast<unsigned long long>(result.digest),
            result.faults.c_str());
    }
    return 0;
}

bool all_hit(const PointCounts& points) {
    return std::all_of(std::begin(kdfs::sim::kFaultPoints),
                       std::end(kdfs::sim::kFaultPoints),
                       [&points](const char* name) {
                           auto found = points.find(name);
                           return found != points.end() && found->second.second != 0;
                       });
}

int report_points(const PointCounts& points, bool all) {
    int code = 0;
    for (const auto& [name, count] : points) {
        std::printf("  %-30s passed %10llu, died %6llu\n",
                    name.c_str(),
                    static_cast<unsigned long long>(count.first),
                    static_cast<unsigned long long>(count.second));
        if (all && std::find(std::begin(kdfs::sim::kFaultPoints),
                             std::end(kdfs::sim::kFaultPoints),
                             name) == std::end(kdfs::sim::kFaultPoints)) {
            std::fprintf(stderr, "fault point %s is not in fault_points.h\n", name.c_str());
            code = kPointsUnhit;
        }
    }
    for (const char* name : kdfs::sim::kFaultPoints) {
        auto found = points.find(name);
        if (all && (found == points.end() || found->second.second == 0)) {
            std::fprintf(stderr, "fault point %s let no process die; run more seeds\n", name);
            code = kPointsUnhit;
        }
    }
    return code;
}

// "A..B", both included.
void parse_range(const std::string& text, Arguments& out) {
    size_t dots = text.find("..");
    if (dots == std::string::npos) {
        throw po::error("--seeds wants A..B, such as 1..100");
    }
    out.first = std::stoull(text.substr(0, dots));
    out.last = std::stoull(text.substr(dots + 2));
    out.quiet = true;
}

Arguments parse(int argc, char** argv) {
    Arguments out;
    uint64_t minutes = 0;
    po::options_description options("kdfs-sim: simulates a whole cluster");
    auto add = options.add_options();
    add("help", "this text");
    add("seed", po::value<uint64_t>(&out.first), "run this seed");
    add("seeds", po::value<std::string>(), "run the seeds A..B and stop at the first failure");
    std::string mix = "basic";
    add("mix", po::value<std::string>(&mix), "which faults seeds draw from: basic or full");
    add("chains",
        po::value<uint64_t>(&out.run.chains_per_target),
        "chains that each target is in, 64 by default; with 8 a seed takes a third of the time");
    add("minutes", po::value<uint64_t>(&minutes), "virtual time under faults");
    add("seconds-max", po::value<uint64_t>(&out.seconds_max), "begin no seed after this real time");
    add("twice", po::bool_switch(&out.twice), "run each seed twice and compare the traces");
    add("points",
        po::bool_switch(&out.run.fault_points),
        "processes also die at named places in the middle of operations (with --mix full)");
    add("flips",
        po::bool_switch(&out.run.flips),
        "bits of frames flip on their way (with --mix full)");
    add("harsh",
        po::bool_switch(&out.run.harsh),
        "links between two machines fail, all storage nodes lose power at once, shapes are narrow "
        "(with --mix full)");
    add("all-points",
        po::bool_switch(&out.all_points),
        "the same until each of the places let one die, and fail if one did not");
    add("verbose", po::bool_switch(&out.run.verbose), "print every log line");
    po::variables_map values;
    po::store(po::parse_command_line(argc, argv, options), values);
    if (values.contains("help")) {
        std::cout << options;
        std::exit(0);
    }
    po::notify(values);
    if (mix != "basic" && mix != "full") {
        throw po::error("--mix wants basic or full");
    }
    out.run.mix = mix == "full" ? kdfs::sim::Mix::kFull : kdfs::sim::Mix::kBasic;
    if (out.run.chains_per_target < 1 || out.run.chains_per_target > 1024) {
        throw po::error("--chains wants 1 to 1024");
    }
    out.run.fault_points = out.run.fault_points || out.all_points;
    if ((out.run.fault_points || out.run.flips || out.run.harsh) && mix != "full") {
        throw po::error("--points, --flips and --harsh want --mix full");
    }
    out.last = out.first;
    if (values.contains("seeds")) {
        parse_range(values["seeds"].as<std::string>(), out);
    }
    if (minutes != 0) {
        out.run.chaos = std::chrono::minutes(minutes);
    }
    return out;
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    try {
        arguments = parse(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "kdfs-sim: " << error.what() << "; see kdfs-sim --help\n";
        return kUsage;
    }
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) {
        std::signal(signal, on_crash);
    }
    auto start = std::chrono::steady_clock::now();
    uint64_t count = 0;
    PointCounts points;
    for (uint64_t seed = arguments.first; seed <= arguments.last; ++seed) {
        auto gone = std::chrono::steady_clock::now() - start;
        if (arguments.seconds_max != 0 && gone > std::chrono::seconds(arguments.seconds_max)) {
            break;
        }
        if (int code = run_seed(arguments, seed, points)) {
            return code;
        }
        ++count;
        if (arguments.all_points && all_hit(points)) {
            break;
        }
    }
    std::printf("%llu seeds passed\n", static_cast<unsigned long long>(count));
    return arguments.run.fault_points ? report_points(points, arguments.all_points) : 0;
}
