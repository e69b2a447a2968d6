#pragma once

#include "kdfs/proto/cluster.pb.h"
#include "tools/file_names.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

namespace kdfs::tools {

enum class ScrubState { kNone, kRunning, kDone, kStopped };
std::string_view scrub_state_name(ScrubState state);

// The manager's answer, judged. Pure.
struct ScrubView {
    ScrubState state = ScrubState::kNone;
    // Of all targets.
    pb::ScrubProgress total;
    // Chunks that are damaged and whole nowhere, by all targets, also from before the scrub.
    uint64_t lost = 0;
    // Copies that differ and stay so.
    uint64_t kept = 0;
    // The data ids of lost chunks, as far as they are named.
    std::set<uint64_t> lost_data;

    bool sound() const { return lost == 0 && kept == 0; }
};

ScrubView judge_scrub(const pb::StatusReply& reply);

using FileNames = std::map<uint64_t, FileName>;
std::string scrub_text(const ScrubView& view, const pb::StatusReply& reply, const FileNames& names);
nlohmann::json scrub_json(const ScrubView& view,
                          const pb::StatusReply& reply,
                          const FileNames& names);

}  // namespace kdfs::tools
