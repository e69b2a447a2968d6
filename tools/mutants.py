#!/usr/bin/env python3
"""Shows for each rule of tests/mutants.txt which test breaks without it.

usage: mutants.py BUILD [--seeds N] [--unit-only] [--sim-only] [NAME...]

BUILD is a build with -DKDFS_MUTANTS=ON. Each mutant runs the unit tests, and those marked "seeds"
besides, or if no test noticed, seeds of kdfs-sim from 1 to N (500) until one fails that passes
without the mutant; see MIXES. Prints one line per mutant and exits with 1 if one survives, or if no
seed notices one that is marked.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNIT = ["kdfs_unit_proto", "kdfs_unit_mds", "kdfs_unit_client", "kdfs_unit_storage",
        "kdfs_sim_test"]
SEEDS_AT_ONCE = 20
SMALL = ["--mix", "full", "--chains", "8"]
# Of kdfs-sim, the one that tells most first.
MIXES = ([*SMALL, "--harsh"], [*SMALL, "--flips"], [*SMALL, "--points", "--flips"], SMALL, [])
SECONDS_MAX = 300  # of one program: a mutant may hang


def listed():
    """The rule of each mutant, and which are marked "seeds"."""
    rules, marked = {}, set()
    for line in (ROOT / "tests/mutants.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, rule, *mark = line.split()
            rules[name] = rule
            if mark == ["seeds"]:
                marked.add(name)
    return rules, marked


def named_in_code():
    out = set()
    for folder in ("kdfs", "mds", "storage", "client"):
        for path in (ROOT / folder).rglob("*.cc"):
            out |= set(re.findall(r'\bmutant\("([a-z_]+)"\)', path.read_text()))
    return out


def run(command, mutant):
    """The exit code and the text; a program that takes too long has failed."""
    environment = dict(os.environ, KDFS_MUTANT=mutant)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              errors="replace", timeout=SECONDS_MAX, check=False)
        return done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        text = (late.stdout or b"").decode(errors="replace")
        return -1, text


def unit_killers(build, mutant):
    out = []
    for program in UNIT:
        code, text = run([str(build / "tests/bin" / program), "--gtest_color=no"], mutant)
        if code != 0:
            failed = sorted(set(re.findall(r"\[  FAILED  \] ([\w/]+\.[\w/]+)", text)))
            started = re.findall(r"\[ RUN      \] ([\w/.]+)", text)
            out += failed or [(started[-1] if started else program) + " (ended)"]
    return out


def sim_killer(build, mutant, seeds):
    for mix in MIXES:
        seed = killing_seed([str(build / "bin/kdfs-sim"), *mix], mutant, seeds)
        if seed:
            return " ".join(["kdfs-sim", *mix, "--seed", str(seed)])
    return ""


def killing_seed(program, mutant, seeds):
    first = 1
    while first <= seeds:
        last = min(first + SEEDS_AT_ONCE - 1, seeds)
        code, text = run([*program, "--seeds", f"{first}..{last}"], mutant)
        if code == 0:
            first = last + 1
            continue
        found = re.search(r"--seed (\d+)", text) or re.search(r"seed (\d+)", text)
        seed = int(found.group(1)) if found else first
        if run([*program, "--seed", str(seed)], "")[0] == 0:
            return seed
        first = seed + 1  # Fails without the mutant too: says nothing.
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--unit-only", action="store_true")
    parser.add_argument("--sim-only", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_intermixed_args()
    rules, marked = listed()
    if set(rules) != named_in_code():
        print("tests/mutants.txt and the code differ:", sorted(set(rules) ^ named_in_code()))
        return 1
    survivors = []
    for name in arguments.names or rules:
        killers = [] if arguments.sim_only else unit_killers(arguments.build, name)
        more = f" and {len(killers) - 3} more" if len(killers) > 3 else ""
        shown = ", ".join(killers[:3]) + more
        survives = not killers
        if not arguments.unit_only and (name in marked or survives):
            seed = sim_killer(arguments.build, name, arguments.seeds)
            survives = not seed
            shown = "; ".join(text for text in (seed or "NO SEED", shown) if text)
        print(f"{rules[name]:4} {name:28} {'SURVIVES ' * survives}{shown}", flush=True)
        if survives:
            survivors.append(name)
    print(f"mutants: {len(arguments.names or rules) - len(survivors)} killed, "
          f"{len(survivors)} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
