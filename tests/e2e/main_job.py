#!/usr/bin/env python3
"""main_job.py storage|mds: unpacks a source tree of several thousand files into the mount, builds
it there, and compares it with the same work on a local disk, while a daemon is killed with kill -9
in the middle and started again. No application error, no difference, full redundancy at the end."""

import subprocess
import sys
import threading
import time

import cluster
import source_tree

# How long the daemon stays away before it is started again: long enough for the manager to take a
# storage daemon for dead, so that work goes on without it and it has something to catch up with.
DOWN_SECONDS = {"storage-2": 4.0, "mds": 1.0}


class Killer:
    """Kills `daemon` when the work has printed enough lines, and starts it again on a thread."""

    def __init__(self, test_cluster, daemon):
        self._cluster = test_cluster
        self._daemon = daemon
        self._thread = None
        self._error = None

    def strike(self):
        cluster.say(f"kill -9 {self._daemon}")
        self._cluster.kill(self._daemon)
        self._thread = threading.Thread(target=self._start_again, daemon=True)
        self._thread.start()

    def _start_again(self):
        try:
            time.sleep(DOWN_SECONDS[self._daemon])
            self._cluster.up()
            cluster.say(f"{self._daemon} runs again")
        except Exception as error:  # reported by join(), on the test's thread
            self._error = error

    def join(self):
        self._thread.join(120)
        assert not self._thread.is_alive(), f"kdfs up of {self._daemon} hangs"
        if self._error:
            raise self._error


def run_counted(words, folder, lines, at, action):
    """Runs a command that prints a line per step; calls `action` at the fraction `at` of them."""
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    strike = None if at is None else max(1, int(lines * at))
    last = []
    count = 0
    for line in process.stdout:
        count += 1
        last = [*last[-9:], line]
        if count == strike:
            action()
    status = process.wait()
    assert status == 0, f"{words[0]} failed ({status}):\n{''.join(last)}"
    assert strike is None or count >= strike, f"{words[0]} printed only {count} of {lines} lines"


def unpack(archive, folder, entries, at=None, action=None):
    run_counted(["tar", "-xvf", archive], folder, entries, at, action)


def build(folder, at=None, action=None):
    run_counted(["make", "-j2"], folder / "tree", source_tree.MODULES, at, action)


def timed(what, work, *arguments):
    begin = time.monotonic()
    work(*arguments)
    cluster.note(f"{what}, seconds", f"{time.monotonic() - begin:.1f}")


def work_with_kills(test_cluster, daemon, archive, entries):
    mount = test_cluster.mount
    first, second = Killer(test_cluster, daemon), Killer(test_cluster, daemon)
    with cluster.Probe(mount / "probe") as probe:
        timed("unpack in kdfs", unpack, archive, mount, entries, 0.4, first.strike)
        first.join()
        cluster.note("full redundancy after seconds", f"{test_cluster.wait_healthy():.1f}")
        timed("build in kdfs", build, mount, 0.4, second.strike)
        second.join()
    cluster.note("full redundancy after seconds", f"{test_cluster.wait_healthy():.1f}")
    cluster.note("longest stall of the probe, seconds", f"{probe.longest:.2f}")


def test(test_cluster, daemon):
    cluster.require_tools("cc", "make", "tar", "diff", "ar", "nm")
    archive, entries = source_tree.make_tar(test_cluster.local)
    cluster.note("entries in the archive", entries)
    timed("unpack on the disk", unpack, archive, test_cluster.local, entries)
    timed("build on the disk", build, test_cluster.local)

    work_with_kills(test_cluster, daemon, archive, entries)
    wanted, actual = test_cluster.local / "tree", test_cluster.mount / "tree"
    timed("compare", source_tree.compare, wanted, actual)

    # Once more without anything that a client may have cached.
    test_cluster.down()
    test_cluster.up()
    timed("compare after a restart", source_tree.compare, wanted, actual)
    test_cluster.wait_healthy()
    test_cluster.kdfs("fsck", "--dir", test_cluster.state)
    timed("rm -rf", subprocess.check_call, ["rm", "-rf", str(actual)])


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("storage", "mds"):
        sys.exit(__doc__)
    victim = {"storage": "storage-2", "mds": "mds"}[sys.argv[1]]
    cluster.run(lambda test_cluster: test(test_cluster, victim))
