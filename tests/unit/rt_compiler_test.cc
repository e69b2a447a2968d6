// The coroutine constructs this code relies on, each run so that the sanitizers see what g++ 12
// makes of it. What it gets wrong (docs/decisions.md) is refused by tools/tidy.py instead.

#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

std::string text(const char* s) {
    return std::string("a string too long for its own pocket: ") + s;
}

// Completes in a later turn.
Task<std::string> later(Scheduler& scheduler, std::string value) {
    co_await yield_turn(scheduler);
    co_return value;
}
Task<std::string> at_once(std::string value) { co_return value; }
Task<bool> yes(Scheduler& scheduler) {
    co_await yield_turn(scheduler);
    co_return true;
}
Task<Result<std::string>> checked(Scheduler& scheduler, bool good) {
    co_await yield_turn(scheduler);
    if (!good) {
        co_return Error(Errc::kNotFound, text("missing"));
    }
    co_return text("found");
}
std::string join(std::string a, std::string b) { return std::move(a) + "|" + std::move(b); }

struct Holder {
    std::string name;
    std::shared_ptr<int> counted;
    Holder(std::string n, std::shared_ptr<int> c) : name(std::move(n)), counted(std::move(c)) {}
};
Task<std::string> take_holder(Scheduler& scheduler, Holder holder) {
    co_await yield_turn(scheduler);
    co_return holder.name;
}
Task<int> call(Scheduler& scheduler, Function<int(int)> function) {
    co_await yield_turn(scheduler);
    co_return function(2);
}
Task<std::pair<std::string, int>> pair_of(Scheduler& scheduler) {
    co_await yield_turn(scheduler);
    co_return std::pair<std::string, int>(text("first"), 2);
}
Task<std::vector<std::string>> list_of(Scheduler& scheduler) {
    std::vector<std::string> out;
    out.push_back(co_await later(scheduler, text("1")));
    out.push_back(co_await at_once(text("2")));
    co_return out;
}
Task<std::unique_ptr<std::string>> boxed(Scheduler& scheduler) {
    co_await yield_turn(scheduler);
    co_return std::make_unique<std::string>(text("box"));
}

class CompilerTest : public testing::Test {
protected:
    CompilerTest() {
        auto created = Reactor::create();
        KDFS_CHECK(created.ok());
        reactor_ = std::move(*created);
    }
    template <class T>
    T run(Task<T> task) {
        return run_task(*reactor_, std::move(task));
    }
    std::unique_ptr<Reactor> reactor_;
};

struct Probe {
    static Task<std::string> awaits_in_arguments(Scheduler& s) {
        co_return join(co_await later(s, text("a")), co_await at_once(text("b")));
    }
    static Task<int> logical_operators(Scheduler& s) {
        int count = 0;
        if (co_await yes(s) && co_await yes(s)) {
            ++count;
        }
        if (count == 0 || co_await yes(s)) {
            ++count;
        }
        co_return count;
    }
    static Task<int> named_lambda(Scheduler& s, std::shared_ptr<int> counted) {
        std::string captured = text("captured");
        Function<int(int)> function = [captured, counted](int n) {
            return static_cast<int>(captured.size()) * 0 + n + *counted;
        };
        co_return co_await call(s, std::move(function));
    }
    static Task<std::string> constructor_temporary(Scheduler& s, std::shared_ptr<int> counted) {
        co_return co_await take_holder(s, Holder(text("holder"), counted));
    }
    static Task<std::string> structured_binding(Scheduler& s) {
        auto [name, number] = co_await pair_of(s);
        co_return name + std::to_string(number);
    }
    static Task<size_t> range_for_over_awaited(Scheduler& s) {
        size_t total = 0;
        for (const std::string& each : co_await list_of(s)) {
            total += each.size();
            co_await yield_turn(s);
        }
        co_return total;
    }
    static Task<std::string> move_only_value(Scheduler& s) {
        std::unique_ptr<std::string> box = co_await boxed(s);
        co_return std::move(*box);
    }
    static Task<Result<std::string>> try_macros(Scheduler& s, bool good) {
        KDFS_CO_TRY_ASSIGN(std::string first, co_await checked(s, true));
        KDFS_CO_TRY(co_await checked(s, good));
        KDFS_CO_TRY_ASSIGN(std::string second, co_await checked(s, true));
        co_return join(first, second);
    }
    static Task<int> switch_on_awaited(Scheduler& s) {
        // Named first: a switch directly on an awaited value never comes back.
        std::string value = co_await later(s, text("x"));
        switch (value.size() % 2) {
            case 0:
                co_return 1;
            default:
                co_return 2;
        }
    }
    static Task<uint64_t> sum(uint64_t n) { co_return n; }
    static Task<uint64_t> million_ready_children() {
        uint64_t total = 0;
        for (uint64_t i = 0; i < 1000000; ++i) {
            total += co_await sum(i);
        }
        co_return total;
    }
    static Task<uint64_t> deep(Scheduler& s, uint64_t depth) {
        if (depth == 0) {
            co_await yield_turn(s);
            co_return 0;
        }
        co_return 1 + co_await deep(s, depth - 1);
    }
};

TEST_F(CompilerTest, AwaitsInArguments) {
    EXPECT_EQ(run(Probe::awaits_in_arguments(*reactor_)), join(text("a"), text("b")));
}
TEST_F(CompilerTest, LogicalOperators) { EXPECT_EQ(run(Probe::logical_operators(*reactor_)), 2); }
TEST_F(CompilerTest, NamedLambdaIsFreedOnce) {
    auto counted = std::make_shared<int>(40);
    EXPECT_EQ(run(Probe::named_lambda(*reactor_, counted)), 42);
    EXPECT_EQ(counted.use_count(), 1);
}
TEST_F(CompilerTest, TemporaryOfATypeWithConstructorIsFreedOnce) {
    auto counted = std::make_shared<int>(1);
    EXPECT_EQ(run(Probe::constructor_temporary(*reactor_, counted)), text("holder"));
    EXPECT_EQ(counted.use_count(), 1);
}
TEST_F(CompilerTest, StructuredBinding) {
    EXPECT_EQ(run(Probe::structured_binding(*reactor_)), text("first") + "2");
}
TEST_F(CompilerTest, RangeForOverAnAwaitedValue) {
    EXPECT_EQ(run(Probe::range_for_over_awaited(*reactor_)), 2 * text("1").size());
}
TEST_F(CompilerTest, MoveOnlyValue) {
    EXPECT_EQ(run(Probe::move_only_value(*reactor_)), text("box"));
}
TEST_F(CompilerTest, TryMacros) {
    EXPECT_EQ(*run(Probe::try_macros(*reactor_, true)), join(text("found"), text("found")));
    EXPECT_EQ(run(Probe::try_macros(*reactor_, false)).error().code, Errc::kNotFound);
}
TEST_F(CompilerTest, SwitchOnAnAwaitedValue) {
    EXPECT_EQ(run(Probe::switch_on_awaited(*reactor_)), text("x").size() % 2 == 0 ? 1 : 2);
}
TEST_F(CompilerTest, MillionReadyChildrenDoNotGrowTheStack) {
    EXPECT_EQ(run(Probe::million_ready_children()), 499999500000U);
}
TEST_F(CompilerTest, DeepChainThatSuspendsUnwinds) {
    EXPECT_EQ(run(Probe::deep(*reactor_, 1000)), 1000U);
}

}  // namespace
}  // namespace kdfs
