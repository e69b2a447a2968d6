#!/usr/bin/env python3
"""fsx.py [OPERATIONS [SEED...]]: kdfs-fsx on the mount, in a file below one chunk and in a longer
one that several chunks share."""

import subprocess
import sys

import cluster

OPERATIONS = 4000
SEEDS = (1, 2)
LENGTHS = (256 * 1024, 3 * 1024 * 1024)


def test(test_cluster, operations=OPERATIONS, *seeds):
    for seed in seeds or SEEDS:
        length = LENGTHS[(seed - 1) % len(LENGTHS)]
        words = ["-N", operations, "-S", seed, "-L", length, test_cluster.mount / f"fsx-{seed}"]
        subprocess.run([cluster.program("kdfs-fsx"), *map(str, words)], check=True)
        cluster.say(f"{operations} operations with seed {seed} on up to {length} bytes")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    cluster.run(lambda test_cluster: test(test_cluster, *numbers))
