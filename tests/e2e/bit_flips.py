#!/usr/bin/env python3
"""bit_flips.py [--rounds N | --seconds S] [--seed N]: random bits of stored files are flipped, one
per round, in every kind of file that storage daemons and the metadata server keep, while the daemon
is stopped or runs. Each round begins from the same stored cluster. Afterwards every name, size and
byte is right. Only of the metadata server, which has no copy, may reads fail instead, or the start,
with a sentence that names its directory."""

import argparse
import collections
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import cluster
from flip_bit import flip_bit

# What is flipped: the daemon's part of the state directory, and the kinds of files in it.
KINDS = {
    "storage": ("slab", "log", "sst", "MANIFEST", "CURRENT", "OPTIONS", "IDENTITY"),
    "mds": ("log", "sst", "MANIFEST", "CURRENT", "OPTIONS", "IDENTITY"),
}
PATTERNS = {"slab": "slab.*", "log": "*.log", "sst": "*.sst", "MANIFEST": "MANIFEST-*",
            "CURRENT": "CURRENT", "OPTIONS": "OPTIONS-*", "IDENTITY": "IDENTITY"}
CRASHES = ("check failed", "terminate called", "core dumped", "Segmentation")
SCRATCH = "scratch"
WAIT_SECONDS = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    return parser.parse_args()


def used_ranges(path):
    """Where the file has something but zeros: [(begin, end)], in blocks of 4 KiB."""
    found = []
    with open(path, "rb") as file:
        at = 0
        while at < os.fstat(file.fileno()).st_size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            block = os.pread(file.fileno(), 4096, at).rstrip(b"\0")
            if block:
                found.append((at, at + len(block)))
            at += 4096
    return found


class BitFlips:
    def __init__(self, test_cluster, seed):
        self.cluster = test_cluster
        self.state = test_cluster.state
        self.random = random.Random(seed)
        self.expected = {}
        self.outcomes = collections.Counter()

    # The cluster that every round begins from.

    def write(self, name, data):
        path = self.cluster.mount / name
        path.parent.mkdir(exist_ok=True, parents=True)
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def make_files(self, part):
        for i in range(12):
            size = self.random.choice((0, 100, 4096, 20_000, 100_000, 300_000))
            self.write(f"part-{part}/dir-{i % 4}/file-{i}", self.random.randbytes(size))
        self.write(f"part-{part}/large", self.random.randbytes(2_500_000))
        os.symlink(f"to-{part}", self.cluster.mount / f"part-{part}/link")
        os.setxattr(self.cluster.mount / f"part-{part}/large", "user.of", f"{part}".encode())
        os.chmod(self.cluster.mount / f"part-{part}/dir-0", 0o750)

    def make_scratch(self, tag):
        """What comes after the last sync but one is not covered by marks in the logs of RocksDB
        when a daemon dies: these files are last, and nobody looks at them."""
        for i in range(24):
            self.write(f"{SCRATCH}/{tag}-{i}", self.random.randbytes(30_000))

    def store(self, name):
        """Keeps what is stored, of daemons that are down."""
        for part in ("mds", "storage-1", "storage-2"):
            subprocess.run(["cp", "-a", "--sparse=always", self.state / part,
                            self.cluster.local / f"{name}-{part}"], check=True)

    def restore(self, name):
        for part in ("mds", "storage-1", "storage-2"):
            self.restore_one(name, part)

    def restore_one(self, name, part):
        shutil.rmtree(self.state / part)
        subprocess.run(["cp", "-a", "--sparse=always", self.cluster.local / f"{name}-{part}",
                        self.state / part], check=True)

    def end(self, daemon, how):
        os.kill(self.cluster.pid(daemon), how)
        self.wait(f"{daemon} ends", lambda: not self.cluster.is_running(daemon))
        port = self.cluster.port + ("mds", "storage-1", "storage-2").index(daemon)
        self.wait(f"the port of {daemon} is free", lambda: self.is_free(port))

    @staticmethod
    def is_free(port):
        """The kernel gives up the sockets of a killed process that has an io_uring a little later
        than the process."""
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return True
        except OSError:
            return False

    def prepare(self):
        self.make_files(1)
        for part in (2, 3):  # a start makes tables of what the logs have
            self.cluster.down()
            self.cluster.up()
            self.cluster.wait_healthy()
            self.make_files(part)
        self.expected = self.look()
        self.make_scratch("before")
        self.cluster.down()
        self.store("closed")
        self.cluster.up()
        self.cluster.wait_healthy()
        self.make_files(4)
        self.expected_closed, self.expected = self.expected, self.look()
        self.make_scratch("after")
        for daemon in ("storage-1", "storage-2", "mds"):
            self.end(daemon, signal.SIGKILL)
        self.cluster.down()
        self.store("killed")
        self.expected_killed = self.expected

    # What is there.

    def look(self):
        """{path: what it is}, of all but the scratch files, past the caches."""
        root = self.cluster.mount
        found = {}
        pending = [root]
        while pending:
            for entry in sorted(os.scandir(pending.pop()), key=lambda entry: entry.name):
                name = str(entry.path)[len(str(root)) + 1:]
                if name == SCRATCH:
                    continue
                about = os.lstat(entry.path)
                what = [about.st_mode, about.st_size if entry.is_file() else 0]
                if entry.is_symlink():
                    what.append(os.readlink(entry.path))
                elif entry.is_dir():
                    pending.append(entry.path)
                else:
                    what += [self.digest(entry.path), self.attributes(entry.path)]
                found[name] = what
        return found

    @staticmethod
    def attributes(path):
        return {name: os.getxattr(path, name).decode()
                for name in os.listxattr(path) if name.startswith("user.")}

    @staticmethod
    def digest(path):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            digest = hashlib.sha256()
            while part := os.read(fd, 1 << 18):
                digest.update(part)
            return digest.hexdigest()
        finally:
            os.close(fd)

    def expect_right(self):
        found = self.look()
        for name in sorted(set(found) | set(self.expected)):
            assert found.get(name) == self.expected.get(name), (
                f"{name}: {found.get(name)} instead of {self.expected.get(name)}")

    # A round.

    def choose(self):
        daemon = self.random.choice(("mds", "storage-1", "storage-2"))
        kind = self.random.choice(KINDS[daemon.split("-", maxsplit=1)[0]])
        if daemon == "mds":
            folder = self.state / "mds/meta"
        else:
            folder = next(iter(sorted(self.state.glob(f"{daemon}/t*"))))
            folder = folder if kind == "slab" else folder / "kv"
        return daemon, kind, folder

    def flip_one(self, kind, folder):
        places = [(path, at) for path in sorted(folder.glob(PATTERNS[kind]))
                  for at in used_ranges(path)]
        if not places:
            return False
        path, (begin, end) = self.random.choice(places)
        offset, bit = self.random.randrange(begin, end), self.random.randrange(8)
        flip_bit(path, offset, bit)
        self.last = f"{path.relative_to(self.state)} byte {offset} bit {bit}"
        return True

    def wait(self, what, condition):
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < WAIT_SECONDS, f"not within {WAIT_SECONDS} s: {what}"
            time.sleep(cluster.POLL_SECONDS)

    def said(self, daemon):
        return self.cluster.log(daemon)[self.begin[daemon]:]

    def up(self, daemon="", folder=""):
        """False if `daemon`, and nobody else, was refused its store."""
        done = self.cluster.kdfs("up", "--dir", self.state, "--mount", self.cluster.mount,
                                 "--timeout", 60, check=False)
        if done.returncode == 0:
            return True
        # Without the metadata server's records it may be the mount that fails.
        assert daemon == "mds" or f"({daemon}) failed" in done.stderr, done.stderr
        assert not self.cluster.is_running(daemon)
        self.expect_sentence(daemon, folder, done.stderr)
        return False

    def expect_sentence(self, daemon, folder, more=""):
        text = self.said(daemon) + more
        assert str(folder) in text and re.search(r"restore|check the disk", text), text[-2000:]

    def expect_no_crash(self):
        for daemon in self.begin:
            for sign in CRASHES:
                assert sign not in self.said(daemon), self.said(daemon)[-2000:]

    def verify(self, daemon, folder):
        """How it went: "right", or "refused" if the metadata server says that it cannot read."""
        try:
            self.expect_right()
            if daemon != "mds" and self.cluster.is_running(daemon):
                self.scrub()
                self.expect_right()
            return "right"
        except OSError as error:
            if daemon != "mds":
                raise AssertionError(f"a copy is whole, but: {error}") from error
            self.expect_sentence(daemon, folder)
            return "refused"

    def scrub(self):
        self.cluster.kdfs("scrub", "start", "--dir", self.state, "--rate", "1G")
        done = self.cluster.kdfs("scrub", "status", "--dir", self.state, "--json",
                                 "--wait", 20, check=False)
        answer = json.loads(done.stdout)
        assert answer["lost_chunks"] == 0 and answer["differ"] == 0, answer
        self.outcomes["repaired chunks"] += answer["total"]["repaired"]

    def stopped_round(self, daemon, kind, folder, image):
        if not self.flip_one(kind, folder):
            return "nothing to flip"
        if self.up(daemon, folder):
            return self.verify(daemon, folder)
        # As the sentence says.
        self.restore_one(image, daemon)
        assert self.up()
        self.expect_right()
        return "refused"

    def running_round(self, daemon, kind, folder, image):
        if not self.up() or not self.flip_one(kind, folder):
            return "nothing to flip"
        how = self.verify(daemon, folder)
        if how != "right":
            return how
        try:
            data = self.random.randbytes(50_000)
            self.write("part-1/new", data)
            self.expected = {**self.expected, "part-1/new": [
                0o100644, len(data), hashlib.sha256(data).hexdigest(), {}]}
            self.make_scratch(f"round-on-{image}")
        except OSError as error:
            assert daemon == "mds", error
            self.expect_sentence(daemon, folder)
            return "refused"
        if self.cluster.is_running(daemon):
            self.end(daemon, self.random.choice((signal.SIGTERM, signal.SIGKILL)))
        if self.up(daemon, folder):
            return self.verify(daemon, folder)
        if daemon != "mds":
            self.expect_right()  # from the other copies
        return "refused when started again"

    def round(self):
        image = self.random.choice(("closed", "killed"))
        self.restore(image)
        self.expected = self.expected_closed if image == "closed" else self.expected_killed
        daemon, kind, folder = self.choose()
        begin = {name: len(self.cluster.log(name)) for name in ("mds", "storage-1", "storage-2")}
        self.begin = begin
        self.last = "nothing"
        running = self.random.random() < 0.5
        action = self.running_round if running else self.stopped_round
        try:
            how = action(daemon, kind, folder, image)
            self.expect_no_crash()
        except (AssertionError, OSError):
            state = "running" if running else "stopped"
            cluster.say(f"image {image}, {state} {daemon}: {self.last}")
            raise
        if not self.cluster.is_running(daemon) and how == "right":
            self.expect_sentence(daemon, folder)
            how = "ended by itself"
        self.outcomes[f"{daemon.split('-')[0]} {kind}: {how}"] += 1
        self.cluster.down()


def test(test_cluster, options):
    cluster.note("seed", options.seed)
    flips = BitFlips(test_cluster, options.seed)
    flips.prepare()
    begin = time.monotonic()
    rounds = 0
    while rounds < options.rounds or time.monotonic() - begin < options.seconds:
        flips.round()
        rounds += 1
    for what, count in sorted(flips.outcomes.items()):
        cluster.note(what, count)
    cluster.note("flipped bits", rounds)


if __name__ == "__main__":
    given = arguments()
    cluster.run(lambda test_cluster: test(test_cluster, given), nodes=2, replicas=2,
                port=cluster.fixed_ports(4))
