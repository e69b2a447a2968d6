#include "kdfs/base/log.h"

namespace kdfs {
namespace {

// Includes line ends and what terminals obey: a value from a peer must not look like log lines.
bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool needs_quotes(std::string_view value) {
    if (value.empty()) {
        return true;
    }
    for (char c : value) {
        if (is_control(c) || c == ' ' || c == '"' || c == '=') {
            return true;
        }
    }
    return false;
}

}  // namespace

LogEvent::LogEvent(LogSink& sink, LogLevel level, std::string_view message)
    : sink_(sink), level_(level), enabled_(sink.enabled(level)) {
    if (enabled_) {
        line_ = message;
    }
}

LogEvent::~LogEvent() {
    if (enabled_) {
        sink_.write(level_, line_);
    }
}

LogEvent& LogEvent::with(std::string_view key, std::string_view value) {
    if (!enabled_) {
        return *this;
    }
    line_ += ' ';
    line_ += key;
    line_ += '=';
    if (!needs_quotes(value)) {
        line_ += value;
        return *this;
    }
    line_ += '"';
    for (char c : value) {
        if (c == '"' || c == '\\') {
            line_ += '\\';
        }
        line_ += is_control(c) ? ' ' : c;
    }
    line_ += '"';
    return *this;
}

}  // namespace kdfs
