#!/usr/bin/env python3
"""full_disk.py: the disk of one storage daemon is small and fills up; the others have room. A write
or at the latest fsync says ENOSPC, nothing hangs, all else can be read and written, and removing
files gives the room back."""

import errno
import os
import subprocess
import time

import cluster
import hand_cluster
from hand_cluster import call

# Two slabs, logs and records.
DISK_BYTES = 700 << 20
FILE_BYTES = 4 << 20
FILES_MAX = 400
CALL_SECONDS_MAX = 10
ROOM_SECONDS_MAX = 60


class SmallDiskCluster(hand_cluster.HandCluster):
    """storage-2 is told that there is more room than its disk has."""

    def prepare(self):
        cluster.require_tools("mkfs.ext4")
        self.options = {daemon: ["--capacity", "4GiB"] for daemon in self.storage()}
        image = self.base / "small.img"
        self.small = self.state / "storage-2"
        self.small.mkdir()
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        call("mkfs.ext4", "-q", image)
        done = subprocess.run(["mount", "-o", "loop", image, self.small], capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            raise cluster.Skip(f"images cannot be mounted here: {done.stderr.strip()}")

    def _end(self):
        super()._end()
        call("umount", self.small)


def content(number):
    return bytes([number % 251 + 1]) * FILE_BYTES


def write_file(path, number):
    """None, or the error that write, fsync or close gave. The file is closed in any case."""
    begin = time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    found = None
    try:
        data = content(number)
        done = 0
        while done < len(data):
            done += os.write(fd, data[done:])
        os.fsync(fd)
    except OSError as error:
        found = error
    try:
        os.close(fd)
    except OSError as error:
        found = found or error
    took = time.monotonic() - begin
    assert took < CALL_SECONDS_MAX, f"{path}: write and fsync took {took:.1f} s"
    return found


def fill(folder):
    """Writes files until some end with ENOSPC; the numbers of those that were synced."""
    synced = []
    failed = 0
    for number in range(FILES_MAX):
        error = write_file(folder / str(number), number)
        if error is None:
            synced.append(number)
            continue
        assert error.errno == errno.ENOSPC, f"file {number}: {error}, not ENOSPC"
        failed += 1
        if failed == 5:
            cluster.note("files synced before and beside five that ended with ENOSPC", len(synced))
            return synced
    raise AssertionError(f"{FILES_MAX} files of {FILE_BYTES} bytes went into the small disk")


def check(folder, synced):
    for number in synced:
        assert (folder / str(number)).read_bytes() == content(number), f"file {number} is wrong"


def wait_for_room(folder):
    begin = time.monotonic()
    number = 0
    good = 0
    while good < 5:
        number += 1
        path = folder / f"again-{number}"
        if write_file(path, number) is None:
            good += 1
        else:
            good = 0
            path.unlink()
        waited = time.monotonic() - begin
        assert waited < ROOM_SECONDS_MAX, f"no room {waited:.0f} s after all files were removed"
    cluster.note("room again after, seconds", f"{time.monotonic() - begin:.1f}")


def test(test_cluster):
    folder = test_cluster.mount / "files"
    folder.mkdir()
    synced = fill(folder)
    other = test_cluster.second_mount()
    check(other / "files", synced)
    os.mkdir(folder / "names can be made")
    cluster.say(f"status: {test_cluster.status()['health']}")
    for entry in list(os.scandir(folder)):
        os.rmdir(entry.path) if entry.is_dir() else os.unlink(entry.path)
    wait_for_room(folder)
    test_cluster.wait_healthy()
    test_cluster.fsck()


if __name__ == "__main__":
    hand_cluster.run(test, make=SmallDiskCluster)
