#!/usr/bin/env python3
"""partition_loop.py [KIND ...] [--rounds N] [--seed S]: cuts the network between daemons that live
in namespaces of their own, one way or both, for less or longer than their leases, under load.

storage: a storage daemon from the metadata server. peers: two storage daemons from each other.
data: a mount from a storage daemon. client: a mount from the metadata server. alone: a daemon from
everybody. Only a mount that lost the metadata server for long may give an application an error."""

import random

import faults
import hand_cluster

ROUNDS = 3
CHECK_EVERY = 3
KINDS = ["storage", "peers", "data", "client", "alone"]
SECONDS = [1.0, 3.0, 6.0, 11.0]


def links(kind, test_cluster, rng):
    """The pairs that do not hear each other."""
    one, two = rng.sample(test_cluster.storage(), 2)
    if kind == "storage":
        return [(one, "mds")]
    if kind == "peers":
        return [(one, two)]
    if kind == "data":
        return [("mount", one)]
    if kind == "client":
        return [("mount", "mds")]
    places = ["mds", *test_cluster.storage(), "mount", "mnt2"]
    lonely = rng.choice([one, one, "mount", "mds"])
    return [(lonely, place) for place in places if place != lonely]


def cut(net, pairs, direction):
    for one, two in pairs:
        if direction in ("both", "in"):
            net.cut(one, two)
        if direction in ("both", "out"):
            net.cut(two, one)


def strike(net, pairs, direction, seconds):
    cut(net, pairs, direction)
    faults.sleep(seconds)


def test(test_cluster, chosen):
    rng = random.Random(chosen.seed)
    net = test_cluster.net
    campaign = faults.Campaign(test_cluster, chosen.seed, test_cluster.second_mount())
    for number in range(chosen.rounds):
        kind = chosen.kinds[number % len(chosen.kinds)]
        faults.sleep(rng.uniform(0.1, 1.0))
        pairs = links(kind, test_cluster, rng)
        direction = rng.choice(["both", "in", "out"])
        seconds = rng.choice(SECONDS)
        cut_off = any("mount" in pair and "mds" in pair for pair in pairs)
        what = ", ".join(f"{one}-{two}" for one, two in pairs)
        campaign.round(f"{kind} cut {what} {direction} for {seconds} s",
                       lambda p=pairs, d=direction, s=seconds: strike(net, p, d, s),
                       net.heal, errors_allowed=cut_off)
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            campaign.check_synced()
    campaign.finish()


if __name__ == "__main__":
    options = faults.options(__doc__, ROUNDS, KINDS)
    hand_cluster.run(lambda test_cluster: test(test_cluster, options), net=True)
