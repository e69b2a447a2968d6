#pragma once

#include "kdfs/base/log.h"
#include "kdfs/base/result.h"

#include <memory>
#include <string>

namespace kdfs {

struct LogOptions {
    // Stands in every line.
    std::string program;
    LogLevel level = LogLevel::kInfo;
    // Empty: standard error.
    std::string file;
};

// Writes lines as `2026-11-22T16:00:00.123456Z warn kdfs-mds: <line>`, time in UTC, to standard
// error or to the end of a file. May be called from any thread. Each line is handed to the system
// at once.
Result<std::unique_ptr<LogSink>> make_spdlog_sink(const LogOptions& options);

// "debug", "info", "warn", "error"; kInvalidArgument otherwise.
Result<LogLevel> parse_log_level(const std::string& text);

// Drops everything: for tests.
class NullLogSink : public LogSink {
public:
    bool enabled(LogLevel level) const override {
        (void)level;
        return false;
    }
    void write(LogLevel level, std::string_view line) override {
        (void)level;
        (void)line;
    }
};

}  // namespace kdfs
