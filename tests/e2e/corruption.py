#!/usr/bin/env python3
"""corruption.py [SEED]: flips bits in the stored files of a running and of a stopped cluster.
Damage in one copy is read around and repaired, also if only `kdfs scrub` reads it; damage in all
copies gives EIO, and logs and commands name the file; a store whose RocksDB is damaged is refused
with a sentence. Never a wrong byte."""

import errno
import json
import mmap
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import cluster
from flip_bit import flip_bit

BLOCK = 4096
FILE_BYTES = 1 << 20
WAIT_SECONDS = 30


def wait_until(what, condition):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < WAIT_SECONDS, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(cluster.POLL_SECONDS)


class Corruption:
    def __init__(self, test_cluster, seed):
        self.cluster = test_cluster
        self.state = test_cluster.state
        self.random = random.Random(seed)
        self.files = {}
        self.second = test_cluster.second_mount()  # reads from storage-2

    # What the cases are made of.

    def make(self, name):
        path = self.cluster.mount / "folder" / name
        path.parent.mkdir(exist_ok=True)
        data = self.random.randbytes(FILE_BYTES + 5000)
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.files[name] = data
        return path

    def slabs(self, node):
        return sorted(self.state.glob(f"storage-{node}/t*/slab.*"))

    def places(self, node, block):
        """Where the node has these bytes: [(slab, offset)]."""
        found = []
        for slab in self.slabs(node):
            with open(slab, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
                at = text.find(block)
                while at >= 0:
                    found.append((slab, at))
                    at = text.find(block, at + 1)
        return found

    def block_of(self, name, number):
        return self.files[name][number * BLOCK:(number + 1) * BLOCK]

    def damage(self, name, number, node):
        places = self.places(node, self.block_of(name, number))
        assert places, f"storage-{node} has no block {number} of {name}"
        for slab, offset in places:
            flip_bit(slab, offset + self.random.randrange(BLOCK), self.random.randrange(8))

    def is_whole(self, name, number, node):
        return bool(self.places(node, self.block_of(name, number)))

    def read(self, name, mount=None):
        """Past the page cache of the mount."""
        fd = os.open((mount or self.cluster.mount) / "folder" / name, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            data = bytearray()
            while len(data) < len(self.files[name]):
                part = os.read(fd, 1 << 17)
                assert part, f"{name} ends at {len(data)}"
                data += part
            return bytes(data)
        finally:
            os.close(fd)

    def expect_right(self, name, mount=None):
        assert self.read(name, mount) == self.files[name], f"{name} has wrong bytes"

    def expect_all_right(self):
        for name in self.files:
            if name != "lost":
                self.expect_right(name)

    def scrub(self):
        words = ("--dir", self.state)
        self.cluster.kdfs("scrub", "start", *words, "--rate", "1G")
        done = self.cluster.kdfs("scrub", "status", *words, "--json", "--wait", WAIT_SECONDS,
                                 check=False)
        answer = json.loads(done.stdout)
        assert answer["state"] == "done", done.stdout
        return answer, done.returncode

    def stop(self, daemon):
        pid = self.cluster.pid(daemon)
        os.kill(pid, signal.SIGTERM)
        wait_until(f"{daemon} ends", lambda: not self.cluster.is_running(daemon))

    # The cases, in this order.

    def read_around(self):
        self.make("read")
        self.damage("read", 3, 2)
        self.damage("read", 256, 2)  # in the second chunk
        self.expect_right("read", self.second)
        wait_until("the copy that was read is repaired",
                   lambda: self.is_whole("read", 3, 2) and self.is_whole("read", 256, 2))
        self.expect_right("read")

    def scrubbed(self):
        self.make("unread")
        self.damage("unread", 7, 1)
        self.damage("unread", 256, 2)  # in the second chunk
        answer, status = self.scrub()
        assert status == 0 and answer["lost_chunks"] == 0, answer
        assert answer["total"]["damaged"] == 2 and answer["total"]["repaired"] == 2, answer
        assert self.is_whole("unread", 7, 1) and self.is_whole("unread", 256, 2)
        self.expect_right("unread")
        self.expect_clean_scrub()

    def scrubbed_with_damage_in_both_copies(self):
        self.make("both")
        self.damage("both", 7, 1)
        self.damage("both", 200, 2)
        answer, status = self.scrub()
        assert status == 0 and answer["lost_chunks"] == 0, answer
        # One target asks the other for its copy, which makes that one repair it: then the other's
        # own scrub may find it whole.
        total = answer["total"]
        assert 1 <= total["damaged"] == total["repaired"] <= 2, answer
        wait_until("both copies are repaired",
                   lambda: self.is_whole("both", 7, 1) and self.is_whole("both", 200, 2))
        self.expect_right("both")
        self.expect_clean_scrub()

    def expect_clean_scrub(self):
        answer, status = self.scrub()
        assert status == 0 and answer["total"]["damaged"] == 0, answer
        assert answer["total"]["unequal"] == 0, answer

    def damaged_while_stopped(self):
        self.make("stopped")
        self.stop("storage-2")
        self.damage("stopped", 11, 2)
        self.cluster.up()
        self.cluster.wait_healthy()
        self.expect_right("stopped", self.second)
        self.expect_right("stopped")
        wait_until("the copy is repaired", lambda: self.is_whole("stopped", 11, 2))

    def lost(self):
        path = self.make("lost")
        self.damage("lost", 20, 1)
        self.damage("lost", 20, 2)
        for _ in range(3):
            try:
                self.read("lost")
            except OSError as error:
                assert error.errno == errno.EIO, error
            else:
                raise AssertionError("what is damaged everywhere was read")
        lines = [line for line in self.cluster.log("mount").splitlines()
                 if "file cannot be read" in line]
        assert len(lines) == 1 and "/folder/lost" in lines[0], lines
        assert re.search(r"chunk=.*offset=|offset=.*chunk=", lines[0]), lines[0]
        for node in (1, 2):
            wait_until(f"storage-{node} names the chunk", lambda node=node: (
                "damaged chunk that no other member has" in self.cluster.log(f"storage-{node}")))
        answer, status = self.scrub()
        assert status == 1 and answer["lost_chunks"] == 2, answer
        assert {one["path"] for one in answer["lost"]} == {"/folder/lost"}, answer
        assert {one["inode"] for one in answer["lost"]} == {path.stat().st_ino}, answer
        shown = self.cluster.kdfs("scrub", "status", "--dir", self.state, check=False).stdout
        assert "/folder/lost" in shown, shown
        problems = self.cluster.status()["problems"]
        assert any("damaged chunk" in one["what"] for one in problems), problems
        self.expect_right("read")
        path.unlink()
        self.cluster.wait_healthy()
        answer, status = self.scrub()
        assert status == 0 and answer["lost_chunks"] == 0, answer

    def rocks_files(self, directory, suffix):
        files = [path for path in Path(directory).glob(f"*.{suffix}")
                 if any(path.read_bytes()[:4096])]
        assert files, f"{directory} has no .{suffix} file with something in it"
        return sorted(files)

    def flip_in_store(self, path):
        """In the middle of what is not zeros; gives back what was there."""
        before = path.read_bytes()
        used = len(before.rstrip(b"\0"))
        flip_bit(path, self.random.randrange(used // 4, used // 2), self.random.randrange(8))
        return before

    def refused(self, daemon, path):
        """The daemon says what is wrong and ends, without a crash. Gives what `up` says."""
        begin = len(self.cluster.log(daemon))
        done = self.cluster.kdfs("up", "--dir", self.state, check=False)
        assert done.returncode == 1, done.stdout
        assert not self.cluster.is_running(daemon)
        text = self.cluster.log(daemon)[begin:]
        assert text.strip().splitlines()[-1] in done.stderr, done.stderr
        assert re.search(r"damaged|orruption", text), f"with a damaged {path.name}: {text}"
        assert str(path.parent) in text, text
        assert "restore the directory from a good copy" in text, text
        for sign in ("check failed", "SIG", "terminate called", "core dumped"):
            assert sign not in text, text
        return done.stderr

    def damaged_store(self, daemon, directory, suffix):
        (path, *_) = self.rocks_files(directory, suffix)
        before = self.flip_in_store(path)
        self.refused(daemon, path)
        path.write_bytes(before)

    def damaged_records_of_a_target(self):
        self.stop("storage-2")
        directory = next(self.state.glob("storage-2/t*/kv"))
        self.damaged_store("storage-2", directory, "log")
        self.damaged_store("storage-2", directory, "sst")
        self.expect_right("read")

    def damaged_records_of_a_target_while_all_was_down(self):
        """The others serve without it until its directory is whole again."""
        self.cluster.down()
        (path, *_) = self.rocks_files(next(self.state.glob("storage-2/t*/kv")), "sst")
        before = self.flip_in_store(path)
        for _ in ("all is started", "only storage-2 is"):
            said = self.refused("storage-2", path)
            assert "the cluster runs without storage-2" in said, said
        self.expect_all_right()
        self.make("meanwhile")
        assert self.cluster.status()["health"] == "degraded"
        path.write_bytes(before)
        self.cluster.up()
        self.cluster.wait_healthy()
        self.expect_all_right()
        self.cluster.fsck()

    def damaged_records_of_the_mds(self):
        self.cluster.down()
        self.damaged_store("mds", self.state / "mds/meta", "log")
        # A start turns the log into a table.
        self.cluster.up()
        self.cluster.down()
        self.damaged_store("mds", self.state / "mds/meta", "sst")
        self.cluster.up()
        self.cluster.wait_healthy()
        self.expect_all_right()

    def run(self):
        for case in (self.read_around, self.scrubbed, self.scrubbed_with_damage_in_both_copies,
                     self.damaged_while_stopped, self.lost, self.damaged_records_of_a_target,
                     self.damaged_records_of_a_target_while_all_was_down,
                     self.damaged_records_of_the_mds):
            case()
            cluster.say(f"{case.__name__}: as it should be")


def test(test_cluster):
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 30)
    cluster.note("seed", seed)
    Corruption(test_cluster, seed).run()


if __name__ == "__main__":
    cluster.run(test, nodes=2, replicas=2)
