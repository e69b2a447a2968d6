#pragma once

#include <optional>
#include <string>
#include <utility>

namespace kdfs::sim {

// How a run ended. The first thing that goes wrong counts.
class Verdict {
public:
    enum class Kind { kWrongData, kNoProgress };

    void fail(Kind kind, std::string what) {
        if (!failure_) {
            failure_.emplace(kind, std::move(what));
        }
    }
    void wrong(std::string what) { fail(Kind::kWrongData, std::move(what)); }
    bool failed() const { return failure_.has_value(); }
    Kind kind() const { return failure_->first; }
    const std::string& what() const { return failure_->second; }

private:
    std::optional<std::pair<Kind, std::string>> failure_;
};

}  // namespace kdfs::sim
