#!/usr/bin/env python3
"""Wrong keys, frames, directories, names, policies and arguments: each gets its clear error and a
non-zero exit status, and the daemons live on."""

import errno
import os
import random
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import cluster
import raw_peer

USAGE = 64


class BadInput:
    """The cases, each a method; run() calls all of them and reports every one that failed."""

    def __init__(self, test_cluster):
        self.cluster = test_cluster
        self.state = test_cluster.state
        self.mount = test_cluster.mount
        self.local = test_cluster.local
        self.pids = {}

    def run(self):
        failed = []
        for name in sorted(vars(type(self))):
            if not name.startswith("case_"):
                continue
            self.pids = self.cluster.pids()
            try:
                getattr(self, name)()
                self.alive()
                cluster.say(f"{name[5:]}: refused as it should be")
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                failed.append(name)
                cluster.say(f"{name[5:]}: FAILED: {error}")
        assert not failed, f"{len(failed)} cases failed: {' '.join(failed)}"

    def alive(self):
        for daemon, pid in self.pids.items():
            assert self.cluster.is_running(daemon), f"{daemon} died"
            assert self.cluster.pid(daemon) == pid, f"{daemon} was replaced"
        path = self.mount / "alive"
        path.write_text("yes")
        assert path.read_text() == "yes"
        path.unlink()

    # What the cases are made of.

    def refused(self, words, pattern, status=None):
        """kdfs fails, says a sentence on stderr that matches, and gives no stack or abort."""
        done = self.cluster.kdfs(*words, check=False)
        self.expect(done.returncode, done.stderr, pattern, status, ["kdfs", *words])

    def program_refused(self, words, pattern, status=None):
        done = subprocess.run(
            [cluster.program(words[0]), *map(str, words[1:])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=60, check=False)
        self.expect(done.returncode, done.stdout, pattern, status, words)

    def expect(self, got, text, pattern, status, words):
        shown = " ".join(map(str, words))
        assert got != 0, f"'{shown}' succeeded"
        assert got > 0, f"'{shown}' died of signal {-got}: {text}"
        assert status in (None, got), f"'{shown}': exit status {got}, not {status}: {text}"
        assert re.search(pattern, text, re.I | re.S), f"'{shown}' says: {text!r}, not /{pattern}/"

    def fails_with(self, code, call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            assert error.errno == code, f"{call.__name__}: {error}, not {errno.errorcode[code]}"
            return
        raise AssertionError(f"{call.__name__} succeeded, {errno.errorcode[code]} is right")

    def every_port(self):
        for daemon in ["mds", *self.cluster.storage()]:
            host, port = self.cluster.address(daemon).rsplit(":", 1)
            yield daemon, (host, int(port))

    def log_grows(self, daemon, before, pattern):
        """The daemon says so in its log, within a while."""
        for _ in range(100):
            text = self.cluster.log(daemon)[before:]
            if re.search(pattern, text, re.I):
                return
            time.sleep(0.05)
        raise AssertionError(f"nothing like /{pattern}/ in the log of {daemon}: {text!r}")

    def send_raw(self, data, pattern, hang_up=False):
        """Sends bytes to every daemon's port: it closes the connection and logs why."""
        for daemon, address in self.every_port():
            before = len(self.cluster.log(daemon))
            with socket.create_connection(address, timeout=30) as peer:
                try:
                    peer.sendall(data)
                    if hang_up:
                        peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
            self.log_grows(daemon, before, pattern)

    def name(self):
        return raw_peer.cluster_name(self.cluster.key_file())

    def other_key(self):
        path = self.local / "other.key"
        if not path.exists():
            path.write_text(os.urandom(32).hex() + "\n")
            path.chmod(0o600)
        return path

    # The network.

    def case_frame_of_garbage(self):
        self.send_raw(random.Random(1).randbytes(4096), r"connection refused")

    def case_frame_of_http(self):
        self.send_raw(b"GET / HTTP/1.1\r\nHost: kdfs\r\n\r\n" + bytes(64), r"connection refused")

    def case_frame_without_a_handshake(self):
        self.send_raw(raw_peer.header(), r"connection refused")

    def case_handshake_truncated(self):
        """The first bytes of a TLS ClientHello, then nothing."""
        self.send_raw(bytes.fromhex("160301020001"), r"connection refused", hang_up=True)

    def send_in_tls(self, data, hang_up=False):
        """Sends bytes to every daemon under the right key; gives what each answered."""
        if shutil.which("openssl") is None:
            cluster.say("(without openssl this case is not tested)")
            return []
        cluster_id = self.name()
        return [(daemon, raw_peer.send(self.cluster.address(daemon), cluster_id,
                                       self.cluster.key_file(), data, hang_up))
                for daemon in ["mds", *self.cluster.storage()]]

    def case_version_wrong(self):
        before = {daemon: len(self.cluster.log(daemon)) for daemon in self.cluster.daemons()}
        cluster_id = self.name()
        for daemon, text in self.send_in_tls(raw_peer.hello(cluster_id, version=99)):
            assert "protocol version 99" in text, f"{daemon} answers {text!r}"
            self.log_grows(daemon, before[daemon], r"protocol version 99")

    def case_cluster_wrong(self):
        for daemon, text in self.send_in_tls(raw_peer.hello("another-cluster")):
            assert "another-cluster" in text, f"{daemon} answers {text!r}"

    def case_frame_truncated(self):
        greeting = raw_peer.hello(self.name())
        for cut in (1, 20, 63):
            self.send_in_tls(greeting + raw_peer.header()[:cut], hang_up=True)

    def case_frame_too_long(self):
        greeting = raw_peer.hello(self.name())
        before = {daemon: self.cluster.resident_kib(daemon) for daemon in self.cluster.daemons()}
        frame = raw_peer.header(body_bytes=0xFFFFFFFF, payload_bytes=0xFFFFFFFF)
        self.send_in_tls(greeting + frame + bytes(100_000))
        for daemon, resident in before.items():
            grown = self.cluster.resident_kib(daemon) - resident
            assert grown < 64 * 1024, f"{daemon} grew by {grown} KiB"

    def case_frame_with_wrong_seal(self):
        greeting = raw_peer.hello(self.name())
        self.send_in_tls(greeting + raw_peer.header() * 3)

    def case_frame_of_another_version(self):
        greeting = raw_peer.hello(self.name())
        self.send_in_tls(greeting + raw_peer.header(version=99))

    def case_many_silent_connections(self):
        peers = []
        for _, address in self.every_port():
            peers += [socket.create_connection(address, timeout=30) for _ in range(60)]
        assert self.cluster.status()["health"] == "healthy"
        for peer in peers:
            peer.close()

    # Keys and clusters.

    def case_key_wrong_for_the_tool(self):
        before = len(self.cluster.log("mds"))
        self.refused(["status", "--mds", self.cluster.mds_address(), "--cluster-key",
                      self.other_key()], r"key|authentic")
        self.log_grows("mds", before, r"refus|key|authentic")

    def case_key_wrong_for_a_mount(self):
        path = self.local / "no-mount"
        path.mkdir()
        self.program_refused(
            ["kdfs-fuse", "--mds", self.cluster.mds_address(), "--cluster-key", self.other_key(),
             "--mount", path, "--foreground"], r"key|authentic")
        assert not os.path.ismount(path)

    def case_key_wrong_for_a_storage_daemon(self):
        """It is refused by the manager, says so in its log, and never serves."""
        log = self.local / "stray.log"
        folder = self.local / "stray"
        folder.mkdir()
        with open(log, "wb") as out:
            stray = subprocess.Popen(
                [cluster.program("kdfs-storage"), "--name", "stray", "--node-id", "9",
                 "--manager", self.cluster.mds_address(), "--listen", "127.0.0.1:0",
                 "--cluster-key", self.other_key(), "--dir", folder / "t9", "--target-id", "9"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            for _ in range(200):
                if re.search(r"key|authentic|refus", log.read_text(errors="replace"), re.I):
                    break
                time.sleep(0.05)
            else:
                raise AssertionError(f"the stray daemon's log: {log.read_text()!r}")
            assert len(self.cluster.status()["nodes"]) == self.cluster.nodes
        finally:
            stray.kill()
            stray.wait()

    def case_key_missing(self):
        self.refused(["status", "--mds", self.cluster.mds_address(), "--cluster-key",
                      self.local / "nothing"], r"nothing.*(no such file|not found)")

    def case_key_readable_by_others(self):
        path = self.local / "open.key"
        shutil.copy(self.cluster.key_file(), path)
        path.chmod(0o644)
        self.refused(["status", "--mds", self.cluster.mds_address(), "--cluster-key", path],
                     r"open\.key.*chmod 600")

    def case_key_too_short(self):
        path = self.local / "short.key"
        path.write_bytes(b"short")
        path.chmod(0o600)
        self.refused(["status", "--mds", self.cluster.mds_address(), "--cluster-key", path],
                     r"short\.key.*64 hex")

    def case_state_of_another_cluster(self):
        """A target's directory moved into another cluster is refused, naming it; nothing of it
        is changed."""
        other = cluster.Cluster(nodes=1, replicas=1)
        try:
            other.up()
            other.down()
            target = other.state / "storage-1" / "t1"
            assert target.is_dir(), f"{target} is not where targets are"
            shutil.rmtree(target)
            self.cluster.down()
            shutil.copytree(self.state / "storage-1" / "t1", target)
            self.cluster.up()
            self.pids = self.cluster.pids()
            done = other.kdfs("up", "--dir", other.state, "--timeout", 10, check=False)
            text = done.stdout + done.stderr
            self.expect(done.returncode, text, r"cluster", None, ["kdfs", "up"])
            assert re.search(r"another cluster|WrongCluster|belongs to", text), text
        finally:
            other.close(failed=True)

    # Directories and mount points.

    def case_mount_point_in_use(self):
        self.refused(["up", "--dir", self.local / "s1", "--mount", self.mount],
                     r"in use|mounted there")

    def case_mount_point_not_a_directory(self):
        path = self.local / "plain"
        path.write_text("")
        self.refused(["up", "--dir", self.local / "s2", "--mount", path], r"plain.*not a directory")

    def case_mount_point_not_empty(self):
        path = self.local / "full"
        path.mkdir()
        (path / "file").write_text("")
        self.refused(["up", "--dir", self.local / "s3", "--mount", path], r"full.*has files")

    def case_mount_point_of_another_mount_daemon(self):
        self.program_refused(
            ["kdfs-fuse", "--mds", self.cluster.mds_address(), "--cluster-key",
             self.cluster.key_file(), "--mount", self.local / "nowhere", "--foreground"],
            r"nowhere")

    def case_state_not_ours(self):
        path = self.local / "foreign"
        path.mkdir()
        (path / "letter").write_text("")
        self.refused(["up", "--dir", path, "--mount", self.local / "m4"], r"foreign.*not empty")

    def case_state_missing(self):
        for command in ("down", "status"):
            self.refused([command, "--dir", self.local / "absent"], r"no cluster in.*absent")

    def case_state_damaged(self):
        path = self.local / "damaged"
        path.mkdir()
        (path / "kdfs.json").write_text("{")
        self.refused(["up", "--dir", path, "--mount", self.local / "m5"], r"damaged.*is damaged")

    def case_port_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refused(["up", "--dir", self.local / "s6", "--mount", self.local / "m6",
                          "--port", min(port, 65000)], rf"port {port}.*taken")
        assert not os.path.ismount(self.local / "m6")
        assert not cluster.processes_of(self.local / "s6")

    # Names and values.

    def case_name_of_256_bytes(self):
        long_name = "n" * 256
        (self.mount / ("n" * 255)).write_text("fits")
        (self.mount / ("n" * 255)).unlink()
        self.fails_with(errno.ENAMETOOLONG, (self.mount / long_name).write_text, "")
        self.fails_with(errno.ENAMETOOLONG, os.mkdir, self.mount / long_name)
        self.fails_with(errno.ENAMETOOLONG, os.lstat, self.mount / long_name)
        self.fails_with(errno.ENAMETOOLONG, os.symlink, "x", self.mount / long_name)
        (self.mount / "short").write_text("")
        self.fails_with(errno.ENAMETOOLONG, os.rename, self.mount / "short",
                        self.mount / long_name)
        self.fails_with(errno.ENAMETOOLONG, os.link, self.mount / "short", self.mount / long_name)
        (self.mount / "short").unlink()

    def case_policy(self):
        folder = self.mount / "policy"
        folder.mkdir()
        nonsense = ["chunk_size=0", "width=0", "replicas=0", "replicas=99", "chunk_size=12345",
                    "chunk_size=1T", "width=banana", "placement=sideways", "colour=blue", "width",
                    "replicas=-1", "chunk_size=99999999999999999999"]
        for word in nonsense:
            name = re.escape(word.split("=")[0])
            self.refused(["policy", "set", folder, word], name)
        self.refused(["policy", "get", "/proc"], r"/proc")
        self.cluster.kdfs("policy", "get", folder)
        for name, value in [("kdfs.replicas", b"0"), ("kdfs.chunk_size", b"x"),
                            ("kdfs.width", b"0"), ("kdfs.placement", b"sideways")]:
            self.fails_with(errno.EINVAL, os.setxattr, folder, name, value)

    # The command line.

    def case_arguments(self):
        unknown = [["frobnicate"], ["statu"], ["status", "--frobnicate"], ["up", "--nodes"],
                   ["up", "--dir", self.local / "s7", "--mount", self.local / "m7", "--nodes", "0"],
                   ["up", "--dir", self.local / "s7", "--mount", self.local / "m7",
                    "--replicas", "4"],
                   ["up", "--dir", self.local / "s7", "--mount", self.local / "m7",
                    "--nodes", "three"],
                   ["up", "--dir", self.local / "s7"], ["where"], ["policy", "frob", "x"],
                   ["down", "extra", "--dir", self.state]]
        for words in unknown:
            self.refused(words, r"^kdfs: \S", USAGE)
        self.refused(["frobnicate"], r"frobnicate")
        self.refused(["statu"], r"did you mean.*status")
        self.refused(["where", self.mount / "not there"], r"not there")
        assert not (self.local / "s7").exists(), "a refused kdfs up left a state directory"
        self.refused(["up", "--dir", self.state, "--nodes", "5"], r"made with --nodes 3")

    def case_arguments_of_daemons(self):
        for name in ("kdfs-mds", "kdfs-storage", "kdfs-fuse"):
            self.program_refused([name, "--frobnicate"], r"frobnicate")
            self.program_refused([name], r"--[a-z-]+")

    def case_help_is_no_error(self):
        for words in (["--help"], ["up", "--help"], ["down", "--help"], ["status", "--help"],
                      ["where", "--help"], ["policy", "--help"], ["doctor", "--help"],
                      ["fsck", "--help"], ["help"], ["version"]):
            assert self.cluster.kdfs(*words).stdout.strip(), f"kdfs {words} says nothing"


def test(test_cluster):
    BadInput(test_cluster).run()
    assert test_cluster.wait_healthy() < 60
    assert Path(test_cluster.mount).is_mount()


if __name__ == "__main__":
    cluster.run(test)
