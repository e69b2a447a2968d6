#!/usr/bin/env python3
"""kill_loop.py [storage|mds|mount|all ...] [--rounds N] [--seed S]: kills daemons with kill -9
under load and starts them again, N times; kinds in turn, `all` is all of them at once. Whatever was
synced is there and right, checked by another program through another mount while the load goes on,
and through a fresh mount at the end. Nothing hangs. Only the death of the mount itself may give an
application an error."""

import random

import cluster
import faults

ROUNDS = 8
LOAD_SECONDS = 0.5
CHECK_EVERY = 5
KINDS = ["storage", "mds", "mount", "all"]


def victims(kind, test_cluster, rng):
    if kind == "storage":
        return [rng.choice(test_cluster.storage())]
    if kind == "all":
        return [*reversed(test_cluster.daemons())]
    return [kind]


def strike(test_cluster, daemons, away):
    for daemon in daemons:
        test_cluster.kill(daemon)
    faults.sleep(away)


def test(test_cluster, chosen):
    rng = random.Random(chosen.seed)
    campaign = faults.Campaign(test_cluster, chosen.seed, test_cluster.second_mount())
    for number in range(chosen.rounds):
        kind = chosen.kinds[number % len(chosen.kinds)]
        faults.sleep(rng.uniform(0.1, 2 * LOAD_SECONDS))
        daemons = victims(kind, test_cluster, rng)
        away = rng.choice([0.0, 0.3, 2.5])
        campaign.round(f"{kind} {' '.join(daemons)} killed, away {away:.1f} s",
                       lambda daemons=daemons, away=away: strike(test_cluster, daemons, away),
                       test_cluster.up, errors_allowed="mount" in daemons)
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            campaign.check_synced()
    campaign.finish()


if __name__ == "__main__":
    options = faults.options(__doc__, ROUNDS, KINDS)
    cluster.run(lambda test_cluster: test(test_cluster, options), port=cluster.fixed_ports(4))
