#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/rt/frame.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/task.h"

#include <memory>
#include <string>

namespace kdfs {

enum class PeerRole : uint8_t { kNone = 0, kMds = 1, kStorage = 2, kClient = 3, kTool = 4 };

// Who the other end is. Proven by the cluster key when the transport authenticates.
struct PeerIdentity {
    PeerRole role = PeerRole::kNone;
    // Storage daemons: their node id. Others: 0.
    NodeId node;
    // A name for people: "storage n2", "client host7:4711".
    std::string name;
};

// What a connection is for: control frames travel encrypted; data connections carry bulk payload,
// clear under a MAC or encrypted, as the cluster is configured.
enum class ChannelKind : uint8_t { kControl = 1, kData = 2 };

// One ordered, reliable connection to a peer that belongs to this cluster. Frames arrive whole, in
// the order sent, or not at all after a close. Used on its loop only. A connection may be dropped
// by its last owner at any time: that closes it.
class Connection {
public:
    // Called on the loop. After on_close nothing follows. Neither may destroy the connection inside
    // the call.
    struct Handlers {
        Function<void(Frame)> on_frame;
        Function<void(Error)> on_close;
    };
    virtual ~Connection() = default;
    // To be called once, in the same turn in which the connection was handed over; frames are held
    // back until then.
    virtual void start(Handlers handlers) = 0;
    // Queues the frame. What was queued is written in order; if the connection breaks, on_close
    // tells.
    virtual void send(Frame frame) = 0;
    // Bytes queued and not yet handed to the network: what senders look at to hold back.
    virtual uint64_t queued_bytes() const = 0;
    // Closes after what is queued was written, or at once if the peer does not take it. on_close
    // follows.
    virtual void close(Error reason) = 0;
    virtual const PeerIdentity& peer() const = 0;
};

// Stops listening when it goes; accepted connections stay.
class Listener {
public:
    virtual ~Listener() = default;
    // Where it really listens, with the port the system chose if 0 was asked for.
    virtual std::string address() const = 0;
};

// Connections of one node. Addresses are "host:port" or "unix:/path". Never corrupts silently; may
// delay, reorder across connections and drop connections.
class Transport {
public:
    using AcceptHandler = Function<void(std::shared_ptr<Connection>, ChannelKind)>;
    virtual ~Transport() = default;
    // kBusy if the address is taken (the message names it).
    virtual Task<Result<std::unique_ptr<Listener>>> listen(std::string address,
                                                           AcceptHandler on_accept) = 0;
    // Connects and authenticates. kUnreachable, kTimeout, kUnauthenticated, kWrongVersion,
    // kWrongCluster.
    virtual Task<Result<std::shared_ptr<Connection>>> connect(std::string address,
                                                              ChannelKind kind,
                                                              TimePoint deadline) = 0;
};

}  // namespace kdfs
