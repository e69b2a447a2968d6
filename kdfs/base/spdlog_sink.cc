#include "kdfs/base/spdlog_sink.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <utility>

namespace kdfs {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
        case LogLevel::kDebug:
            return spdlog::level::debug;
        case LogLevel::kInfo:
            return spdlog::level::info;
        case LogLevel::kWarn:
            return spdlog::level::warn;
        case LogLevel::kError:
            return spdlog::level::err;
    }
    return spdlog::level::err;
}

class SpdlogSink : public LogSink {
public:
    SpdlogSink(LogLevel level, std::shared_ptr<spdlog::logger> logger)
        : level_(level), logger_(std::move(logger)) {}
    bool enabled(LogLevel level) const override { return level >= level_; }
    void write(LogLevel level, std::string_view line) override {
        logger_->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
    }

private:
    LogLevel level_;
    std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace

Result<std::unique_ptr<LogSink>> make_spdlog_sink(const LogOptions& options) {
    spdlog::sink_ptr sink;
    if (options.file.empty()) {
        sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    } else {
        // spdlog reports a failed open by an exception.
        try {
            sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
        } catch (const spdlog::spdlog_ex& failed) {
            return Error(Errc::kIo,
                         "log file " + options.file + " cannot be opened: " + failed.what());
        }
    }
    auto logger = std::make_shared<spdlog::logger>(options.program, std::move(sink));
    logger->set_level(spdlog::level::trace);
    // Each line at once: a killed daemon's last lines are the ones that are wanted.
    logger->flush_on(spdlog::level::trace);
    logger->set_formatter(
        std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%fZ %l %n: %v",
                                                    spdlog::pattern_time_type::utc));
    return std::unique_ptr<LogSink>(std::make_unique<SpdlogSink>(options.level, std::move(logger)));
}

Result<LogLevel> parse_log_level(const std::string& text) {
    if (text == "debug") {
        return LogLevel::kDebug;
    }
    if (text == "info") {
        return LogLevel::kInfo;
    }
    if (text == "warn") {
        return LogLevel::kWarn;
    }
    if (text == "error") {
        return LogLevel::kError;
    }
    return Error(Errc::kInvalidArgument,
                 "log level \"" + text + "\" is none of debug, info, warn, error");
}

}  // namespace kdfs
