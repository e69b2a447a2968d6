#include "tests/sim/sim_network.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <deque>
#include <utility>

namespace kdfs::sim {

// What travels one way: a frame as its sender encoded it, or the news that the sender closed.
struct InFlight {
    bool close = false;
    std::string reason;
    FrameBytes header{};
    Buffer body;
    BufferChain payload;
    uint64_t bytes = 0;
};

struct LinkEnd {
    SimNetwork::Endpoint endpoint;
    Connection::Handlers handlers;
    bool started = false;
    // close() was called here: on_close is on its way.
    bool closing = false;
    // Nothing is delivered any more.
    bool closed = false;
    // The Connection object is gone.
    bool released = false;
    std::optional<Error> untold_reason;
    // Nothing arrives here before what was sent earlier.
    TimePoint last_arrival;
    // Arrived, but held back by a partition, or because start() was not called yet.
    std::deque<InFlight> held;
    // What this end sent and the network has not taken yet.
    std::deque<std::pair<TimePoint, uint64_t>> leaving;
    TimePoint busy_until;
    uint64_t queued_bytes = 0;
};

struct Link {
    uint64_t id = 0;
    LinkEnd ends[2];
    Duration slowness{};
    bool hung = false;
    bool watching_partition = false;
};

namespace {

// Sent at about 1 GB/s.
constexpr uint64_t kBytesPerMicrosecond = 1000;
constexpr Duration kNoticeTime = std::chrono::milliseconds(20);

class SimConnection final : public Connection {
public:
    SimConnection(SimNetwork& network, std::shared_ptr<Link> link, int side)
        : network_(network), link_(std::move(link)), side_(side) {}
    ~SimConnection() override { network_.release(link_, side_); }
    void start(Handlers handlers) override { network_.start(link_, side_, std::move(handlers)); }
    void send(Frame frame) override { network_.send(link_, side_, std::move(frame)); }
    uint64_t queued_bytes() const override { return network_.queued_bytes(*link_, side_); }
    void close(Error reason) override { network_.close(link_, side_, reason); }
    const PeerIdentity& peer() const override { return link_->ends[1 - side_].endpoint.identity; }

private:
    SimNetwork& network_;
    std::shared_ptr<Link> link_;
    int side_;
};

class SimListener final : public Listener {
public:
    SimListener(SimNetwork& network, std::string address, uint64_t id)
        : network_(network), address_(std::move(address)), id_(id) {}
    ~SimListener() override { network_.stop_listening(address_, id_); }
    std::string address() const override { return address_; }

private:
    SimNetwork& network_;
    std::string address_;
    uint64_t id_;
};

std::pair<MachineId, MachineId> pair_of(MachineId a, MachineId b) {
    return {std::min(a, b), std::max(a, b)};
}

Error unreachable(const std::string& what) { return {Errc::kUnreachable, what}; }

}  // namespace

Duration SimNetwork::random_time(Duration min, Duration max) {
    auto range = static_cast<uint64_t>((max - min).count());
    return min + Duration(static_cast<int64_t>(random_.range(0, range)));
}

Duration SimNetwork::delay() { return random_time(faults_.delay_min, faults_.delay_max); }

void SimNetwork::set_power(MachineId machine, bool on) {
    if (on) {
        without_power_.erase(machine);
    } else {
        without_power_.insert(machine);
    }
}

bool SimNetwork::blocked(MachineId from, MachineId to) const {
    return from != to && blocked_.contains(std::pair(from, to));
}

void SimNetwork::set_blocked(MachineId a, MachineId b, bool blocked) {
    if (blocked) {
        blocked_.insert({a, b});
        blocked_.insert({b, a});
        return;
    }
    blocked_.erase({a, b});
    blocked_.erase({b, a});
    for (auto& [id, link] : links_) {
        for (int side : {0, 1}) {
            if (!link->ends[side].held.empty()) {
                clock_.add(clock_.now() + delay(),
                           link->ends[side].endpoint.owner,
                           [this, link = link, side] { drain(link, side); });
            }
        }
    }
}

void SimNetwork::heal() {
    std::set<std::pair<MachineId, MachineId>> blocked;
    for (const auto& [from, to] : blocked_) {
        blocked.insert(pair_of(from, to));
    }
    for (const auto& [a, b] : blocked) {
        set_blocked(a, b, false);
    }
}

void SimNetwork::crash(OwnerId owner, bool silent) {
    std::erase_if(listening_,
                  [owner](const auto& one) { return one.second.endpoint.owner == owner; });
    auto links = links_;
    for (auto& [id, link] : links) {
        for (int side : {0, 1}) {
            LinkEnd& end = link->ends[side];
            LinkEnd& peer = link->ends[1 - side];
            if (end.endpoint.owner != owner || end.closed) {
                continue;
            }
            end.closed = true;
            end.held.clear();
            end.handlers = {};
            if (silent) {
                Duration when = random_time(kDeadTimeMin, kDeadTimeMax);
                clock_.add(clock_.now() + when, peer.endpoint.owner, [this, link = link, side] {
                    close_end(link, 1 - side, unreachable("the peer went silent"));
                });
            } else {
                InFlight item;
                item.close = true;
                item.reason = "the peer's process died";
                schedule(link, 1 - side, std::move(item), {});
            }
        }
    }
}

Result<std::string> SimNetwork::listen(std::string address, Listening listening) {
    if (address.ends_with(":0")) {
        address.resize(address.size() - 1);
        address += std::to_string(next_port_++);
    }
    machine_of_[address] = listening.endpoint.machine;
    auto [at, added] = listening_.emplace(address, std::move(listening));
    if (!added) {
        return Error(Errc::kBusy, address + ": somebody listens there already; choose another");
    }
    return address;
}

void SimNetwork::stop_listening(const std::string& address, uint64_t id) {
    auto found = listening_.find(address);
    if (found != listening_.end() && found->second.id == id) {
        listening_.erase(found);
    }
}

void SimNetwork::connect(Endpoint from,
                         std::string address,
                         ChannelKind kind,
                         Connected connected) {
    Function<void()> arrives = [this,
                                from = std::move(from),
                                address = std::move(address),
                                kind,
                                connected = std::move(connected)]() mutable {
        accept(std::move(from), std::move(address), kind, std::move(connected));
    };
    clock_.add(clock_.now() + delay(), 0, std::move(arrives));
}

void SimNetwork::answer(OwnerId to,
                        Connected connected,
                        Duration after,
                        Result<std::shared_ptr<Connection>> result) {
    Function<void()> arrives = [connected = std::move(connected),
                                result = std::move(result)]() mutable {
        connected->complete(std::move(result));
    };
    clock_.add(clock_.now() + after, to, std::move(arrives));
}

void SimNetwork::accept(Endpoint from, std::string address, ChannelKind kind, Connected connected) {
    MachineId machine = machine_of_.contains(address) ? machine_of_[address] : from.machine;
    if (cut_off(from.machine, machine) || without_power_.contains(machine)) {
        return;  // no answer ever comes
    }
    auto found = listening_.find(address);
    bool local_only = address.starts_with("unix:") && machine != from.machine;
    if (found == listening_.end() || local_only || random_.chance(faults_.connect_fail_ppm)) {
        answer(from.owner,
               std::move(connected),
               delay(),
               unreachable("connect to " + address + ": connection refused"));
        return;
    }
    auto link = std::make_shared<Link>();
    link->id = next_id();
    if (faults_.link_delay_max.count() != 0) {
        link->slowness = random_time({}, faults_.link_delay_max);
    }
    link->ends[0].endpoint = from;
    link->ends[1].endpoint = found->second.endpoint;
    links_.emplace(link->id, link);
    std::shared_ptr<Connection> ours = std::make_shared<SimConnection>(*this, link, 0);
    std::shared_ptr<Connection> theirs = std::make_shared<SimConnection>(*this, link, 1);
    Function<void()> accepted =
        [this, address, kind, id = found->second.id, theirs = std::move(theirs)] {
            auto still = listening_.find(address);
            if (still != listening_.end() && still->second.id == id) {
                auto on_accept = still->second.on_accept;
                (*on_accept)(theirs, kind);
            }
        };
    clock_.add(clock_.now(), found->second.endpoint.owner, std::move(accepted));
    answer(from.owner, std::move(connected), delay(), std::move(ours));
}

void SimNetwork::start(const std::shared_ptr<Link>& link, int side, Connection::Handlers handlers) {
    LinkEnd& end = link->ends[side];
    KDFS_CHECK(!end.started);
    end.started = true;
    if (!end.closed) {
        end.handlers = std::move(handlers);
        if (!end.held.empty()) {
            clock_.add(clock_.now(), end.endpoint.owner, [this, link, side] { drain(link, side); });
        }
        return;
    }
    if (end.untold_reason && handlers.on_close) {
        Function<void()> tell = [handler = std::move(handlers.on_close),
                                 reason = *end.untold_reason]() mutable {
            handler(std::move(reason));
        };
        clock_.add(clock_.now(), end.endpoint.owner, std::move(tell));
    }
}

void SimNetwork::send(const std::shared_ptr<Link>& link, int from, Frame frame) {
    LinkEnd& end = link->ends[from];
    if (end.closed || end.closing) {
        return;
    }
    InFlight item;
    item.header = encode_header(frame);
    item.bytes = FrameHeader::kBytes + frame.body.size() + frame.payload.size();
    item.body = std::move(frame.body);
    item.payload = std::move(frame.payload);
    TimePoint now = clock_.now();
    auto nanoseconds = static_cast<int64_t>(item.bytes * 1000 / kBytesPerMicrosecond);
    end.busy_until = std::max(now, end.busy_until) + Duration(nanoseconds);
    end.leaving.emplace_back(end.busy_until, item.bytes);
    end.queued_bytes += item.bytes;
    bool far = end.endpoint.machine != link->ends[1 - from].endpoint.machine;
    Duration extra = end.busy_until - now;
    if (far) {
        draw_faults(link, 1 - from, item);
        if (random_.chance(faults_.stall_ppm)) {
            extra += random_time({}, faults_.stall_max);
        }
    }
    schedule(link, 1 - from, std::move(item), extra);
}

void SimNetwork::draw_faults(const std::shared_ptr<Link>& link, int to, const InFlight& item) {
    if (random_.chance(faults_.break_ppm)) {
        break_link(link, kNoticeTime, "connection reset");
    }
    if (random_.chance(faults_.hang_ppm) && !link->hung) {
        link->hung = true;
        break_link(link, kDeadTimeMax, "connection timed out");
    }
    if (random_.chance(faults_.duplicate_ppm)) {
        auto header = decode_header(item.header);
        KDFS_CHECK(header.ok());
        if (!header->is_response()) {
            Function<void()> again = [this, link, to, item] { deliver(link, to, item); };
            clock_.add(clock_.now() + random_time({}, faults_.duplicate_delay_max),
                       link->ends[to].endpoint.owner,
                       std::move(again));
        }
    }
}

void SimNetwork::schedule(const std::shared_ptr<Link>& link,
                          int to,
                          InFlight item,
                          Duration extra) {
    LinkEnd& end = link->ends[to];
    if (faults_.link_delay_max.count() != 0) {
        extra += link->slowness;
    }
    end.last_arrival = std::max(end.last_arrival, clock_.now() + delay() + extra);
    Function<void()> arrives = [this, link, to, item = std::move(item)]() mutable {
        arrive(link, to, std::move(item));
    };
    clock_.add(end.last_arrival, end.endpoint.owner, std::move(arrives));
}

void SimNetwork::arrive(const std::shared_ptr<Link>& link, int to, InFlight item) {
    LinkEnd& end = link->ends[to];
    if (end.closed || link->hung) {
        return;
    }
    MachineId here = end.endpoint.machine;
    MachineId there = link->ends[1 - to].endpoint.machine;
    bool cut = blocked(there, here);
    // Also if only the acknowledgements do not pass.
    if (cut_off(here, there)) {
        watch_partition(link);
    }
    if (cut || !end.started || !end.held.empty()) {
        end.held.push_back(std::move(item));
        return;
    }
    deliver(link, to, std::move(item));
}

void SimNetwork::drain(const std::shared_ptr<Link>& link, int to) {
    LinkEnd& end = link->ends[to];
    bool cut = blocked(link->ends[1 - to].endpoint.machine, end.endpoint.machine);
    while (!cut && !end.held.empty() && end.started && !end.closed) {
        InFlight item = std::move(end.held.front());
        end.held.pop_front();
        deliver(link, to, std::move(item));
    }
}

void SimNetwork::deliver(const std::shared_ptr<Link>& link, int to, InFlight item) {
    LinkEnd& end = link->ends[to];
    if (end.closed || end.closing || !end.started) {
        return;
    }
    if (item.close) {
        close_end(link, to, unreachable(item.reason));
        return;
    }
    bool far = end.endpoint.machine != link->ends[1 - to].endpoint.machine;
    if (far && faults_.flip_ppm != 0 && flip_random_.chance(faults_.flip_ppm)) {
        flip_bit(item);
    }
    // As FrameReader does.
    auto header = decode_header(item.header);
    Status sound = header.ok() ? check_plain_seal(item.header) : header.error();
    if (sound.ok()) {
        sound = check_body(*header, item.body);
    }
    if (!sound.ok()) {
        KDFS_CHECK(faults_.flip_ppm != 0);
        close(link, to, sound.error());
        return;
    }
    clock_.trace(header->request_id ^ (uint64_t{header->type} << 48) ^ header->body_checksum);
    Frame frame;
    frame.header = *header;
    frame.body = std::move(item.body);
    frame.payload = std::move(item.payload);
    if (tracer_) {
        tracer_(link->ends[1 - to].endpoint.identity.name, end.endpoint.identity.name, frame);
    }
    if (end.handlers.on_frame) {
        end.handlers.on_frame(std::move(frame));
    }
}

void SimNetwork::flip_bit(InFlight& item) {
    uint64_t at = flip_random_.below(item.bytes);
    auto mask = static_cast<std::byte>(1U << flip_random_.below(8));
    if (at < FrameHeader::kBytes) {
        item.header[at] ^= mask;
        return;
    }
    // What the sender keeps stays as it is.
    at -= FrameHeader::kBytes;
    bool in_body = at < item.body.size();
    Buffer whole = in_body ? item.body : item.payload.flatten();
    Buffer damaged = Buffer::copy_of(whole.span());
    damaged.mutable_data()[in_body ? at : at - item.body.size()] ^= mask;
    if (in_body) {
        item.body = std::move(damaged);
    } else {
        item.payload = BufferChain(std::move(damaged));
    }
}

void SimNetwork::break_link(const std::shared_ptr<Link>& link,
                            Duration within,
                            const std::string& why) {
    for (int side : {0, 1}) {
        clock_.add(clock_.now() + random_time({}, within),
                   link->ends[side].endpoint.owner,
                   [this, link, side, why] { close_end(link, side, unreachable(why)); });
    }
}

void SimNetwork::watch_partition(const std::shared_ptr<Link>& link) {
    if (link->watching_partition) {
        return;
    }
    link->watching_partition = true;
    Function<void()> look = [this, link] {
        link->watching_partition = false;
        if (cut_off(link->ends[0].endpoint.machine, link->ends[1].endpoint.machine)) {
            break_link(link, kNoticeTime, "connection timed out");
        }
    };
    clock_.add(clock_.now() + random_time(kDeadTimeMin, kDeadTimeMax), 0, std::move(look));
}

void SimNetwork::close(const std::shared_ptr<Link>& link, int side, const Error& reason) {
    LinkEnd& end = link->ends[side];
    if (end.closed || end.closing) {
        return;
    }
    end.closing = true;
    InFlight item;
    item.close = true;
    item.reason = "closed by the peer";
    schedule(link, 1 - side, std::move(item), {});
    clock_.add(clock_.now(), end.endpoint.owner, [this, link, side, reason] {
        close_end(link, side, reason);
    });
}

void SimNetwork::close_end(const std::shared_ptr<Link>& link, int side, const Error& reason) {
    LinkEnd& end = link->ends[side];
    if (end.closed) {
        return;
    }
    end.closed = true;
    end.held.clear();
    Connection::Handlers handlers = std::move(end.handlers);
    end.handlers = {};
    if (!end.started) {
        end.untold_reason = reason;
    } else if (handlers.on_close) {
        handlers.on_close(reason);
    }
    forget_if_closed(*link);
}

void SimNetwork::release(const std::shared_ptr<Link>& link, int side) {
    LinkEnd& end = link->ends[side];
    end.released = true;
    // The handlers may be running: they go in a turn of their own.
    auto handlers = std::make_shared<Connection::Handlers>(std::move(end.handlers));
    end.handlers = {};
    if (!end.closed) {
        clock_.add(clock_.now(), end.endpoint.owner, [handlers] {});
        close(link, side, Error(Errc::kCancelled, "connection dropped"));
    }
    forget_if_closed(*link);
}

void SimNetwork::forget_if_closed(const Link& link) {
    const LinkEnd& a = link.ends[0];
    const LinkEnd& b = link.ends[1];
    if (a.closed && b.closed) {
        links_.erase(link.id);
    }
}

uint64_t SimNetwork::queued_bytes(const Link& link, int side) {
    auto& end = const_cast<LinkEnd&>(link.ends[side]);
    while (!end.leaving.empty() && end.leaving.front().first <= clock_.now()) {
        end.queued_bytes -= end.leaving.front().second;
        end.leaving.pop_front();
    }
    return end.queued_bytes;
}

Task<Result<std::unique_ptr<Listener>>> SimTransport::listen(std::string address,
                                                             AcceptHandler on_accept) {
    SimNetwork::Listening listening;
    listening.endpoint = self_;
    listening.id = network_.next_id();
    uint64_t id = listening.id;
    listening.on_accept = std::make_shared<AcceptHandler>(std::move(on_accept));
    auto real = network_.listen(std::move(address), std::move(listening));
    if (!real.ok()) {
        co_return std::move(real).error();
    }
    std::unique_ptr<Listener> listener = std::make_unique<SimListener>(network_, *real, id);
    co_return listener;
}

Task<Result<std::shared_ptr<Connection>>> SimTransport::connect(std::string address,
                                                                ChannelKind kind,
                                                                TimePoint deadline) {
    auto connected = std::make_shared<Completion<Result<std::shared_ptr<Connection>>>>();
    network_.connect(self_, address, kind, connected);
    auto result = co_await connected->wait_until(deadline);
    if (!result) {
        co_return Error(Errc::kTimeout, "connect to " + address + ": no answer in time");
    }
    co_return std::move(*result);
}

}  // namespace kdfs::sim
