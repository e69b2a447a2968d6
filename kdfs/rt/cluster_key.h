#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/transport.h"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace kdfs {

// The secret every member of a cluster holds.
using ClusterKey = std::array<std::byte, 32>;

// Reads the key from `path`: 64 hexadecimal digits. kNotFound, kMalformed; kNotPermitted if others
// than the owner may read the file.
Result<ClusterKey> load_cluster_key(const std::string& path);
// Makes a new key from the system's random numbers and writes it to `path`, mode 0600, durably.
// kExists if there is a file already.
Result<ClusterKey> create_cluster_key(const std::string& path);

// "cluster:role:node:name", the identity in the TLS handshake. The cluster id holds no colon.
std::string encode_identity(std::string_view cluster_id, const PeerIdentity& peer);
struct ClusterPeer {
    std::string cluster_id;
    PeerIdentity peer;
};
// kMalformed for what encode_identity() does not give.
Result<ClusterPeer> decode_identity(std::string_view text);
inline constexpr size_t kIdentityBytesMax = 250;

// The key of one member for the TLS handshake, derived by HKDF-SHA256 from the cluster key and
// bound to its whole identity.
Result<ClusterKey> derive_member_key(const ClusterKey& key, std::string_view identity);

}  // namespace kdfs
