#include "tests/sim/sim_env.h"

#include "kdfs/base/checksum.h"

#include <cstdio>
#include <utility>

namespace kdfs::sim {

bool FaultPlan::draw(std::string_view name) {
    auto at = faults_.find(name);
    if (at == faults_.end()) {
        // By its name, so that a new fault point shifts no other's draw.
        Random random(seed_ ^ checksum(name));
        constexpr uint32_t kPpm[] = {0, 0, 100, 1000, 10'000, 50'000};
        Fault fault;
        fault.ppm = kPpm[random.below(std::size(kPpm))];
        at = faults_.emplace(std::string(name), fault).first;
    }
    Fault& fault = at->second;
    ++fault.asked;
    if (!enabled_ || fault.ppm == 0 || !random_.chance(fault.ppm)) {
        return false;
    }
    ++fault.happened;
    return true;
}

void SimLogBook::write(std::string_view node, LogLevel level, std::string_view line) {
    constexpr const char* kLevels[] = {"debug", "info", "warn", "ERROR"};
    char prefix[96];
    double seconds =
        std::chrono::duration<double>(clock_.now().time_since_epoch()).count() - 3600.0;
    std::snprintf(prefix,
                  sizeof prefix,
                  "[%12.6f] %-9.*s %-5s ",
                  seconds,
                  static_cast<int>(node.size()),
                  node.data(),
                  kLevels[static_cast<size_t>(level)]);
    std::string text = prefix;
    text += line;
    bool alarming = !alarm_text_.empty() && line.find(alarm_text_) != std::string_view::npos;
    if (alarming && alarm_.empty()) {
        alarm_ = text;
    }
    if (verbose_) {
        std::fprintf(stderr, "%s\n", text.c_str());
    }
    lines_.push_back(std::move(text));
    if (lines_.size() > kLinesKept) {
        lines_.pop_front();
    }
}

namespace {

Duration draw_origin(Random& random) {
    return std::chrono::milliseconds(random.range(0, 1'000'000'000));
}

SimNetwork::Endpoint endpoint(OwnerId owner, MachineId machine, PeerIdentity identity) {
    SimNetwork::Endpoint out;
    out.owner = owner;
    out.machine = machine;
    out.identity = std::move(identity);
    return out;
}

}  // namespace

SimEnv::SimEnv(SimShared& shared, MachineId machine, PeerIdentity identity)
    : shared_(shared),
      scheduler_(shared.clock, shared.next_owner++, draw_origin(shared.random)),
      wall_clock_(shared.clock),
      transport_(shared.network, endpoint(scheduler_.owner(), machine, identity)),
      random_(shared.random.fork(identity.name)),
      log_(shared.log_book, identity.name) {}

void SimEnv::kill(bool silent) {
    scheduler_.kill();
    shared_.network.crash(scheduler_.owner(), silent);
}

}  // namespace kdfs::sim
