#!/usr/bin/env python3
"""kill_loop.py [KILLS]: kills each kind of daemon KILLS times (default 5) with kill -9 under load
and starts it again; at last all of them at once. Whatever was synced before must be there and right
at the end, read through a fresh mount. Only the death of the mount itself may give an application
an error."""

import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
import time

import cluster

WORKERS = 2
KILLS = 5
FILE_SIZES = [0, 100, 4096, 50_000, 1_500_000]
LOAD_SECONDS = 0.7
KEPT_FILES = 60


class Worker:
    """Creates, overwrites, renames and removes files in a folder of its own, each synced, and keeps
    a manifest on the local disk: "begin PATH" before a file is touched, "is PATH DIGEST" or "gone
    PATH" after that was made durable."""

    def __init__(self, folder, manifest, seed, errors_allowed):
        self._folder = folder
        self._manifest = open(manifest, "a")
        self._rng = random.Random(seed)
        self._errors_allowed = errors_allowed
        self._number = 0
        self._files = []

    def run(self, stop):
        while not stop.is_set():
            try:
                self._step()
            except OSError as error:
                if not self._errors_allowed.value:
                    raise
                self._say(f"# {error}")
                time.sleep(0.05)

    def _say(self, line):
        self._manifest.write(f"{line}\n")
        self._manifest.flush()

    def _step(self):
        kind = self._rng.random()
        if kind < 0.15 and len(self._files) > 5:
            self._remove(self._rng.choice(self._files))
        elif kind < 0.35 and self._files:
            self._overwrite(self._rng.choice(self._files))
        else:
            self._create()
        if len(self._files) > KEPT_FILES:
            self._remove(self._files[0])

    def _sync_folder(self):
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _create(self):
        self._number += 1
        path = f"{self._folder}/{self._number}"
        data = self._rng.randbytes(self._rng.choice(FILE_SIZES))
        self._say(f"begin {path}")
        with open(f"{path}.new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)
        self._sync_folder()
        self._files.append(path)
        self._say(f"is {path} {hashlib.sha256(data).hexdigest()}")

    def _overwrite(self, path):
        self._say(f"begin {path}")
        with open(path, "r+b") as file:
            offset = self._rng.randrange(os.fstat(file.fileno()).st_size + 1)
            file.seek(offset)
            file.write(self._rng.randbytes(self._rng.choice(FILE_SIZES[1:])))
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.sha256(file.read()).hexdigest()
        self._say(f"is {path} {digest}")

    def _remove(self, path):
        self._say(f"begin {path}")
        self._files.remove(path)
        os.unlink(path)
        self._sync_folder()
        self._say(f"gone {path}")


def work(folder, manifest, seed, stop, errors_allowed):
    Worker(folder, manifest, seed, errors_allowed).run(stop)


def read_manifest(path):
    """{path: digest, None if it is gone, or "?" if the last change was not acknowledged}"""
    wanted = {}
    with open(path) as file:
        for line in file:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "begin":
                wanted[rest] = "?"
            elif kind == "gone":
                wanted[rest] = None
            elif kind == "is":
                name, _, digest = rest.rpartition(" ")
                wanted[name] = digest
    return wanted


def verify(manifest):
    wanted = read_manifest(manifest)
    for path, digest in wanted.items():
        if digest is None:
            assert not os.path.exists(path), f"{path} was removed, and is back"
        elif digest != "?":
            assert os.path.exists(path), f"{path} was synced, and is gone"
            with open(path, "rb") as file:
                got = hashlib.sha256(file.read()).hexdigest()
            assert got == digest, f"{path} was synced with other content"
    return len(wanted)


class Load:
    def __init__(self, test_cluster):
        self._stop = multiprocessing.Event()
        self.errors_allowed = multiprocessing.Value("b", 0)
        self.manifests = []
        self._workers = []
        for number in range(WORKERS):
            folder = test_cluster.mount / f"worker-{number}"
            folder.mkdir()
            manifest = test_cluster.local / f"manifest-{number}"
            self.manifests.append(manifest)
            arguments = (str(folder), manifest, number, self._stop, self.errors_allowed)
            self._workers.append(multiprocessing.Process(target=work, args=arguments, daemon=True))
            self._workers[-1].start()

    def check(self):
        for worker in self._workers:
            assert worker.exitcode is None, "a worker saw an error in the mount (above)"

    def end(self):
        self._stop.set()
        for worker in self._workers:
            worker.join(60)
            assert worker.exitcode == 0, f"a worker ended with {worker.exitcode}"


def kill_and_restart(test_cluster, load, daemons, rng):
    time.sleep(LOAD_SECONDS)
    load.check()
    if "mount" in daemons:
        load.errors_allowed.value = 1
    for daemon in daemons:
        test_cluster.kill(daemon)
    away = rng.choice([0.0, 0.3, 2.5])
    time.sleep(away)
    test_cluster.up()
    took = test_cluster.wait_healthy()
    load.errors_allowed.value = 0
    cluster.say(f"kill -9 {' '.join(daemons)}, away {away:.1f} s; healthy again {took:.1f} s after")
    load.check()


def test(test_cluster, kills=KILLS):
    rng = random.Random(kills)
    load = Load(test_cluster)
    with cluster.Probe(test_cluster.mount / "probe") as probe:
        for number in range(kills):
            storage = test_cluster.storage()[number % test_cluster.nodes]
            kill_and_restart(test_cluster, load, [storage], rng)
            kill_and_restart(test_cluster, load, ["mds"], rng)
    cluster.note("longest stall of the probe, seconds", f"{probe.longest:.2f}")
    for _ in range(max(1, kills // 3)):
        kill_and_restart(test_cluster, load, ["mount"], rng)
    everything = [*reversed(test_cluster.daemons())]
    kill_and_restart(test_cluster, load, everything, rng)
    time.sleep(LOAD_SECONDS)
    load.end()
    test_cluster.down()
    test_cluster.up()
    files = sum(verify(manifest) for manifest in load.manifests)
    cluster.note("files checked", files)
    test_cluster.wait_healthy()
    test_cluster.kdfs("fsck", "--dir", test_cluster.state)
    subprocess.check_call(["rm", "-rf", *map(str, test_cluster.mount.glob("worker-*"))])


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    cluster.run(lambda test_cluster: test(test_cluster, *numbers))
