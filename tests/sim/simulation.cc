#include "tests/sim/simulation.h"

#include "tests/sim/cluster.h"
#include "tests/sim/frame_text.h"
#include "tests/sim/nemesis.h"
#include "tests/sim/workload.h"

#include <utility>

namespace kdfs::sim {
namespace {

constexpr Duration kFormBound = std::chrono::seconds(30);
constexpr Duration kProgressBound = std::chrono::seconds(60);
constexpr Duration kHealthBound = std::chrono::seconds(60);
constexpr Duration kVerifyBound = std::chrono::seconds(120);
// A change of names is on stable storage within a second of its answer.
constexpr Duration kJournalBound = std::chrono::milliseconds(1500);

// Of frames: some in every seed.
constexpr uint32_t kFlipPpm = 2000;

class Simulation {
public:
    explicit Simulation(const RunOptions& options)
        : options_(options),
          shared_(options.seed),
          random_(options.seed ^ 0x72756e),
          load_(shared_.clock, verdict_, random_.fork("workload"), WorkloadOptions()),
          shape_(ClusterOptions::draw(random_)),
          faults_(NemesisOptions::draw(random_)),
          power_fails_(random_.below(2) == 0),
          more_random_(options.seed ^ 0x66756c6c),
          cluster_(shared_, verdict_, draw_more(), load_) {
        set_drifts();
        shared_.log_book.set_verbose(options.verbose);
        shared_.log_book.set_alarm("copies of a chunk differ");
        if (options.verbose) {
            shared_.network.set_tracer(
                [this](const std::string& from, const std::string& to, const Frame& frame) {
                    shared_.log_book.write(to,
                                           LogLevel::kDebug,
                                           "from " + from + ": " + frame_text(frame));
                });
        }
        // Reads that fail for good would need a budget of their own.
        shared_.faults.set("disk.read_error", 0);
    }

    RunResult run() {
        if (form()) {
            chaos();
            heal_and_verify();
        }
        if (!shared_.log_book.alarm().empty()) {
            verdict_.wrong("a scrub found: " + shared_.log_book.alarm());
        }
        RunResult result;
        result.verdict = verdict_;
        result.digest = shared_.clock.digest();
        result.events = shared_.clock.events_run();
        result.operations = load_.operations();
        result.virtual_time = shared_.clock.now().time_since_epoch() - std::chrono::hours(1);
        result.shape =
            shape_.describe() + "; " + faults_.describe() + (power_fails_ ? " power-fails" : "");
        if (verdict_.failed() && !options_.verbose) {
            for (const std::string& line : shared_.log_book.last_lines()) {
                result.log += line + "\n";
            }
        }
        for (const auto& [name, fault] : shared_.faults.faults()) {
            result.faults += name + " " + std::to_string(fault.happened) + "/" +
                             std::to_string(fault.asked) + "  ";
        }
        for (const auto& [name, count] : shared_.fault_points.counts()) {
            result.fault_points[name] = {count.passed, count.died};
        }
        return result;
    }

private:
    // Adds what the full mix has; gives the shape.
    const ClusterOptions& draw_more() {
        shape_.chains_per_target = options_.chains_per_target;
        if (options_.mix == Mix::kFull) {
            faults_.draw_more(more_random_);
            faults_.fault_points = options_.fault_points;
            faults_.flips = options_.flips;
            faults_.network.flip_ppm = options_.flips ? kFlipPpm : 0;
            shape_.draw_more(more_random_);
            load_.set_tight_space(shape_.tight());
            WorkloadOptions work;
            work.draw_more(more_random_);
            if (options_.harsh) {
                Random random(options_.seed ^ 0x6861727368);
                faults_.draw_harsh(random);
                shape_.draw_harsh(random);
                work.draw_harsh(random);
            }
            load_.set_options(work);
        }
        return shape_;
    }

    void set_drifts() {
        if (faults_.drift_ppm_max == 0) {
            return;
        }
        for (SimNode* node : cluster_.all()) {
            uint64_t off = more_random_.below(uint64_t{2} * faults_.drift_ppm_max + 1);
            node->set_drift(static_cast<int64_t>(off) - faults_.drift_ppm_max);
        }
    }

    void no_progress(const std::string& what) { verdict_.fail(Verdict::Kind::kNoProgress, what); }

    bool form() {
        cluster_.boot_all();
        if (!cluster_.run_until([this] { return cluster_.healthy(); }, kFormBound)) {
            no_progress("the cluster did not form");
        }
        return !verdict_.failed();
    }

    void chaos() {
        Random random = random_.fork("chaos");
        nemesis_ = std::make_unique<Nemesis>(cluster_, random_.fork("nemesis"), faults_);
        Duration time = std::chrono::seconds(random.range(10, 90));
        TimePoint end = shared_.clock.now() + options_.chaos.value_or(time);
        while (shared_.clock.now() < end && !verdict_.failed()) {
            cluster_.run_for(nemesis_->next_pause());
            nemesis_->act();
        }
    }

    // Everything loses power at once, a moment after the last change of names: what the journal has
    // by then is durable without being asked.
    void lose_power() {
        load_.resume();
        cluster_.run_for(std::chrono::milliseconds(random_.range(500, 15000)));
        load_.stop();
        if (!cluster_.run_until([this] { return load_.idle(); }, kProgressBound)) {
            no_progress("operations did not end before the loss of power");
        }
        cluster_.run_for(kJournalBound);
        if (verdict_.failed()) {
            return;
        }
        for (SimNode* node : cluster_.all()) {
            cluster_.cut_power(*node);
        }
        load_.power_lost();
        cluster_.boot_all();
        if (!cluster_.run_until([this] { return cluster_.healthy(); }, kHealthBound)) {
            no_progress("the cluster does not come back after a loss of power");
        }
        verify(0);
    }

    void heal_and_verify() {
        nemesis_->heal();
        cluster_.enlarge_disks();
        // Some work goes on while everything heals.
        cluster_.run_for(std::chrono::seconds(3));
        load_.stop();
        if (!cluster_.run_until([this] { return load_.idle(); }, kProgressBound)) {
            no_progress("operations did not end after everything had healed");
        }
        // What clients that died had under way ends with their connections; see worker.cc, doubts.
        cluster_.run_for(SimNetwork::kDeadTimeMax);
        if (!cluster_.run_until([this] { return cluster_.healthy(); }, kHealthBound)) {
            no_progress("chains are not whole again after everything had healed: " +
                        cluster_.what_is_missing());
        }
        for (size_t client = 0; client < cluster_.clients().size(); ++client) {
            verify(client);
        }
        if (power_fails_) {
            lose_power();
        }
        stop_clients();
        if (!verdict_.failed()) {
            cluster_.check_no_lease_left();
            cluster_.check_stores();
        }
    }

    void verify(size_t client) {
        auto up = [this, client] { return cluster_.files(client) != nullptr; };
        if (!cluster_.run_until(up, kHealthBound)) {
            no_progress("client " + std::to_string(client) + " did not come up");
            return;
        }
        shared_.log_book.write("world", LogLevel::kInfo, "*** verify");
        auto done = std::make_shared<bool>(false);
        SimNode& node = *cluster_.clients()[client];
        node.spawn(verify_flow(&load_, client, cluster_.files(client), &node.env(), done));
        if (!cluster_.run_until([done] { return *done; }, kVerifyBound)) {
            no_progress("reading everything back does not end");
        }
    }

    static Task<void> verify_flow(Workload* load,
                                  uint64_t client,
                                  client::FileClient* files,
                                  Env* env,
                                  std::shared_ptr<bool> done) {
        co_await load->verify(client, files, env);
        *done = true;
    }

    void stop_clients() {
        auto running = std::make_shared<size_t>(0);
        for (auto& node : cluster_.clients()) {
            ++*running;
            node->spawn(stop_flow(&node->process(), running));
        }
        if (!cluster_.run_until([running] { return *running == 0; }, kProgressBound)) {
            no_progress("clients do not stop");
        }
    }

    static Task<void> stop_flow(Process* process, std::shared_ptr<size_t> running) {
        co_await process->stop();
        --*running;
    }

    RunOptions options_;
    Verdict verdict_;
    SimShared shared_;
    Random random_;
    Workload load_;
    ClusterOptions shape_;
    NemesisOptions faults_;
    bool power_fails_;
    // What only the full mix draws.
    Random more_random_;
    Cluster cluster_;
    std::unique_ptr<Nemesis> nemesis_;
};

}  // namespace

RunResult run_simulation(const RunOptions& options) { return Simulation(options).run(); }

}  // namespace kdfs::sim
