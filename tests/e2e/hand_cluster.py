"""A cluster whose daemons are started one by one, as on several machines (docs/operations.md).

With `net`, each daemon and each mount lives in a network namespace of its own; all hang on one
bridge in a further namespace, where the kdfs command runs too. cut() drops packets between two of
them. Directories may be given before the daemons start, for file systems of their own."""

import contextlib
import os
import secrets
import signal
import subprocess
import time

import cluster
from cluster import POLL_SECONDS, Cluster, Skip, program, require_tools

HUB = "hub"
START_SECONDS = 30


def call(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr.strip()}"
    return done.stdout


class Net:
    """The namespaces, named after the directory of the test: each has the address 10.77.0.N."""

    def __init__(self, base, places):
        require_tools("ip", "nft", "nsenter")
        self._prefix = base.name
        self._addresses = {}
        try:
            self._make(HUB)
            self._in_hub("ip", "link", "add", "br0", "type", "bridge")
            self._in_hub("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
            self._in_hub("ip", "link", "set", "br0", "up")
            self._addresses[HUB] = "10.77.0.1"
            for number, place in enumerate(places):
                self._join(place, number + 2)
        except AssertionError as error:
            self.close()
            raise Skip(f"network namespaces cannot be made here: {error}") from None

    def _name(self, place):
        return f"{self._prefix}-{place}"

    def _make(self, place):
        call("ip", "netns", "add", self._name(place))
        call(*self.enter(place), "ip", "link", "set", "lo", "up")

    def _in_hub(self, *words):
        call(*self.enter(HUB), *words)

    def _join(self, place, number):
        self._make(place)
        self._in_hub("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0",
                     "netns", self._name(place))
        self._in_hub("ip", "link", "set", f"v{number}", "master", "br0", "up")
        self._addresses[place] = f"10.77.0.{number}"
        call(*self.enter(place), "ip", "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        call(*self.enter(place), "ip", "link", "set", "eth0", "up")
        call(*self.enter(place), "nft", "add table inet kdfs; add chain inet kdfs in "
             "{ type filter hook input priority 0; }")

    def enter(self, place):
        """Only the network: mounts stay visible to the test."""
        return ["nsenter", f"--net=/run/netns/{self._name(place)}"]

    def address(self, place):
        return self._addresses[place]

    def cut(self, to, source):
        """Nothing of `source` arrives at `to` any more; the other way it does."""
        call(*self.enter(to), "nft", "add", "rule", "inet", "kdfs", "in", "ip", "saddr",
             self.address(source), "drop")

    def heal(self):
        for place in self._addresses:
            if place != HUB:
                call(*self.enter(place), "nft", "flush", "chain", "inet", "kdfs", "in")

    def close(self):
        for name in call("ip", "netns", "list").split("\n"):
            if name.startswith(f"{self._prefix}-"):
                subprocess.run(["ip", "netns", "del", name.split(" ")[0]], check=False)


class HandCluster(Cluster):
    """As Cluster; up() starts what does not run. Daemons are mds, storage-1 ..., mount; the second
    mount is mnt2. Options of a daemon's own: `options[daemon]`."""

    PORT = 7000

    def __init__(self, net=False, options=None, **sizes):
        if os.geteuid() != 0:
            raise Skip("namespaces and file systems of its own need root")
        super().__init__(**sizes)
        self.net = None
        self._listens = {}
        self.options = options or {}
        if net:
            self.net = Net(self.base, ["mds", *self.storage(), "mount", "mnt2"])
        for folder in ("log", "run"):
            (self.state / folder).mkdir(parents=True)
        self.prepare()
        for daemon in self.daemons()[:-1]:
            (self.state / daemon).mkdir(exist_ok=True)
        self.mount.mkdir()
        os.close(os.open(self.key_file(), os.O_WRONLY | os.O_CREAT, 0o600))
        self.key_file().write_text(secrets.token_hex(32))

    def prepare(self):
        """Before the directories of the daemons are made: a test may put them elsewhere."""

    def _place(self, daemon):
        return self.net.enter(daemon) if self.net else []

    def kdfs(self, *words, check=True, seconds=120):
        """The state directory is none that the command knows: the cluster is named otherwise."""
        words = list(words)
        at = words.index("--dir")
        words[at:at + 2] = ["--mds", self.mds_address(), "--cluster-key", self.key_file()]
        done = subprocess.run([*self._place(HUB), program("kdfs"), *map(str, words)],
                              capture_output=True, text=True, timeout=seconds, check=False,
                              stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise AssertionError(f"kdfs {words}: exit status {done.returncode}\n{done.stdout}"
                                 f"{done.stderr}")
        return done

    def start(self, daemon, name, words):
        with open(self.state / f"log/{daemon}.log", "ab") as log:
            process = subprocess.Popen([*self._place(daemon), program(name), *map(str, words)],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        (self.state / f"run/{daemon}.pid").write_text(f"{process.pid}\n")
        return process

    def start_mds(self):
        (self.state / "mds/address").unlink(missing_ok=True)
        self.start("mds", "kdfs-mds", [
            "--dir", self.state / "mds", "--listen", self._listen("mds"), "--cluster-key",
            self.key_file(), "--expected-nodes", self.nodes, "--replicas", self.replicas,
            *self.options.get("mds", [])])
        self._wait(lambda: self._has_address("mds"), "mds")

    def _listen(self, daemon):
        """Where it was before, if it was: the others look for it there."""
        if daemon in self._listens:
            return self._listens[daemon]
        return f"{self.net.address(daemon)}:{self.PORT}" if self.net else "127.0.0.1:0"

    def _has_address(self, daemon):
        path = self.state / daemon / "address"
        if not path.exists() or not path.read_text().strip():
            return False
        self._listens[daemon] = path.read_text().strip()
        return True

    def start_storage(self, daemon):
        number = int(daemon.split("-")[1])
        (self.state / daemon / "address").unlink(missing_ok=True)
        self.start(daemon, "kdfs-storage", [
            "--name", daemon, "--node-id", number, "--manager", self.mds_address(), "--listen",
            self._listen(daemon), "--cluster-key", self.key_file(),
            *(["--unix-listen", "none"] if self.net else []),
            "--dir", self.state / daemon / f"t{number}", "--target-id", number,
            *self.options.get(daemon, [])])
        self._wait(lambda: self._has_address(daemon), daemon)

    def start_mount(self, daemon="mount", path=None):
        path = path or self.mount
        path.mkdir(exist_ok=True)
        process = self.start(daemon, "kdfs-fuse", [
            "--mds", self.mds_address(), "--cluster-key", self.key_file(), "--mount", path,
            "--node-name", daemon, "--foreground"])
        self._wait(lambda: process.poll() is not None or os.path.ismount(path), daemon)
        assert process.poll() is None, f"{daemon} ended at its start"
        return path

    def second_mount(self, name="mnt2", options=()):
        assert not options
        return self.start_mount(name, self.base / name)

    def _wait(self, condition, daemon):
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < START_SECONDS, f"{daemon} did not start"
            time.sleep(POLL_SECONDS)

    def runs(self, daemon):
        return (self.state / f"run/{daemon}.pid").exists() and self.is_running(daemon)

    def up(self):
        begin = time.monotonic()
        if not self.runs("mds"):
            self.start_mds()
        for daemon in self.storage():
            if not self.runs(daemon):
                self.start_storage(daemon)
        if not self.runs("mount"):
            subprocess.run(["umount", "-l", self.mount], stderr=subprocess.DEVNULL, check=False)
            self.wait_served()
            self.start_mount()
        return time.monotonic() - begin

    def wait_served(self):
        self._wait(lambda: self.status()["health"] in ("healthy", "degraded"), "a daemon")

    def down(self):
        for path in cluster.mounts_below(self.base):
            if path in (str(self.mount), str(self.base / "mnt2")):
                subprocess.run(["umount", path], check=True)
        for daemon in ("mnt2", *reversed(self.daemons())):
            if self.runs(daemon):
                self.end(daemon)

    def end(self, daemon, kind=signal.SIGTERM):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid(daemon), kind)
        self._wait(lambda: not self.is_running(daemon), f"the end of {daemon}")

    def _end(self):
        self.down()

    def close(self, failed):
        try:
            super().close(failed=failed)
        finally:
            if self.net:
                self.net.close()


def run(test, make=HandCluster, **how):
    """As cluster.run(), by hand."""
    cluster.run_bare(lambda hand: (hand.up(), hand.wait_healthy(), test(hand)), make=make, **how)
