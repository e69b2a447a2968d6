#!/usr/bin/env python3
"""stall.py [kill|freeze ...] [--rounds N] [--seed S]: how long an application waits when a storage
daemon dies (kill -9) or freezes (SIGSTOP: its connections stay). A thread writes, syncs, reads and
stats small files all the time, spread over all chains; of each round its longest turn counts.
Prints the median and the highest; at most 10 s are allowed."""

import os
import random
import signal
import statistics

import cluster
import faults

ROUNDS = 2
# Longer than the stall that is allowed: it must not end because the daemon comes back.
AWAY_SECONDS = 12.0
STALL_MAX = 10.0
KINDS = ["kill", "freeze"]


def one_round(test_cluster, probe, kind, rng):
    daemon = rng.choice(test_cluster.storage())
    faults.sleep(rng.uniform(0.3, 1.3))
    quiet = probe.longest
    probe.longest = 0.0
    if kind == "kill":
        test_cluster.kill(daemon)
        faults.sleep(AWAY_SECONDS)
        test_cluster.up()
    else:
        os.kill(test_cluster.pid(daemon), signal.SIGSTOP)
        faults.sleep(AWAY_SECONDS)
        os.kill(test_cluster.pid(daemon), signal.SIGCONT)
    test_cluster.wait_healthy()
    stall = probe.longest
    cluster.say(f"{kind} {daemon}: {stall:.2f} s (before: {quiet:.2f} s)")
    probe.longest = 0.0
    return stall


def test(test_cluster, chosen):
    rng = random.Random(chosen.seed)
    stalls = {kind: [] for kind in chosen.kinds}
    with cluster.Probe(test_cluster.mount / "probe") as probe:
        for number in range(chosen.rounds):
            kind = chosen.kinds[number % len(chosen.kinds)]
            stalls[kind].append(one_round(test_cluster, probe, kind, rng))
    for kind, found in stalls.items():
        if found:
            cluster.note(f"stall of {len(found)} rounds, {kind}, median and highest in seconds",
                         f"{statistics.median(found):.2f} {max(found):.2f}")
            assert max(found) <= STALL_MAX, f"an application waited {max(found):.1f} s"


if __name__ == "__main__":
    options = faults.options(__doc__, ROUNDS, KINDS)
    cluster.run(lambda test_cluster: test(test_cluster, options), port=cluster.fixed_ports(4))
