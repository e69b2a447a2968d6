#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/meta.pb.h"
#include "mds/namespace.h"
#include "mds/schema.h"
#include "mds/view.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::mds {

// The operations of MetaRequest, one function each. All reads and checks of one come before its
// first change, so that an error or kWouldBlock leaves the view unchanged. Permissions are the
// kernel's business on the client.
using Reply = Result<pb::MetaReply>;

Reply op_lookup(View& view, const pb::Lookup& op);
Reply op_getattr(View& view, const pb::GetAttr& op);
Reply op_open(View& view, const pb::Open& op, const OpContext& context);
Reply op_readdir(View& view, const pb::ReadDir& op);
Reply op_create(View& view, const pb::Create& op, const OpContext& context);
Reply op_link(View& view, const pb::Link& op, const OpContext& context);
Reply op_remove(View& view, const pb::Remove& op, const OpContext& context);
Reply op_rename(View& view, const pb::Rename& op, const OpContext& context);
Reply op_setattr(View& view, const pb::SetAttr& op, const OpContext& context);
Reply op_flush(View& view, const pb::Flush& op, const OpContext& context);
Reply op_release(View& view, const pb::Release& op, const OpContext& context);
Reply op_getxattr(View& view, const pb::GetXattr& op);
Reply op_listxattr(View& view, const pb::ListXattr& op);
Reply op_setxattr(View& view, const pb::SetXattr& op, const OpContext& context);
Reply op_removexattr(View& view, const pb::RemoveXattr& op, const OpContext& context);
Reply op_get_policy(View& view, const pb::GetPolicy& op);
Reply op_statfs(View& view);

// Shared by several operations.

// kNameTooLong, or kInvalidArgument for "", ".", ".." and names with '/' or NUL.
Status check_name(std::string_view name);
// The directory's content changed: its times, and `entries` more names in it.
void change_directory(View& view, Inode& directory, int entries, WallTime now);
// Puts a name of `inode` into `parent`.
void put_dentry(View& view, InodeId parent, std::string_view name, const Inode& inode);

// The effective policy of a directory: per field the nearest ancestor that sets it.
Result<pb::Policy> effective_policy(View& view, const Inode& directory);

// What loading and checking of a new size leaves to do.
Status check_resize(View& view, const Inode& inode, uint64_t size);
// After check_resize(): the new size; what is cut off is queued or becomes the trim of the effects.
void resize(View& view, Inode& inode, uint64_t size, const OpContext& context);
// As a write or chown by an ordinary user does. `capability` is from capability_bytes(), which
// says what the inode's security.capability counts for, 0 if it has none.
Result<uint32_t> capability_bytes(View& view, const Inode& inode);
void kill_suid(View& view, Inode& inode, uint32_t capability);
// What an xattr counts for in Inode::xattr_bytes.
uint32_t xattr_bytes(std::string_view name, std::string_view value);
// Takes size and times of a holder.
Status take_dirty_state(View& view, Inode& inode, const DirtyState& dirty, WallTime now);

// What becomes of an inode that lost its last name.
enum class Fate : uint8_t {
    kOrphan,     // somebody has it open
    kCollect,    // it goes, and its data is queued
    kHasNoData,  // it goes; nothing was written to its chunks
};
// Takes one name from `inode` (a directory: the only one); the last one decides its fate.
// Needs load_counters(). True if it is an orphan now.
bool drop_name(View& view, Inode& inode, Fate fate, uint64_t end_bytes, WallTime now);
// Removes the inode and, if it may have some, queues its data, which ends at `end_bytes`. Needs
// load_counters().
void free_inode(View& view, Inode& inode, Fate fate, uint64_t end_bytes);
// True if the inode had no name and is freed now. The caller knows that nobody has it open.
Result<bool> free_orphan(View& view, Inode& inode, uint64_t end_bytes);
void queue_dead_data(View& view, const Inode& inode, uint64_t end_bytes);
// Where the inode's data ends for certain, kEndUnknown if a writer may not have said so.
uint64_t known_end(const Inode& inode, const OpContext& context);
// The same when it goes by a request that may tell what its exclusive holder wrote.
uint64_t known_end(const Inode& inode, const OpContext& context, std::optional<uint64_t> told);

// Attributes of policies by their xattr names: "kdfs.width", also below user. and trusted.
bool is_policy_name(std::string_view name);
Result<std::string> get_policy_xattr(View& view, const Inode& inode, std::string_view name);
// Sets one field, or with an empty value clears it.
Status set_policy_field(pb::Policy& policy, std::string_view name, std::string_view value);
// True if the policy sets the field itself.
bool has_policy_field(const pb::Policy& policy, std::string_view name);

}  // namespace kdfs::mds
