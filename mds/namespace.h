#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/proto/meta.pb.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kdfs::mds {

// What an operation does with an inode, as far as others' leases are concerned.
enum class Access : uint8_t {
    kRead,    // needs its current attributes: an exclusive holder must give them back first
    kChange,  // changes it: nobody else may keep anything cached of it
};

struct Touched {
    InodeId ino;
    Access access = Access::kRead;
};

// What the namespace needs to know besides the request and the store.
struct OpContext {
    SessionId session;
    WallTime now = 0;
    // Layout of a new file below a directory with this effective policy.
    std::function<Result<pb::Layout>(const pb::Policy&)> choose_layout;
    // True if another session than `session`, or `session` itself, has the inode open.
    std::function<bool(InodeId)> is_open;
};

// The namespace as functions from (store, request) to (reply, batch). No operation suspends or
// holds state between calls: a read that is not in memory ends it with kWouldBlock and names the
// missing keys in missing(); load them and call again. The caller serialises: apply() and the
// commit of its batch happen in one turn of the loop.
class Namespace {
public:
    struct Missing {
        std::string first;
        std::string beyond;  // empty: the single key `first`
        uint64_t entries_max = 1;
    };

    // `store` outlives this.
    explicit Namespace(KvStore& store);

    // Creates the root directory in an empty store. Nothing if it is there.
    Status format(WallTime now, const pb::Policy& policy, KvBatch& batch);

    // The inodes the request would touch, names resolved, for recalling leases before it runs. An
    // operation that will fail (no such name) touches what it got to.
    Result<std::vector<Touched>> footprint(const pb::MetaRequest& request);

    // Runs the request. Changes go to `batch` only; on an error the batch is as it was. The reply
    // has everything but grants.
    Result<pb::MetaReply> apply(const pb::MetaRequest& request,
                                const OpContext& context,
                                KvBatch& batch);

    // What the last call that ended with kWouldBlock lacked.
    const Missing& missing() const { return missing_; }

private:
    KvStore& store_;
    Missing missing_;
};

}  // namespace kdfs::mds
