#!/usr/bin/env python3
"""fuse_transport.py [ROUNDS [SCALE [WORK...]]]: the same work on two mounts of one cluster, with
requests by /dev/fuse and over io_uring, in turn. Prints for each work the median of the ratios
(io_uring over /dev/fuse) of rate and of CPU time per operation, and the medians themselves. CPU
time is that of the worker and of kdfs-fuse, and beside it that of the other daemons, so that a
machine with other work on it can be used. Needs root and a kernel that has FUSE over io_uring;
programs from $KDFS_BIN_DIR."""

import ctypes
import mmap
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
import cluster
import fuse_uring

AT_FDCWD = -100
AT_STATX_FORCE_SYNC = 0x2000
STATX_BASIC_STATS = 0x7FF
MIB = 1 << 20
FILE_MIB = 64


def cpu_of(pid):
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def own_cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Works:
    """Each gives the number of operations it made."""

    def __init__(self, folder, scale):
        self._folder = folder
        self._scale = scale
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._big = f"{folder}/big"
        self._page = mmap.mmap(-1, MIB)  # aligned, for direct access
        self._page.write(random.Random(1).randbytes(MIB))

    def all(self):
        return [self.create, self.stat_asked, self.unlink, self.write_1m, self.read_1m,
                self.random_write_4k, self.random_read_4k]

    def _count(self, base):
        return max(1, int(base * self._scale))

    def create(self):
        count = self._count(2000)
        for i in range(count):
            os.close(os.open(f"{self._folder}/{i}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
        return count

    def stat_asked(self):
        """stat that the kernel does not answer by itself."""
        count = self._count(20000)
        buffer = ctypes.create_string_buffer(256)
        paths = [f"{self._folder}/{i}".encode() for i in range(200)]
        for i in range(count):
            if self._libc.statx(AT_FDCWD, paths[i % 200], AT_STATX_FORCE_SYNC, STATX_BASIC_STATS,
                                buffer) != 0:
                raise OSError(ctypes.get_errno(), "statx")
        return count

    def unlink(self):
        count = self._count(2000)
        for i in range(count):
            os.unlink(f"{self._folder}/{i}")
        return count

    def write_1m(self):
        fd = os.open(self._big, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        for _ in range(FILE_MIB):
            os.write(fd, self._page)
        os.fsync(fd)
        os.close(fd)
        return FILE_MIB

    def read_1m(self):
        fd = os.open(self._big, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.readv(fd, [self._page]):
            pass
        os.close(fd)
        return FILE_MIB

    def _random(self, flags, body):
        count = self._count(4000)
        rng = random.Random(2)
        fd = os.open(self._big, flags | os.O_DIRECT)
        view = memoryview(self._page)[:4096]
        for _ in range(count):
            body(fd, [view], rng.randrange(FILE_MIB * MIB // 4096) * 4096)
        view.release()
        if flags != os.O_RDONLY:
            os.fsync(fd)
        os.close(fd)
        return count

    def random_write_4k(self):
        return self._random(os.O_WRONLY, os.pwritev)

    def random_read_4k(self):
        return self._random(os.O_RDONLY, os.preadv)


def measure(work, fuse_pid, others):
    begin = time.monotonic()
    mine = own_cpu() + cpu_of(fuse_pid)
    rest = sum(cpu_of(pid) for pid in others)
    count = work()
    rate = count / (time.monotonic() - begin)
    mine = own_cpu() + cpu_of(fuse_pid) - mine
    rest = sum(cpu_of(pid) for pid in others) - rest
    return rate, mine / count * 1e6, rest / count * 1e6


def test(test_cluster, rounds=5, scale=1.0, only=()):
    others = [test_cluster.pid(name) for name in test_cluster.daemons() if name != "mount"]
    mounts = {}
    for name, options in (("device", ["--io-uring", "off"]), ("ring", ["--io-uring", "on"])):
        path = fuse_uring.second_mount(test_cluster, name, "Y", options)
        mounts[name] = (path, fuse_uring.mount_process(path))
    figures = {}
    for number in range(rounds):
        for name in ("device", "ring") if number % 2 == 0 else ("ring", "device"):
            path, pid = mounts[name]
            folder = path / f"{name}-{number}"
            folder.mkdir()
            for work in Works(folder, scale).all():
                if only and work.__name__ not in only:
                    continue
                figures.setdefault(work.__name__, {}).setdefault(name, []).append(
                    measure(work, pid, others))
    print("| work | rate | CPU | /dev/fuse, per s | io_uring | /dev/fuse, us | io_uring | "
          "others, us | others |")
    for work, by_mount in figures.items():
        pairs = list(zip(by_mount["device"], by_mount["ring"]))
        ratios = [statistics.median(ring[i] / device[i] for device, ring in pairs) for i in (0, 1)]
        middle = {name: [statistics.median(run[i] for run in runs) for i in range(3)]
                  for name, runs in by_mount.items()}
        columns = [f"{ratio:.2f}" for ratio in ratios]
        columns += [f"{middle[name][i]:.0f}" for i in range(3) for name in ("device", "ring")]
        print(f"| {work} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    rounds_wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    scale_wanted = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    fuse_uring.require_uring()
    cluster.run(lambda test_cluster: test(test_cluster, rounds_wanted, scale_wanted, sys.argv[3:]))
