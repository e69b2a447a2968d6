#include "kdfs/rt/real_env.h"

#include <sys/random.h>

#include <cerrno>
#include <ctime>
#include <utility>

namespace kdfs {

WallTime SystemWallClock::now() const {
    timespec at{};
    clock_gettime(CLOCK_REALTIME, &at);
    return static_cast<WallTime>(at.tv_sec) * 1000000000 + at.tv_nsec;
}

Result<std::unique_ptr<RealEnv>> RealEnv::create(LogSink& log, TcpTransportOptions options) {
    uint64_t seed = 0;
    if (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
        return errno_error(errno, "getrandom: the program cannot start");
    }
    KDFS_TRY_ASSIGN(std::unique_ptr<Reactor> reactor, Reactor::create());
    std::unique_ptr<RealEnv> env(new RealEnv(log, std::move(reactor), seed));
    KDFS_TRY_ASSIGN(env->transport_, TcpTransport::create(env->reactor(), log, std::move(options)));
    return env;
}

}  // namespace kdfs
