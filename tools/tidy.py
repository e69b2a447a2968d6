#!/usr/bin/env python3
"""Checks the hard limits and house rules that the compilers and clang-tidy do not know.

    tools/tidy.py              check every source; exit status 1 if anything is found
    tools/tidy.py FILE...      check these files only
    tools/tidy.py --format     rewrite the C++ files with clang-format
    tools/tidy.py --selftest   prove on bad snippets that each rule fires

There is no exception list: a file that breaks a rule is changed.
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 5
COLUMNS_MAX = 100
LAMBDA_HEAD_MAX = 600  # characters between the ] of a lambda and its body

ROOT = Path(__file__).resolve().parent.parent
LEFTOVER = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]')

# Files whose path matches the first may not include what matches the second.
LAYERS = [
    (r"kdfs/", r"(mds|storage|client|ckpt|tools|tests)/", "kdfs/ knows nothing of roles"),
    (r"mds/", r"(storage|client|ckpt|tools|tests)/", "mds/ stands on kdfs/ alone"),
    (r"storage/", r"(mds|client|ckpt|tools|tests)/", "storage/ stands on kdfs/ alone"),
    (r"client/", r"(mds|storage|ckpt|tools|tests)/", "client/ stands on kdfs/ alone"),
    (r"ckpt/", r"(tools|tests)/", "ckpt/ stands below tools/ and tests/"),
    (r"tools/", r"tests/", "nothing outside tests/ includes tests/"),
    (r"kdfs/base/", r"kdfs/(rt|rpc|proto|kv)/", "base/ stands below the rest of kdfs/"),
    (r"kdfs/rt/", r"kdfs/(proto|kv)/", "rt/ stands below proto/ and kv/"),
    (r"kdfs/proto/", r"kdfs/(rt|rpc|kv)/", "proto/ stands on base/ alone"),
    (r"(?!kdfs/kv/rocks_\w*\.cc$)", r"rocksdb/", "only kdfs/kv/rocks_*.cc sees RocksDB"),
    (
        r"(?!kdfs/rt/(reactor|uring|tcp|unix|socket|tls|real)\w*\.(h|cc)$)",
        r"(liburing\.h|liburing/)",
        "only kdfs/rt/{reactor,uring,tcp,unix,socket,tls,real}* see liburing",
    ),
    (r"(?!client/fuse_\w*\.(h|cc)$)", r"(fuse3?/|fuse\w*\.h)", "only client/fuse_* see libfuse"),
]


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    rule: str
    advice: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.advice}"


def strip(text):
    """The text with comments, literals and directives blanked; every offset stays."""
    token = re.compile(
        r'R"([^()\\\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])*\''
        r"|//(?:\\\n|[^\n])*|/\*.*?\*/|^[ \t]*#(?:\\\n|[^\n])*",
        re.S | re.M,
    )

    def blank(match):
        kept = "0" if match[0][0] in "R\"'" else " "  # a literal still counts as a value
        return kept + re.sub(r"[^\n]", " ", match[0][1:])

    return token.sub(blank, text)


class Source:
    """One C++ file: blanked code, matching brackets, and what each brace opens."""

    CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
    NOT_A_NAME = re.compile(
        r"decltype|noexcept|requires|alignas|explicit|__attribute__|static_assert"
    )
    LAMBDA_TAIL = re.compile(
        r"\]\s*(?:<[^{}]*>\s*)?(?:\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))?"
        r"\s*(?:mutable|noexcept|constexpr|\s)*(?:->[^;{}]*)?$"
    )

    def __init__(self, text):
        self.code = strip(text)
        self.match = {}
        stack = []
        for at, char in enumerate(self.code):
            if char in "([{":
                stack.append(at)
            elif char in ")]}" and stack:
                opened = stack.pop()
                self.match[opened], self.match[at] = at, opened

    def line(self, at):
        return self.code.count("\n", 0, at) + 1

    def is_block(self, brace):
        """True for a brace that opens statements, false for one that opens an initialiser."""
        head = self.code[:brace].rstrip()
        if not head or head[-1] in ");{}:" or re.search(r"\b(else|do|try|const|noexcept)$", head):
            return True
        body = self.code[brace + 1 : self.match.get(brace, len(self.code))]
        return ";" in body or bool(self.LAMBDA_TAIL.search(head[-LAMBDA_HEAD_MAX:]))

    def is_lambda(self, bracket):
        head = self.code[:bracket].rstrip()
        if self.code[bracket + 1 : bracket + 2] == "[" or head.endswith("["):
            return False  # an attribute
        subscript = re.search(r"[\w)\]]$", head)
        keyword = re.search(r"\b(return|co_return|co_await|co_yield)$", head)
        return not subscript or bool(keyword)

    def statement(self, at):
        """The bounds of the statement around `at`."""
        start = at
        while start > 0:
            char = self.code[start - 1]
            if char == ";" or (char == "{" and self.is_block(start - 1)):
                break
            if char == "}" and self.is_block(self.match.get(start - 1, 0)):
                head = self.code[: self.match.get(start - 1, 0)]
                if not self.LAMBDA_TAIL.search(head[-LAMBDA_HEAD_MAX:]):
                    break
            start = self.match.get(start - 1, start - 1) if char in ")]}" else start - 1
        end = at
        while end < len(self.code):
            char = self.code[end]
            if char in ";}":
                break
            if char == ")" and self.match.get(end, at) < at:
                head = self.code[: self.match[end]].rstrip()
                if re.search(r"\b(if|while|for|switch)$", head):
                    break
            end = self.match.get(end, end) if char in "([{" else end
            end += 1
        return start, end

    def definitions(self):
        """Yields (start, head, end) of each declaration outside functions; end: None if no body."""
        start, at = 0, 0
        while at < len(self.code):
            char = self.code[at]
            if char in "([":
                at = self.match.get(at, at)
            elif char in ";}":
                yield start, self.code[start:at], None
                start = at + 1
            elif char == "{":
                head = self.code[start:at]
                if self.CONTAINER.search(head) and "(" not in re.sub(r"alignas\([^)]*\)", "", head):
                    start = at + 1  # step inside
                elif self.opens_function(head):
                    yield start, head, self.match.get(at, len(self.code) - 1)
                    at = self.match.get(at, at)
                    start = at + 1
                else:
                    at = self.match.get(at, at)
            at += 1

    @staticmethod
    def opens_function(head):
        signature = Source.parameter_list(head)
        if signature is None:
            return False
        tail = head[signature[1] + 1 :]
        return not re.search(r"(:(?!:)|,)\s*[\w:]+(<.*>)?\s*$", tail)  # a member initialiser

    @staticmethod
    def parameter_list(head):
        """The bounds of the first parenthesis after a name outside angle brackets, or None."""
        angles, at = 0, 0
        while at < len(head):
            char = head[at]
            if head.startswith("operator", at):
                at = re.compile(r"operator\s*(?:\(\s*\)|[^\s(\w]+)?").match(head, at).end()
                continue
            if char == "<":
                angles += 1
            elif char == ">" and head[at - 1] != "-":
                angles = max(0, angles - 1)
            elif char == "=" and angles == 0:
                return None
            elif char == "(":
                close, depth = at, 0
                while close < len(head):
                    depth += {"(": 1, ")": -1}.get(head[close], 0)
                    if depth == 0:
                        break
                    close += 1
                name = re.search(r"([\w\]>&]+|[^\w\s]+)\s*$", head[:at])
                if angles == 0 and name and not Source.NOT_A_NAME.fullmatch(name[1]):
                    return at, close
                at = close
            at += 1
        return None


def parameters(text):
    """How many parameters the text between two parentheses declares."""
    count, depth = 1, 0
    for at, char in enumerate(text):
        if char in "([{<":
            depth += 1
        elif char in ")]}" or (char == ">" and text[at - 1] != "-"):
            depth -= 1
        elif char == "," and depth == 0:
            count += 1
    return count if text.strip() else 0


def check_functions(path, source):
    for start, head, end in source.definitions():
        bounds = Source.parameter_list(head)
        if bounds is None:
            continue
        start += len(head) - len(head.lstrip())
        name = re.search(r"(\S+)\s*$", head[: bounds[0]])[1]
        line = source.line(start)
        count = parameters(head[bounds[0] + 1 : bounds[1]])
        if count > PARAMETERS_MAX and not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            yield Finding(path, line, "parameters", f"{name} has {count} parameters, at most "
                          f"{PARAMETERS_MAX} are allowed: gather what belongs together in a struct")
        lines = source.line(end) - line + 1 if end else 0
        if lines > FUNCTION_LINES_MAX:
            yield Finding(path, line, "function-lines", f"{name} has {lines} lines, at most "
                          f"{FUNCTION_LINES_MAX} are allowed: move straight work into helpers")


def check_coroutines(path, source):
    code = source.code
    reported = set()
    for awaiting in re.finditer(r"\bco_await\b", code):
        start, end = source.statement(awaiting.start())
        if start in reported:
            continue
        reported.add(start)
        found = []
        for at in range(start, end):
            if code[at] == "[" and source.is_lambda(at):
                found.append("a lambda: name it first, then std::move it in")
            elif code[at] == "{" and not source.is_block(at):
                found.append("a {} initialiser: name the object first")
            elif code[at] == "?":
                found.append("a ?: : write if and else")
        line = source.line(awaiting.start())
        for what in dict.fromkeys(found):
            yield Finding(path, line, "await-statement", f"this co_await statement holds {what} "
                          "(g++ 12 frees such temporaries twice)")
    for switch in re.finditer(r"\bswitch\s*\(", code):
        condition = code[switch.end() : source.match.get(switch.end() - 1, switch.end())]
        if re.search(r"\bco_await\b", condition):
            yield Finding(path, source.line(switch.start()), "await-switch",
                          "switch on an awaited temporary (g++ 12 makes a program that hangs): "
                          "name the value first")
    for keyword in re.finditer(r"\bco_(await|return|yield)\b", code):
        brace = innermost_function(source, keyword.start())
        bracket = lambda_bracket(source, brace) if brace is not None else None
        if bracket is not None and source.is_lambda(bracket):
            yield Finding(path, source.line(keyword.start()), "lambda-coroutine",
                          "a lambda must not be a coroutine (its captures die before it ends): "
                          "make it a function that takes its state as parameters")


def innermost_function(source, at):
    """The brace of the innermost body of a function or lambda around `at`."""
    depth_from = at
    while depth_from > 0:
        depth_from -= 1
        char = source.code[depth_from]
        if char in ")]}":
            depth_from = source.match.get(depth_from, depth_from)
        elif char == "{":
            head = source.code[:depth_from].rstrip()
            control = re.search(r"\b(else|do|try)$", head) or head.endswith((";", "{", "}", ":"))
            if head.endswith(")"):
                before = source.code[: source.match.get(len(head) - 1, 0)].rstrip()
                control = re.search(r"\b(if|for|while|switch|catch|constexpr)$", before)
            if not control and source.is_block(depth_from):
                return depth_from
    return None


def lambda_bracket(source, brace):
    """The `[` of the lambda whose body opens at `brace`, or None."""
    begin = max(0, brace - LAMBDA_HEAD_MAX)
    tail = source.LAMBDA_TAIL.search(source.code[begin:brace].rstrip())
    return source.match.get(begin + tail.start()) if tail else None


def check_includes(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        include = INCLUDE.match(line)
        for files, banned, why in LAYERS if include else []:
            if re.match(files, path) and re.match(banned, include[1]):
                yield Finding(path, number, "include-direction", f'"{include[1]}" may not be '
                              f"included here: {why}; move what is shared down a layer")


def check_text(path, text):
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX:
        yield Finding(path, FILE_LINES_MAX + 1, "file-lines", f"{len(lines)} lines, at most "
                      f"{FILE_LINES_MAX} are allowed: split it by responsibility")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield Finding(path, number, "columns", f"{len(line)} columns, at most {COLUMNS_MAX} "
                          "are allowed: wrap the line (in C++ --format does most)")
        if LEFTOVER.search(line):
            yield Finding(path, number, "leftover", "finish what the note asks for, or delete "
                          "it and say it in an issue")


def check(path, text):
    """All findings in one file except those of clang-format."""
    findings = list(check_text(path, text))
    if path.endswith((".h", ".cc")):
        source = Source(text)
        findings += check_functions(path, source)
        findings += check_coroutines(path, source)
        findings += check_includes(path, text)
    if path.endswith(".h") and not re.search(r"^#pragma once$", text, re.M):
        findings.append(Finding(path, 1, "pragma-once", "add #pragma once as the first line"))
    return findings


def run_clang_format(paths, options):
    """Runs clang-format over the C++ files in parallel; returns its findings."""
    program = shutil.which("clang-format")
    paths = [path for path in paths if path.endswith((".h", ".cc"))]
    if not program:
        print("tidy: format not checked: no clang-format (tools/setup.sh installs it)")
        return []
    if not paths:
        return []

    def run(path):
        return subprocess.run([program, *options, path], cwd=ROOT, capture_output=True, text=True)

    findings = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, done in zip(paths, pool.map(run, paths)):
            where = re.search(r":(\d+):\d+: (?:error|warning)", done.stderr)
            if done.returncode:
                findings.append(Finding(path, int(where[1]) if where else 1, "format",
                                        f"run tools/tidy.py --format {path}"))
    return findings


def repository_files():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.split("\0")
    else:  # an unpacked archive
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not name.startswith((".git/", "build/"))]
    suffixes = (".h", ".cc", ".proto", ".py", ".sh", ".cmake", "CMakeLists.txt")
    return sorted({name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()})


def selftest():
    sys.path.insert(0, str(ROOT / "tools"))
    import tidy_cases

    failed = 0
    for rule, path, text in tidy_cases.bad(FILE_LINES_MAX, FUNCTION_LINES_MAX):
        rules = {finding.rule for finding in check(path, text)}
        if rules != {rule}:
            failed += 1
            print(f"tidy: selftest: expected [{rule}], got {sorted(rules)}: {path}:\n{text[:400]}")
    for path, text in tidy_cases.good():
        for finding in check(path, text):
            failed += 1
            print(f"tidy: selftest: false alarm: {finding}\n{text}")
    print("tidy: selftest " + (f"failed, {failed} cases" if failed else "passed"))
    return 1 if failed else 0


def main(arguments):
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    if "--selftest" in arguments:
        return selftest()
    named = [name for name in arguments if not name.startswith("-")]
    named = [str(Path(name).resolve().relative_to(ROOT)) for name in named]
    files = named or repository_files()
    if "--format" in arguments:
        run_clang_format(files, ["-i"])
        return 0
    findings = [finding for path in files for finding in check(path, (ROOT / path).read_text())]
    findings += run_clang_format(files, ["--dry-run", "--Werror", "--ferror-limit=1"])
    for finding in sorted(findings, key=lambda f: (f.path, f.line)):
        print(finding)
    print(f"tidy: {len(files)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
