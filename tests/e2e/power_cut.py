#!/usr/bin/env python3
"""power_cut.py [--rounds N] [--seed S]: the machine loses its power at a random instant of a load.

All stores lie in one ext4 image, and that image in a file of another ext4 image. Freezing the outer
one holds every write of the inner one's disk at one instant; the copy of the inner image made then
is what a disk holds after a power cut: of what was not synced, what the kernel happened to have
written. All daemons and the mounts are killed, the copy takes the place of the image, and the
cluster starts from it. What fsync had acknowledged is there."""

import os
import random
import shutil
import signal
import subprocess

import cluster
import faults
import hand_cluster
from hand_cluster import call

ROUNDS = 2
OUTER_BYTES = 5 << 30
INNER_BYTES = 1536 << 20
CAPACITY = "320MiB"
LOAD_SECONDS = (1.0, 6.0)


class Disk:
    """The two images; the inner one is mounted at `path`."""

    def __init__(self, base, path):
        cluster.require_tools("mkfs.ext4", "losetup", "fsfreeze")
        self._outer_file = base / "outer.img"
        self._outer = base / "outer"
        self._path = path
        self._picture = base / "picture.img"
        self._number = 0
        for folder in (self._outer, path):
            folder.mkdir(exist_ok=True)
        self._make(self._outer_file, OUTER_BYTES)
        self._mount(self._outer_file, self._outer)
        self._make(self._image(), INNER_BYTES)
        self._mount(self._image(), path)

    def _image(self):
        return self._outer / f"inner-{self._number}.img"

    @staticmethod
    def _make(path, size):
        with open(path, "wb") as file:
            file.truncate(size)
        call("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", path)

    @staticmethod
    def _mount(image, path):
        done = subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise cluster.Skip(f"images cannot be mounted here: {done.stderr.strip()}")

    def cut_power(self, kill):
        """Takes the picture, and ends the daemons by kill() before they can say anything that is
        not in it. They are gone when the disk goes on."""
        call("fsfreeze", "-f", self._outer)
        try:
            kill()
            call("cp", "--sparse=always", self._image(), self._picture)
        finally:
            call("fsfreeze", "-u", self._outer)

    def start_from_picture(self):
        call("umount", self._path)
        self._image().unlink()
        self._number += 1
        shutil.move(self._picture, self._image())
        self._mount(self._image(), self._path)

    def close(self):
        for path in (self._path, self._outer):
            call("umount", path)


class PowerCluster(hand_cluster.HandCluster):
    """Its stores are on a disk whose power can be cut; logs and pid files are not."""

    def prepare(self):
        self.options = {daemon: ["--capacity", CAPACITY] for daemon in self.storage()}
        stores = self.base / "stores"
        self.disk = Disk(self.base, stores)
        for daemon in self.daemons()[:-1]:
            (stores / daemon).mkdir()
            (self.state / daemon).symlink_to(stores / daemon)
        os.sync()

    def _end(self):
        super()._end()
        self.disk.close()

    def all_daemons(self):
        return [*self.daemons(), "mnt2"]

    def cut_power(self):
        self.disk.cut_power(lambda: [os.kill(self.pid(daemon), signal.SIGKILL)
                                     for daemon in self.all_daemons()])
        for daemon in self.all_daemons():
            self.end(daemon, signal.SIGKILL)
        for path in (self.mount, self.base / "mnt2"):
            call("umount", "-l", path)

    def power_on(self):
        self.disk.start_from_picture()
        self.up()
        self.second_mount()

    def cut_and_start(self):
        self.cut_power()
        self.power_on()


def test(test_cluster, chosen):
    rng = random.Random(chosen.seed)
    campaign = faults.Campaign(test_cluster, chosen.seed, test_cluster.second_mount())
    for _ in range(chosen.rounds):
        faults.sleep(rng.uniform(*LOAD_SECONDS))
        campaign.round("power cut", test_cluster.cut_and_start, lambda: None, errors_allowed=True)
        campaign.check_synced()
    campaign.finish()


if __name__ == "__main__":
    options = faults.options(__doc__, ROUNDS)
    hand_cluster.run(lambda test_cluster: test(test_cluster, options), make=PowerCluster)
