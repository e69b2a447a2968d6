#!/usr/bin/env python3
"""fuse_uring.py: mounts whose requests come over io_uring. What two of them show, under truncations
and random steps; and their ends under load of several processes: kill -9, SIGTERM, umount by force.
Nobody may hang, nothing may be lost that was synced. Also the mounts that do without.

The kernel's parameter is switched on while something mounts, which is when it counts, and then set
back to what it was."""

import contextlib
import fcntl
import multiprocessing
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import cluster
import faults
import two_mounts

PARAMETER = Path("/sys/module/fuse/parameters/enable_uring")
OVER_URING = "requests come over io_uring"
BY_DEVICE = "requests come by /dev/fuse"
STEPS = 800
TRUNCATIONS = 500
KILLS = 3
END_SECONDS = 30
WORKERS = 6


def require_uring():
    if os.geteuid() != 0:
        raise cluster.Skip("only root can switch FUSE over io_uring on")
    if not PARAMETER.exists():
        raise cluster.Skip(f"this kernel has no FUSE over io_uring: there is no {PARAMETER}")


@contextlib.contextmanager
def parameter(value):
    with open(PARAMETER) as lock:  # another run of this test puts back what it found, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = lock.read().strip()
        PARAMETER.write_text(value)
        try:
            yield
        finally:
            PARAMETER.write_text(before)


def second_mount(test_cluster, name, switched, options=()):
    with parameter(switched):
        return test_cluster.second_mount(name, options)


def check_choice(test_cluster):
    """Which way a mount takes, and that it says so."""
    assert OVER_URING in test_cluster.log("mount"), "the mount of `kdfs up` does not use the ring"
    for name, switched, options, cause in (
            ("off-by-option", "Y", ["--io-uring", "off"], "switched off by --io-uring"),
            ("off-in-kernel", "N", [], "kdfs doctor says how")):
        path = second_mount(test_cluster, name, switched, options)
        os.stat(path)
        log = test_cluster.log(name)
        assert BY_DEVICE in log and cause in log, f"{name}: {log}"
        end_mount(test_cluster, path, signal.SIGTERM)
    path = test_cluster.base / "must-have"
    path.mkdir()
    with parameter("N"):
        done = subprocess.run(
            [cluster.program("kdfs-fuse"), "--mds", test_cluster.mds_address(), "--mount", path,
             "--cluster-key", test_cluster.key_file(), "--foreground", "--io-uring", "on"],
            stderr=subprocess.PIPE, text=True, timeout=END_SECONDS, check=False)
    assert done.returncode != 0 and "enable_uring" in done.stderr, done.stderr
    cluster.say("with the parameter off, --io-uring on: " + done.stderr.strip())


def mount_process(path):
    for pid, words in cluster.processes_of(path.parent).items():
        if str(path) in words:
            return pid
    raise AssertionError(f"no process serves {path}")


def wait_until(done, what):
    begin = time.monotonic()
    while not done():
        if time.monotonic() - begin > END_SECONDS:
            raise AssertionError(f"{what} after {END_SECONDS} s")
        time.sleep(0.02)


def is_gone(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return not Path(f"/proc/{pid}").exists()


def end_mount(test_cluster, path, how):
    pid = mount_process(path)
    begin = time.monotonic()
    if how == "umount -f":
        # Refused as busy, but it has ended the connection; then the mount point is taken away.
        subprocess.run(["umount", "-f", path], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
    else:
        os.kill(pid, how)
    wait_until(lambda: is_gone(pid), f"{path}: kdfs-fuse still runs")
    if str(path) in cluster.mounts_below(path):
        subprocess.run(["umount", path], check=False, timeout=END_SECONDS)
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
    assert str(path) not in cluster.mounts_below(path)
    return time.monotonic() - begin


def busy(folder, seed):
    """Everything that makes requests, until the mount fails."""
    rng = random.Random(seed)
    data = rng.randbytes(1 << 20)
    with contextlib.suppress(OSError):
        os.mkdir(folder)
        while True:
            name = f"{folder}/{rng.randrange(20)}"
            size = rng.choice([0, 10, 5000, len(data)])
            with open(name, "wb") as file:
                file.write(data[:size])
                if rng.random() < 0.2:
                    os.fsync(file.fileno())
            fd = os.open(name, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            got = os.pread(fd, len(data), 0)
            os.close(fd)
            if got != data[:size]:
                os._exit(3)
            os.listdir(folder)
            os.rename(name, f"{folder}/{rng.randrange(20)}")


def check_truncations(mounts):
    """Truncated on one mount, closed, seen on the other: the close is told right behind the answer
    to the recall, which has the size."""
    rng = random.Random(1)
    for number in range(TRUNCATIONS):
        one, two = rng.sample(mounts, 2)
        name = f"cut-{number % 5}"
        with open(f"{one}/{name}", "ab"):
            pass
        size = os.stat(f"{one}/{name}").st_size
        for mount in (two, one):
            with open(f"{mount}/{name}", "rb") as file:
                assert len(file.read()) == size
        fd = os.open(f"{one}/{name}", os.O_RDWR)
        wanted = size + 7000 if size < 100_000 else 0
        os.ftruncate(fd, wanted)
        if rng.random() < 0.5:
            os.close(fd)
            seen = os.stat(f"{two}/{name}").st_size
        else:
            seen = os.stat(f"{two}/{name}").st_size
            os.close(fd)
        assert seen == wanted, f"truncation {number}: {two}/{name} has {seen} bytes, not {wanted}"
    for number in range(5):
        os.unlink(f"{mounts[0]}/cut-{number}")


def end_under_load(test_cluster, number, how):
    path = second_mount(test_cluster, f"end-{number}", "Y")
    assert OVER_URING in test_cluster.log(path.name)
    workers = [
        multiprocessing.Process(target=busy, args=(f"{path}/busy-{number}-{i}", i), daemon=True)
        for i in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    time.sleep(1.5)
    for worker in workers:
        assert worker.is_alive(), "a worker ended before the mount did"
    took = end_mount(test_cluster, path, how)
    wait_until(lambda: not any(worker.is_alive() for worker in workers), "a process still hangs")
    assert all(worker.exitcode == 0 for worker in workers), "a worker read something else"
    cluster.note(f"mount with {WORKERS} busy processes ended by {how}, seconds", f"{took:.2f}")


def test(test_cluster):
    check_choice(test_cluster)
    other = second_mount(test_cluster, "mnt2", "Y")
    check_truncations([Path(test_cluster.mount), Path(other)])
    two_mounts.play([Path(test_cluster.mount), Path(other)], 5, STEPS)
    for number, how in enumerate([signal.SIGKILL, signal.SIGTERM, "umount -f"] * 2):
        end_under_load(test_cluster, number, how)
    campaign = faults.Campaign(test_cluster, KILLS, other)
    for _ in range(KILLS):
        faults.sleep(1)
        with parameter("Y"):
            campaign.round("mount killed", lambda: test_cluster.kill("mount"), test_cluster.up,
                           errors_allowed=True)
    campaign.load.end()
    cluster.note("files checked", campaign.check_synced())
    assert test_cluster.log("mount").count(OVER_URING) == 1 + KILLS


def bring_up(test_cluster):
    require_uring()
    with parameter("Y"):
        test_cluster.up()
    test_cluster.wait_healthy()
    test(test_cluster)


if __name__ == "__main__":
    cluster.run_bare(bring_up)
