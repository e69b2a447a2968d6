#pragma once

#include "kdfs/base/random.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/transport.h"
#include "tests/sim/sim_clock.h"

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

namespace kdfs::sim {

using MachineId = uint32_t;

// What the network does to its connections; probabilities in parts per million.
struct NetworkFaults {
    Duration delay_min = std::chrono::microseconds(30);
    Duration delay_max = std::chrono::microseconds(200);
    // A frame, and all behind it on its connection, comes this much later at most.
    uint32_t stall_ppm = 0;
    Duration stall_max = std::chrono::seconds(2);
    // Per frame: the connection breaks and both ends learn it soon.
    uint32_t break_ppm = 0;
    // Per frame: nothing passes any more and both ends learn it after kDeadTime at most.
    uint32_t hang_ppm = 0;
    // Per request: it arrives once more, up to duplicate_delay_max later, as a retry would over
    // another connection that was slow.
    uint32_t duplicate_ppm = 0;
    Duration duplicate_delay_max = std::chrono::seconds(3);
    uint32_t connect_fail_ppm = 0;
    // Each connection is slower than others by up to this, as long as it lives.
    Duration link_delay_max{};
    // Per frame: one of its bits arrives as the other.
    uint32_t flip_ppm = 0;
};

struct Link;
struct InFlight;

// The network between simulated machines: connections deliver frames in order or break; they break
// when a process dies, at random, or when a partition lasts. Frames pass as encoded headers. Used
// by the world; nodes see it through SimTransport.
class SimNetwork {
public:
    // A silent peer is given up after this much at most, as TCP's keepalive and user timeout do.
    static constexpr Duration kDeadTimeMin = std::chrono::seconds(2);
    static constexpr Duration kDeadTimeMax = std::chrono::seconds(6);

    struct Endpoint {
        OwnerId owner = 0;
        MachineId machine = 0;
        PeerIdentity identity;
    };
    struct Listening {
        Endpoint endpoint;
        uint64_t id = 0;
        std::shared_ptr<Transport::AcceptHandler> on_accept;
    };
    using Connected = std::shared_ptr<Completion<Result<std::shared_ptr<Connection>>>>;

    SimNetwork(SimClock& clock, Random random)
        : clock_(clock), random_(random), flip_random_(random.fork("flips")) {}
    NetworkFaults& faults() { return faults_; }
    // Sees every frame that is delivered, for verbose runs: sender, receiver, frame.
    using Tracer = Function<void(const std::string&, const std::string&, const Frame&)>;
    void set_tracer(Tracer tracer) { tracer_ = std::move(tracer); }

    // Cuts or heals both directions between two machines.
    void set_blocked(MachineId a, MachineId b, bool blocked);
    // Cuts what goes from one to the other only.
    void block_one_way(MachineId from, MachineId to) { blocked_.insert({from, to}); }
    void heal();
    bool blocked(MachineId from, MachineId to) const;
    // The process behind `owner` died. With `silent` its machine did too, so nobody is told.
    void crash(OwnerId owner, bool silent);
    // A machine without power answers nothing; one with power refuses what nobody listens for.
    void set_power(MachineId machine, bool on);

    // For SimTransport and its connections.
    Result<std::string> listen(std::string address, Listening listening);
    void stop_listening(const std::string& address, uint64_t id);
    void connect(Endpoint from, std::string address, ChannelKind kind, Connected connected);
    void send(const std::shared_ptr<Link>& link, int from, Frame frame);
    void close(const std::shared_ptr<Link>& link, int side, const Error& reason);
    void start(const std::shared_ptr<Link>& link, int side, Connection::Handlers handlers);
    void release(const std::shared_ptr<Link>& link, int side);
    uint64_t queued_bytes(const Link& link, int side);
    uint64_t next_id() { return next_id_++; }

private:
    Duration delay();
    Duration random_time(Duration min, Duration max);
    void schedule(const std::shared_ptr<Link>& link, int to, InFlight item, Duration extra);
    void arrive(const std::shared_ptr<Link>& link, int to, InFlight item);
    void deliver(const std::shared_ptr<Link>& link, int to, InFlight item);
    void break_link(const std::shared_ptr<Link>& link, Duration within, const std::string& why);
    void close_end(const std::shared_ptr<Link>& link, int side, const Error& reason);
    void accept(Endpoint from, std::string address, ChannelKind kind, Connected connected);
    void answer(OwnerId to,
                Connected connected,
                Duration after,
                Result<std::shared_ptr<Connection>> result);
    bool cut_off(MachineId a, MachineId b) const { return blocked(a, b) || blocked(b, a); }
    void watch_partition(const std::shared_ptr<Link>& link);
    void forget_if_closed(const Link& link);
    void drain(const std::shared_ptr<Link>& link, int to);
    void flip_bit(InFlight& item);
    void draw_faults(const std::shared_ptr<Link>& link, int to, const InFlight& item);

    SimClock& clock_;
    Random random_;
    // So that whether bits flip changes nothing else.
    Random flip_random_;
    NetworkFaults faults_;
    Tracer tracer_;
    // From, to.
    std::set<std::pair<MachineId, MachineId>> blocked_;
    std::set<MachineId> without_power_;
    std::map<std::string, Listening> listening_;
    // Where an address was last listened on.
    std::map<std::string, MachineId> machine_of_;
    std::map<uint64_t, std::shared_ptr<Link>> links_;
    uint64_t next_id_ = 1;
    uint64_t next_port_ = 20000;
};

// The Transport of one incarnation of a node.
class SimTransport final : public Transport {
public:
    SimTransport(SimNetwork& network, SimNetwork::Endpoint self)
        : network_(network), self_(std::move(self)) {}
    Task<Result<std::unique_ptr<Listener>>> listen(std::string address,
                                                   AcceptHandler on_accept) override;
    Task<Result<std::shared_ptr<Connection>>> connect(std::string address,
                                                      ChannelKind kind,
                                                      TimePoint deadline) override;

private:
    SimNetwork& network_;
    SimNetwork::Endpoint self_;
};

}  // namespace kdfs::sim
