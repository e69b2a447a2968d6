#include "kdfs/base/log.h"

namespace kdfs {
namespace {

bool needs_quotes(std::string_view value) {
    return value.empty() || value.find_first_of(" \t\n\"=") != std::string_view::npos;
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
        line_ += c == '\n' ? ' ' : c;
    }
    line_ += '"';
    return *this;
}

}  // namespace kdfs
