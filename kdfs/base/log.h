#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace kdfs {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// Where log lines go. A line is finished text without a newline; the sink adds time and node.
// Called on one thread unless the implementation says otherwise.
class LogSink {
public:
    virtual ~LogSink() = default;
    virtual bool enabled(LogLevel level) const = 0;
    virtual void write(LogLevel level, std::string_view line) = 0;
};

// Builds one key=value event and hands it to the sink when it ends:
//   LogEvent(log, LogLevel::kWarn, "target offline").with("target", id).with("cause",
//   error.to_string());
class LogEvent {
public:
    LogEvent(LogSink& sink, LogLevel level, std::string_view message);
    ~LogEvent();
    LogEvent(const LogEvent&) = delete;
    LogEvent& operator=(const LogEvent&) = delete;

    LogEvent& with(std::string_view key, std::string_view value);
    LogEvent& with(std::string_view key, const char* value) {
        return with(key, std::string_view(value));
    }
    template <class T>
    requires std::is_integral_v<T> LogEvent& with(std::string_view key, T value) {
        return with(key, std::string_view(std::to_string(value)));
    }
    template <class IdType>
    requires requires(IdType id) { id.value; }
    LogEvent& with(std::string_view key, IdType id) {
        return with(key, static_cast<uint64_t>(id.value));
    }

private:
    LogSink& sink_;
    LogLevel level_;
    bool enabled_;
    std::string line_;
};

}  // namespace kdfs
