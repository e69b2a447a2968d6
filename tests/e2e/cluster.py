"""A kdfs cluster for one end-to-end test: brought up in a directory of its own, always taken away.

    def test(cluster):            # a Cluster that is up and healthy
        ...
    if __name__ == "__main__":
        cluster.run(test)

The programs are found in $KDFS_BIN_DIR. Exit status 0: passed; 1: failed, with the last lines of
each daemon's log; 77: skipped, because this machine cannot run it. KDFS_E2E_KEEP=1 keeps the
directory of a failed test. A guardian process takes everything away when the test is killed or
exceeds its time, since a test that hangs inside a mount cannot do it itself.
"""

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

SKIPPED = 77
# Below the TIMEOUT of ctest, so that a test that hangs still says where.
TEST_SECONDS_MAX = int(os.environ.get("KDFS_E2E_SECONDS_MAX", "280"))
LOG_LINES_SHOWN = 25
POLL_SECONDS = 0.05
PORT_TRIES = 20


class Skip(Exception):
    """This machine cannot run the test; the text says why."""


def bin_dir():
    folder = os.environ.get("KDFS_BIN_DIR")
    if not folder:
        folder = Path(__file__).resolve().parents[2] / "build/release/bin"
    return Path(folder)


def program(name):
    path = bin_dir() / name
    if not path.exists():
        raise AssertionError(f"{path} is not built; set KDFS_BIN_DIR or build the release preset")
    return str(path)


def require_tools(*names):
    for name in names:
        if shutil.which(name) is None:
            raise Skip(f"this machine has no {name}; tools/setup.sh installs it")


def require_fuse():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise Skip(f"/dev/fuse cannot be opened: {error.strerror}") from None
    if os.geteuid() != 0:
        require_tools("fusermount3")


def mounts_below(base):
    """Mount points at or below `base`, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = line.split(" ")[4].encode().decode("unicode_escape")
        if path == str(base) or path.startswith(f"{base}/"):
            found.append(path)
    return sorted(found, key=len, reverse=True)


def processes_of(base):
    """Processes of kdfs with a path below `base` on their command line: {pid: words}."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_ours = os.path.basename(words[0]).startswith(("kdfs", "mount.kdfs"))
            if is_ours and any(f"{base}/" in word for word in words):
                found[int(entry.name)] = [word for word in words if word]
    return found


def sweep(base):
    """Ends every process and mount below `base`, whatever state they are in."""
    for _ in range(3):
        for path in mounts_below(base):
            subprocess.run(["umount", "-f", path], stderr=subprocess.DEVNULL, check=False)
            if path in mounts_below(base):
                subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
        for pid in processes_of(base):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not mounts_below(base) and not processes_of(base):
            return
        time.sleep(POLL_SECONDS)


def show_logs(state, out=sys.stderr):
    for log in sorted(Path(state).glob("log/*.log")):
        lines = log.read_text(errors="replace").splitlines()
        print(f"--- {log.name}, the last of {len(lines)} lines", file=out)
        for line in lines[-LOG_LINES_SHOWN:]:
            print(f"    {line[:400]}", file=out)
    out.flush()


def start_guardian(base, seconds):
    """A process outside our tree that sweeps `base` when we are gone or take too long. Closing the
    returned descriptor ends it."""
    reader, writer = os.pipe()
    test_pid = os.getpid()
    child = os.fork()
    if child != 0:
        os.close(reader)
        os.waitpid(child, 0)
        return writer
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.close(writer)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        ended_in_time = _read_to_end(reader)
        if not ended_in_time:
            print(f"the test was not done after {seconds} s and is ended", file=sys.stderr)
            _show_stacks(test_pid)
            for state in Path(base).glob("*/kdfs.json"):
                show_logs(state.parent)
            with contextlib.suppress(ProcessLookupError):
                os.kill(test_pid, signal.SIGKILL)
        sweep(base)
        if not os.environ.get("KDFS_E2E_KEEP"):
            shutil.rmtree(base, ignore_errors=True)
    finally:
        os._exit(0)


def _read_to_end(reader):
    def interrupted(*_):
        raise InterruptedError

    signal.signal(signal.SIGALRM, interrupted)
    try:
        os.read(reader, 1)
        return True
    except InterruptedError:
        return False


def _show_stacks(pid):
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            where = (task / "stack").read_text().splitlines()[:4]
            print(f"    thread {task.name} ({name}): {' < '.join(where)}", file=sys.stderr)


def fixed_ports(count):
    """The first of `count` free ports that the system gives to nobody by itself: a daemon that is
    away for a while finds its own free again."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for base in random.sample(range(10_000, first_given - count), PORT_TRIES):
        sockets = []
        try:
            for port in range(base, base + count):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return base
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError(f"no {count} free ports in {PORT_TRIES} tries")


class Cluster:
    """`base` holds the state directory `state`, the mount point `mount`, and the test's own files
    in `local`. Daemons are named as their pid files: mds, storage-1 ..., mount."""

    def __init__(self, nodes=3, replicas=2, targets_per_node=1, port=0):
        require_fuse()
        parent = os.environ.get("KDFS_E2E_DIR", "/var/tmp")
        self.base = Path(tempfile.mkdtemp(prefix="kdfs-e2e-", dir=parent))
        self.state = self.base / "state"
        self.mount = self.base / "mnt"
        self.local = self.base / "local"
        self.local.mkdir()
        self.nodes = nodes
        self.replicas = replicas
        self.targets_per_node = targets_per_node
        self.port = port
        self._guardian = start_guardian(self.base, TEST_SECONDS_MAX)

    # What a user does.

    def kdfs(self, *words, check=True, seconds=120):
        """Runs the kdfs command; gives its CompletedProcess with text output."""
        done = subprocess.run(
            [program("kdfs"), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"kdfs {' '.join(map(str, words))}: exit status {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def up(self):
        """Starts what does not run. Gives the seconds until it returned."""
        begin = time.monotonic()
        self.kdfs(
            *("up", "--dir", self.state, "--mount", self.mount),
            *("--nodes", self.nodes, "--replicas", self.replicas),
            *("--targets-per-node", self.targets_per_node, "--timeout", 60),
            *(("--port", self.port) if self.port else ()),
        )
        return time.monotonic() - begin

    def down(self):
        self.kdfs("down", "--dir", self.state)

    def status(self):
        """`kdfs status --json` as an object; health is "unreachable" without an MDS."""
        done = self.kdfs("status", "--dir", self.state, "--json", check=False)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            raise AssertionError(f"kdfs status gives no JSON: {done.stdout}{done.stderr}") from None

    def wait_healthy(self, seconds=120):
        """Waits until every chunk has all its copies again. Gives the seconds it took."""
        begin = time.monotonic()
        while True:
            status = self.status()
            chains = status.get("chains", {})
            if status["health"] == "healthy" and chains["complete"] == chains["total"]:
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                problems = json.dumps(status.get("problems"), indent=1)
                raise AssertionError(f"still {status['health']} after {seconds} s: {problems}")
            time.sleep(POLL_SECONDS)

    def mds_address(self):
        return (self.state / "mds/address").read_text().strip()

    def address(self, daemon):
        return (self.state / daemon / "address").read_text().strip()

    def key_file(self):
        return self.state / "cluster.key"

    def second_mount(self, name="mnt2", options=()):
        """Mounts the cluster once more, at `base`/`name`, with more `options` of kdfs-fuse; gives
        the path. Ends with the cluster."""
        path = self.base / name
        path.mkdir(exist_ok=True)
        log = open(self.state / f"log/{name}.log", "ab")
        words = ["--mds", self.mds_address(), "--cluster-key", str(self.key_file())]
        words += ["--mount", str(path), "--node-name", "storage-2", "--foreground", *options]
        process = subprocess.Popen(
            [program("kdfs-fuse"), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        begin = time.monotonic()
        while not os.path.ismount(path):
            if process.poll() is not None or time.monotonic() - begin > 30:
                raise AssertionError(f"the second mount at {path} did not appear")
            time.sleep(POLL_SECONDS)
        return path

    # What happens to a daemon.

    def pid(self, daemon):
        text = (self.state / f"run/{daemon}.pid").read_text()
        return int(text.split()[0])

    def pids(self):
        return {daemon: self.pid(daemon) for daemon in self.daemons()}

    def is_running(self, daemon):
        try:
            words = Path(f"/proc/{self.pid(daemon)}/stat").read_text().rsplit(")", 1)[1].split()
            # A first thread that has ended is a zombie, however many others still end.
            return words[0] != "Z" or int(words[17]) > 1
        except OSError:
            return False

    def kill(self, daemon):
        """kill -9, and waits until the process is gone."""
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        while self.is_running(daemon):
            time.sleep(0.005)

    def resident_kib(self, daemon, peak=False):
        text = Path(f"/proc/{self.pid(daemon)}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)" if peak else r"VmRSS:\s+(\d+)", text)[1])

    def daemons(self):
        return ["mds", *self.storage(), "mount"]

    def storage(self):
        return [f"storage-{i + 1}" for i in range(self.nodes)]

    def fsck(self):
        self.kdfs("fsck", "--dir", self.state)

    def log(self, daemon):
        return (self.state / f"log/{daemon}.log").read_text(errors="replace")

    # The end.

    def _end(self):
        self.kdfs("down", "--dir", self.state, check=False)

    def close(self, failed):
        if failed:
            show_logs(self.state)
        else:
            self._end()
        left = list(processes_of(self.base).values()) + mounts_below(self.base)
        sweep(self.base)
        os.close(self._guardian)
        if failed and os.environ.get("KDFS_E2E_KEEP"):
            print(f"kept: {self.base}", file=sys.stderr)
        else:
            shutil.rmtree(self.base, ignore_errors=True)
        if left and not failed:
            raise AssertionError(f"kdfs down left behind: {left}")


class Probe:
    """Writes, syncs, reads and stats a small file in `folder` over and over on a thread, and
    remembers the longest such turn: what an application feels of a failure."""

    PAUSE_SECONDS = 0.02

    def __init__(self, folder):
        self._folder = Path(folder)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error = None
        self.turns = 0
        self.longest = 0.0

    def __enter__(self):
        self._folder.mkdir(exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        if kind is None:
            self._thread.join(60)
            if self._thread.is_alive():
                raise AssertionError("the probe hangs in the mount")
            if self.error:
                raise AssertionError(f"the probe saw an error: {self.error}")

    def _run(self):
        try:
            while not self._stop.wait(self.PAUSE_SECONDS):
                begin = time.monotonic()
                self._turn()
                self.turns += 1
                self.longest = max(self.longest, time.monotonic() - begin)
        except (OSError, AssertionError) as error:
            self.error = error

    def _turn(self):
        path = self._folder / f"probe-{self.turns % 16}"
        data = os.urandom(64) * 64
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.stat().st_size != len(data) or path.read_bytes() != data:
            raise AssertionError(f"{path} does not hold what was written to it")


def say(text):
    """A line of the test's report, with the seconds since it began."""
    print(f"{time.monotonic() - _begin:7.1f}  {text}", flush=True)


def note(name, value):
    """A measured figure, one per line, so that it can be found in ctest's log."""
    say(f"{name}: {value}")


def run(test, **cluster_options):
    """Runs test(cluster) on a fresh, healthy cluster and exits with the test's status."""
    run_bare(lambda cluster: (cluster.up(), cluster.wait_healthy(), test(cluster)),
             **cluster_options)


def run_bare(test, make=Cluster, **cluster_options):
    """As run(), but the cluster is not up yet; `make` makes it."""
    cluster = None
    failed = True
    try:
        cluster = make(**cluster_options)
        test(cluster)
        failed = False
        cluster.close(failed=False)
    except Skip as reason:
        print(f"SKIP {reason}")
        if cluster:
            cluster.close(failed=False)
        sys.exit(SKIPPED)
    except (Exception, KeyboardInterrupt):
        traceback.print_exc()
        if cluster and failed:
            cluster.close(failed=True)
        _leave(1)
    say("passed")
    _leave(0)


def _leave(status):
    """Not sys.exit: a thread that still waits in a dead mount must not keep us."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


_begin = time.monotonic()
