"""The snippets of tools/tidy.py --selftest: what each rule must find, and what none may."""


def bad(file_lines_max, function_lines_max):
    """(rule, path, text): exactly this rule must fire."""
    awaits = [
        "co_await f([&buffer] { use(buffer); });",
        "co_await f(Options{.a = 1});",
        "co_await f({.a = 1});",
        "auto x = ready ? co_await a() : b;",
        "Thing x{co_await a()};",
        "KDFS_CO_TRY_ASSIGN(auto x, co_await f(Key{}));",
        "use(Key{1}, co_await a());",
        "if (co_await f(Key{1})) {\n run();\n }",
        "co_return co_await f([] { return 1; });",
        "co_await f([x = std::move(y)]() -> int { return x; }, 1);",
        "co_await f(std::vector<int>{1, 2});",
    ]
    for statement in awaits:
        yield "await-statement", "mds/a.cc", "Task<void> run() {\n    " + statement + "\n}\n"

    for head in ("co_await kind()", "(co_await kind()).value", "use(co_await kind())"):
        yield "await-switch", "mds/a.cc", (
            "Task<void> run() {\n    switch (" + head + ") {\n        case Kind::kOne:\n"
            "            break;\n    }\n}\n")

    lambdas = [
        "auto f = [] { co_return; };",
        "auto f = [&](std::function<void(int)> g) -> Task<void> {\n"
        "if (x) {\n co_await a();\n }\n };",
        "spawn([this]() -> Task<Result<int>> { co_return co_await a(); }());",
    ]
    for statement in lambdas:
        yield "lambda-coroutine", "mds/a.cc", "void run() {\n    " + statement + "\n}\n"

    rest = "    step();\n" * (function_lines_max - 1) + "}\n"
    yield "function-lines", "mds/a.cc", "void run() {\n" + rest
    yield "function-lines", "mds/a.cc", "class A {\n  A(int b) : b_{b}, c_(b) {\n" + rest + "};\n"
    yield "function-lines", "mds/a.cc", "TEST(A, B) {\n" + rest
    yield "function-lines", "mds/a.cc", "bool A::operator==(const A& o) const {\n" + rest

    six = "int a, int b, std::map<int, int> c, int d = f(1), int e = {}, int"
    yield "parameters", "mds/a.cc", f"namespace x {{\nvoid f({six});\n}}\n"
    yield "parameters", "mds/a.cc", f"class A {{\nvirtual Task<Result<int>> f({six}) = 0;\n}};\n"
    yield "parameters", "mds/a.cc", f"A::A({six}) : a_(a) {{\n}}\n"

    yield "file-lines", "tools/a.py", "pass\n" * (file_lines_max + 1)
    yield "columns", "mds/a.cc", "// " + "x" * 98 + "\n"
    yield "leftover", "mds/a.cc", "// TO" + "DO: later\n"
    yield "leftover", "tools/a.sh", "# FIX" + "ME\n"
    yield "pragma-once", "mds/a.h", "int f();\n"

    includes = [
        ("kdfs/base/a.cc", "mds/schema.h"),
        ("kdfs/base/a.cc", "kdfs/rt/env.h"),
        ("kdfs/rt/a.cc", "kdfs/kv/kv_store.h"),
        ("mds/a.cc", "storage/chunk_store.h"),
        ("storage/a.cc", "client/file_client.h"),
        ("client/a.cc", "mds/schema.h"),
        ("ckpt/a.cc", "tools/main.h"),
        ("tools/a.cc", "tests/sim/cluster.h"),
        ("storage/a.cc", "rocksdb/db.h"),
        ("kdfs/kv/kv_store.cc", "rocksdb/db.h"),
        ("mds/a.cc", "liburing.h"),
        ("kdfs/rt/env.cc", "liburing.h"),
        ("tests/unit/a.cc", "liburing/io_uring.h"),
        ("client/write_buffer.cc", "fuse3/fuse_lowlevel.h"),
        ("client/write_buffer.cc", "fuse_lowlevel.h"),
    ]
    for path, header in includes:
        yield "include-direction", path, f"#include <{header}>\n"


def good():
    """(path, text): no rule may fire."""
    yield "mds/a.cc", """\
#include "kdfs/rt/task.h"
// co_await f({}) in a comment, 'quotes' too
const char* kText = "co_await f({}) ? a : b";
constexpr int kTable[] = {1, 2, 3, 4, 5, 6};
constexpr int kMillion = 1'000'000;
std::function<void(int, int, int, int, int, int)> hook;
namespace x {
struct A {
    std::array<int, 3> values{1, 2, 3};
    A(int a, int b) : a_{a}, b_(b) {}
    int operator()(int a) const { return values[static_cast<std::size_t>(a)]; }
    bool operator<(const A& o) const { return a_ < o.a_; }
};
Task<Result<int>> run(Env& env, std::vector<int> list) {
    auto work = [&list] { return list.size() ? 1 : 2; };
    Options options{.a = 1};
    KDFS_CO_TRY_ASSIGN(auto x, co_await f(std::move(work), options));
    for (int i = 0; i < 3; ++i) {
        if (co_await ready(list[i])) {
            co_return Result<int>{x};
        }
        if (co_await ready(i)) co_return x ? 1 : 2;
    }
    while (auto next = co_await stream.next()) {
        Key key{1};
        co_await use(key);
    }
    Kind found = co_await kind();
    switch (found) {
        case Kind::kOne: {
            co_await one();
            break;
        }
        default:
            break;
    }
    auto counts = [] { return std::vector<int>{1}; };
    co_await last(counts());
    co_return Error{Errc::NoSpace, "full"};
}
}  // namespace x
"""
    yield "kdfs/rt/uring_disk.cc", "#include <liburing.h>\n"
    yield "kdfs/kv/rocks_kv.cc", "#include <rocksdb/db.h>\n"
    yield "client/fuse_ops.cc", "#include <fuse_lowlevel.h>\n"
    yield "tests/sim/cluster.cc", '#include "mds/server.h"\n#include "client/file_client.h"\n'
    yield "tools/kdfs_inspect.cc", '#include "mds/schema.h"\n#include "storage/chunk_index.h"\n'
