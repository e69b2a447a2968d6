#!/usr/bin/env python3
"""memory.py [FILES]: makes FILES (default one million) files in several directories through the
mount, then streams data through it, and reports the resident memory of every daemon. Not part of
the usual run; takes some minutes."""

import multiprocessing
import os
import sys
import time

os.environ.setdefault("KDFS_E2E_SECONDS_MAX", "3600")

import cluster  # noqa: E402: reads the variable

PROCESSES = 2
FILES_PER_FOLDER = 10_000
LIMIT_KIB = 300 * 1024
STREAM_BYTES = 256 << 20
BLOCK = 1 << 20


def make_files(root, first, last):
    for start in range(first, last, FILES_PER_FOLDER):
        folder = f"{root}/{start}"
        os.mkdir(folder)
        for number in range(start, min(start + FILES_PER_FOLDER, last)):
            os.close(os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))


def stream(path):
    data = os.urandom(BLOCK)
    with open(path, "wb", buffering=0) as file:
        for _ in range(STREAM_BYTES // BLOCK):
            file.write(data)
        os.fsync(file.fileno())
    with open(path, "rb", buffering=0) as file:
        while file.read(BLOCK):
            pass
    # Small overwrites, where every write is a chain of its own.
    fd = os.open(path, os.O_RDWR)
    for number in range(4000):
        os.pwrite(fd, data[:4096], number * 7919 * 4096 % STREAM_BYTES)
    os.fsync(fd)
    os.close(fd)


def in_parallel(target, argument_lists):
    workers = [multiprocessing.Process(target=target, args=arguments, daemon=True)
               for arguments in argument_lists]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0, f"{target.__name__} failed"


def report(test_cluster, when):
    for daemon in test_cluster.daemons():
        now = test_cluster.resident_kib(daemon) // 1024
        peak = test_cluster.resident_kib(daemon, peak=True) // 1024
        cluster.note(f"{when}, {daemon} resident MiB (peak)", f"{now} ({peak})")


def test(test_cluster, files=1_000_000):
    report(test_cluster, "at the start")
    begin = time.monotonic()
    share = -(-files // PROCESSES)
    in_parallel(make_files, [(test_cluster.mount, number * share, min((number + 1) * share, files))
                             for number in range(PROCESSES)])
    cluster.note("files made per second", f"{files / (time.monotonic() - begin):.0f}")
    report(test_cluster, f"with {files} files")
    over = test_cluster.resident_kib("mds") > LIMIT_KIB
    in_parallel(stream, [(f"{test_cluster.mount}/stream-{number}",) for number in range(PROCESSES)])
    report(test_cluster, "after streams and small overwrites")
    for daemon in test_cluster.storage():
        over = over or test_cluster.resident_kib(daemon, peak=True) > LIMIT_KIB
    assert not over, f"the MDS or a storage daemon holds more than {LIMIT_KIB // 1024} MiB"


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    cluster.run(lambda test_cluster: test(test_cluster, *numbers))
