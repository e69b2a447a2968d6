#!/usr/bin/env python3
"""pause_loop.py [storage|mds|client ...] [--rounds N] [--seed S]: stops daemons with SIGSTOP until
past their leases and lets them go on, under load.

storage: the work goes on without it; what it wakes up with must not land.
mds: everybody waits; nobody loses anything.
client: another mount writes to the files meanwhile. What the sleeper had not written is lost, its
files say so with one EIO each and its log with a line; what the other mount wrote stays."""

import errno
import os
import random
import signal

import cluster
import faults
from fault_load import HANG_SECONDS, block_bytes

ROUNDS = 3
NODE_LEASE = 4.0
SESSION_LEASE = 8.0
CHECK_EVERY = 5
KINDS = ["storage", "mds", "client"]
FILES = 6
PIECE = 20_000


def stop_for(test_cluster, daemon, seconds):
    os.kill(test_cluster.pid(daemon), signal.SIGSTOP)
    faults.sleep(seconds)


def go_on(test_cluster, daemon):
    os.kill(test_cluster.pid(daemon), signal.SIGCONT)


def pause_daemon(campaign, daemon, seconds):
    test_cluster = campaign.cluster
    campaign.round(f"{daemon} stopped for {seconds:.1f} s",
                   lambda: stop_for(test_cluster, daemon, seconds),
                   lambda: go_on(test_cluster, daemon))


class Sleeper:
    """The files that a mount has open when it falls asleep: the first half of them with data that
    was written and not synced, and all with data that was."""

    def __init__(self, folder, other, number):
        self._names = [f"sleep-{number}-{i}" for i in range(FILES)]
        self._folder = folder
        self._other = other
        self._fds = []
        for name in self._names:
            fd = os.open(folder / name, os.O_RDWR | os.O_CREAT)
            os.pwrite(fd, self._piece(name, 0, 1), 0)
            os.pwrite(fd, self._piece(name, 1, 1), PIECE)
            os.fsync(fd)
            self._fds.append(fd)

    @staticmethod
    def _piece(name, number, version):
        return block_bytes(name, number, version, PIECE)

    def dirty(self):
        """Both pieces of these files change; the other mount will write to the first."""
        for name, fd in list(zip(self._names, self._fds, strict=True))[:FILES // 2]:
            os.pwrite(fd, self._piece(name, 0, 2), 0)
            os.pwrite(fd, self._piece(name, 1, 2), PIECE)

    def overwrite_elsewhere(self):
        for name in self._names:
            with open(self._other / name, "r+b") as file:
                file.write(self._piece(name, 0, 3))
                file.flush()
                os.fsync(file.fileno())

    def judge(self):
        """After it woke up: one EIO for each file that lost something. Gives how many did."""
        lost = 0
        for number, (name, fd) in enumerate(zip(self._names, self._fds, strict=True)):
            errors = self._errors_of(fd)
            is_dirty = number < FILES // 2
            assert len(errors) <= (1 if is_dirty else 0), f"{name}: errors {errors}"
            lost += len(errors)
            # Without an error the write landed before the lease went; with one, it may have.
            second = [2] if is_dirty and not errors else [1, 2] if is_dirty else [1]
            for mount in (self._other, self._folder):
                self._check(mount / name, second)
        return lost

    @staticmethod
    def _errors_of(fd):
        found = []
        for call in (os.fsync, os.fsync, os.close):
            try:
                call(fd)
            except OSError as error:
                assert error.errno == errno.EIO, f"{error}, not EIO"
                found.append(f"{call.__name__}: {error}")
        return found

    def _check(self, path, second):
        data = path.read_bytes()
        name = path.name
        assert data[:PIECE] == self._piece(name, 0, 3), (
            f"{path}: what another mount wrote and synced while this one slept is gone")
        assert data[PIECE:] in [self._piece(name, 1, v) for v in second], (
            f"{path}: the second piece is of none of the versions {second}")


def pause_client(campaign, number, seconds):
    test_cluster = campaign.cluster
    sleeper = Sleeper(test_cluster.mount, campaign.reader, number)

    def strike():
        sleeper.dirty()
        os.kill(test_cluster.pid("mount"), signal.SIGSTOP)
        sleeper.overwrite_elsewhere()
        faults.sleep(seconds)

    lines = log_lines(test_cluster)
    campaign.round(f"client stopped until {seconds:.1f} s after its leases went", strike,
                   lambda: go_on(test_cluster, "mount"), errors_allowed=True)
    lost = sleeper.judge()
    found = [now - before for now, before in zip(log_lines(test_cluster), lines, strict=True)]
    cluster.say(f"    {lost} of {FILES // 2} files with unwritten data report EIO; log lines: "
                f"session lost {found[0]}, data lost {found[1]}, session ended {found[2]}")
    assert found[0] == 1 and found[2] >= 1, "the end of the session is not in the logs"
    assert found[1] >= lost, "a file lost data without a line in the log"
    return lost


def log_lines(test_cluster):
    mount = test_cluster.log("mount")
    lost = mount.count("data lost") + mount.count("write lost")
    ended = test_cluster.log("mds").count("session ended: its client did not answer")
    return [mount.count("session lost"), lost, ended]


def test(test_cluster, chosen):
    rng = random.Random(chosen.seed)
    campaign = faults.Campaign(test_cluster, chosen.seed, test_cluster.second_mount())
    lost = 0
    for number in range(chosen.rounds):
        kind = chosen.kinds[number % len(chosen.kinds)]
        faults.sleep(rng.uniform(0.1, 1.0))
        if kind == "client":
            lost += pause_client(campaign, number, rng.uniform(0.0, 3.0))
        elif kind == "mds":
            pause_daemon(campaign, "mds", SESSION_LEASE * rng.uniform(1.1, 1.4))
        else:
            daemon = rng.choice(test_cluster.storage())
            pause_daemon(campaign, daemon, NODE_LEASE * rng.uniform(1.1, 1.8))
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            campaign.check_synced()
    cluster.note("files that reported lost data", lost)
    campaign.finish()


if __name__ == "__main__":
    assert HANG_SECONDS > SESSION_LEASE
    options = faults.options(__doc__, ROUNDS, KINDS)
    cluster.run(lambda test_cluster: test(test_cluster, options), port=cluster.fixed_ports(4))
