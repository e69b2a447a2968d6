// Stored records of the metadata server: each alone, all together as a namespace to be checked, and
// as kdfs-inspect shows them.
//   parts: key, value, key, value, ...

#include "mds/fsck.h"
#include "mds/schema.h"
#include "mds/sessions.h"
#include "tests/fuzz/fuzz_input.h"
#include "tools/inspect.h"

namespace kdfs::mds {
namespace {

// What was decoded says the same bytes again, so nothing was read that is not there.
template <class T>
void same(const Result<T>& decoded, std::string_view value, const char* what) {
    if (decoded.ok()) {
        fuzz::require(encode(*decoded) == value, what);
    }
}

void decode_one(std::string_view key, std::string_view value) {
    (void)parse_named_key(key);
    same(decode_dentry(key, value), value, "a name has one form");
    same(decode_inode(key, value), value, "an inode has one form");
    same(decode_counters(key, value), value, "counters have one form");
    same(decode_dead_data(key, value), value, "dead data has one form");
    same(decode_trim(key, value), value, "a trim has one form");
    (void)decode_xattr(key, value);
    auto reply = decode_reply(key, value);
    if (reply.ok()) {
        fuzz::require(decode_reply(key, encode_reply(*reply)).ok(), "a reply can be kept again");
    }
    auto session = Sessions::decode(key, value);
    if (session.ok()) {
        fuzz::require(Sessions::encode(*session) == value, "a session has one form");
    }
    auto inode = decode_inode(key, value);
    if (inode.ok()) {
        pb::Attr attr;
        fill_attr(*inode, attr);
    }
}

}  // namespace
}  // namespace kdfs::mds

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    mds::NamespaceCheck check;
    while (!input.empty()) {
        std::string_view key = input.part();
        std::string_view value = input.part();
        mds::decode_one(key, value);
        check.add(key, value);
        (void)tools::meta_record_text(key, value);
    }
    mds::NamespaceReport report = check.finish();
    fuzz::require(report.problems.size() <= mds::NamespaceCheck::kProblemsMax,
                  "problems are bounded");
    return 0;
}
