#pragma once

#include "kdfs/base/log.h"
#include "kdfs/base/random.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/reactor.h"
#include "kdfs/rt/tcp_transport.h"

#include <memory>

namespace kdfs {

class SystemWallClock : public WallClock {
public:
    WallTime now() const override;
};

// The Env of a real program. The log outlives it. Built in main() and in tests, nowhere else.
class RealEnv : public Env {
public:
    // Errors of Reactor::create() and TcpTransport::create(). An empty options.cluster_id becomes a
    // name derived from the key, the same for every member.
    static Result<std::unique_ptr<RealEnv>> create(LogSink& log, TcpTransportOptions options);

    Scheduler& scheduler() override { return *reactor_; }
    WallClock& wall_clock() override { return wall_clock_; }
    Transport& transport() override { return *transport_; }
    Random& random() override { return random_; }
    LogSink& log() override { return log_; }
    // For what only the real world has: signals, descriptors, disks, run().
    Reactor& reactor() { return *reactor_; }

private:
    RealEnv(LogSink& log, std::unique_ptr<Reactor> reactor, uint64_t seed)
        : log_(log), reactor_(std::move(reactor)), random_(seed) {}

    LogSink& log_;
    std::unique_ptr<Reactor> reactor_;
    SystemWallClock wall_clock_;
    Random random_;
    std::unique_ptr<TcpTransport> transport_;
};

}  // namespace kdfs
