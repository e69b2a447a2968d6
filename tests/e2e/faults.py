"""What the fault loops share: their options, the checks after each round and at the end."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import cluster
from fault_load import Load

CHECK_SECONDS = 120


def options(description, rounds, kinds=None):
    """--rounds, --seed, and the kinds of fault to choose from."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=1)
    if kinds:
        parser.add_argument("kinds", nargs="*", choices=[*kinds, []], default=[])
    chosen = parser.parse_args()
    if kinds:
        chosen.kinds = chosen.kinds or list(kinds)
    words = [sys.argv[0], *getattr(chosen, "kinds", [])]
    replay = f"{' '.join(words)} --rounds {chosen.rounds} --seed {chosen.seed}"
    cluster.say(f"seed {chosen.seed}; replay: {replay}")
    return chosen


class Campaign:
    """A load on the first mount, read and judged through the second, while faults come and go."""

    def __init__(self, test_cluster, seed, reader):
        self.cluster = test_cluster
        self.reader = Path(reader)
        self.load = Load(test_cluster.mount, test_cluster.local, seed)
        self.counts = {}
        self.wait_longest = 0.0

    def round(self, name, strike, heal, errors_allowed=False):
        """One fault: strike(), then heal(); then everything goes on and is healthy again."""
        self.load.check()
        self.load.allow_errors(errors_allowed)
        self.load.break_now()
        strike()
        self.load.healed()
        heal()
        waited = self.load.wait_progress()
        healthy = self.cluster.wait_healthy()
        self.load.allow_errors(False)
        self.wait_longest = max(self.wait_longest, waited)
        kind = name.split(" ")[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        cluster.say(f"{sum(self.counts.values())}: {name}; longest wait after healing "
                    f"{waited:.1f} s, healthy {healthy:.1f} s later; {self.load.steps()} steps")

    def check_synced(self, mount=None):
        """Runs the checker, a program of its own."""
        words = [sys.executable, str(Path(__file__).with_name("check_synced.py"))]
        words += [str(mount or self.reader), *self.load.manifests]
        done = subprocess.run(words, capture_output=True, text=True, check=False,
                              timeout=CHECK_SECONDS)
        assert done.returncode == 0, f"check_synced.py through {words[2]}: {done.stderr}"
        return int(done.stdout)

    def finish(self):
        """Ends the load; everything synced is there through a mount that has cached nothing, and
        the cluster is whole."""
        self.load.end()
        self.check_synced()
        self.cluster.down()
        self.cluster.up()
        cluster.note("files checked", self.check_synced(self.cluster.mount))
        self.cluster.wait_healthy()
        self.cluster.fsck()
        for kind, count in sorted(self.counts.items()):
            cluster.note(f"rounds, {kind}", count)
        cluster.note("steps of the load", self.load.steps())
        cluster.note("errors that the load was allowed to see", self.load.errors())
        cluster.note("longest wait after healing, seconds", f"{self.wait_longest:.1f}")


def sleep(seconds):
    """The length of a fault."""
    time.sleep(seconds)
