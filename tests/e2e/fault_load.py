"""The load of the fault loops, and what it may find afterwards.

Workers write through a mount and keep a manifest on the local disk, outside it: what they are about
to change before they change it, and what was synced only after fsync returned. check_synced.py
judges a mount by these manifests. A worker also reads its own writes back at once.

A manifest of BlockWriter, of files FOLDER/NAME made of equal blocks:
    file NAME BLOCK_BYTES    the file exists and is durable with its name
    w NAME BLOCK VERSION     about to write this version of this block
    s NAME                   fsync returned: what was written since the last `e` is durable
    e NAME                   a write or fsync failed: anything not synced may have landed or not
A manifest of NameWriter, of whole files:
    begin PATH               about to make, overwrite or remove it
    is PATH DIGEST           it was made durable with this content
    gone PATH                its removal was made durable
"""

import errno
import hashlib
import multiprocessing
import os
import random
import time

HANG_SECONDS = 10
FILE_SIZES = [0, 100, 4096, 50_000, 1_500_000]
BLOCK_SIZES = [512, 4096, 100_003, 1 << 20]
BLOCKS = 12
KEPT_FILES = 60
PAUSE_SECONDS = 0.004
# What a mount that was killed, or lost its session, may answer with; the kernel ends requests over
# io_uring with ECANCELED.
MOUNT_ERRORS = {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED, errno.ENOENT,
                errno.ESTALE}


def block_bytes(name, block, version, size):
    """What version `version` of a block holds; version 0 is what was never written: zeros."""
    if version == 0:
        return bytes(size)
    return hashlib.shake_128(f"{name}/{block}/{version}".encode()).digest(size)


def wrong_byte(got, name, block, versions):
    """The first offset in `got` that no version of `versions` explains; None if there is none. A
    crash may leave a mixture of the versions that were not synced yet."""
    candidates = [block_bytes(name, block, version, len(got)) for version in versions]
    if got in candidates:
        return None
    for offset, byte in enumerate(got):
        if all(candidate[offset] != byte for candidate in candidates):
            return offset
    return None


class Block:
    """Versions of one block: `floor` was synced, `written` was written since the last error,
    `begun` is the newest that may be there."""

    def __init__(self):
        self.floor = 0
        self.written = 0
        self.begun = 0

    def begin(self):
        self.begun += 1
        return self.begun

    def synced(self):
        self.floor = max(self.floor, self.written)

    def failed(self):
        self.written = 0

    def allowed(self):
        return range(self.floor, self.begun + 1)

    def expected(self):
        """The versions its writer may read back: only the newest, unless a write failed."""
        if self.written == self.begun:
            return range(self.begun, self.begun + 1)
        return self.allowed()


class Board:
    """What a worker shows to the test: how far it is, its longest wait after the faults healed, and
    since when its current operation runs (0: none)."""

    def __init__(self):
        self.steps = multiprocessing.Value("Q", 0)
        self.longest = multiprocessing.Value("d", 0.0)
        self.since = multiprocessing.Value("d", 0.0)
        self.errors = multiprocessing.Value("Q", 0)


class Worker:
    """One process of load. `control` is shared by all of them, see Load."""

    def __init__(self, folder, manifest, seed, control):
        self._folder = folder
        self._manifest = open(manifest, "a")
        self._rng = random.Random(seed)
        self._control = control
        self._board = Board()

    def run(self, board):
        self._board = board
        while not self._control.stop.is_set():
            try:
                self._step()
                board.steps.value += 1
            except OSError as error:
                board.since.value = 0.0
                if not self._may_fail() or error.errno not in MOUNT_ERRORS:
                    raise
                board.errors.value += 1
                self._failed()
                self._say(f"# {error}")
                time.sleep(0.05)
            time.sleep(PAUSE_SECONDS)

    def _may_fail(self):
        return bool(self._control.errors_allowed.value)

    def _timed(self, call, *arguments):
        """Runs one operation on the mount, and keeps how long it took since the faults healed."""
        begin = time.monotonic()
        self._board.since.value = begin
        try:
            return call(*arguments)
        finally:
            end = time.monotonic()
            self._board.since.value = 0.0
            waited = end - max(begin, self._control.healed_at.value)
            self._board.longest.value = max(self._board.longest.value, waited)

    def _say(self, line):
        self._manifest.write(f"{line}\n")
        self._manifest.flush()

    def _sync_folder(self):
        fd = self._timed(os.open, self._folder, os.O_RDONLY)
        try:
            self._timed(os.fsync, fd)
        finally:
            os.close(fd)

    def _failed(self):
        pass


class BlockWriter(Worker):
    """Overwrites blocks of some files, syncs now and then, and reads its own blocks back.

    What the mount lost it says at writes and closes of the file until an fsync has said it, however
    late that is; a read before that shows what is there."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._blocks = {}
        self._sizes = {}
        self._open = {}
        self._name = None  # of the file in use
        self._may_have_lost = set()

    def _may_fail(self):
        return super()._may_fail() or self._name in self._may_have_lost

    def _failed(self):
        for name in sorted(self._sizes):
            self._lost(name)
        for fd in self._open.values():
            try:
                os.close(fd)
            except OSError:
                pass  # Reports a lost write once more; the file counts as failed already.
        self._open.clear()

    def _lost(self, name):
        self._say(f"e {name}")
        for block in self._blocks[name]:
            block.failed()

    def _step(self):
        if len(self._sizes) < len(BLOCK_SIZES):
            return self._create()
        name = self._rng.choice(sorted(self._sizes))
        self._name = name
        if super()._may_fail():
            self._may_have_lost.update(self._sizes)
        kind = self._rng.random()
        if kind < 0.55:
            return self._write(name)
        if kind < 0.8:
            return self._sync(name)
        if kind < 0.97:
            return self._read(name)
        return self._reopen(name)

    def _fd(self, name):
        if name not in self._open:
            self._open[name] = self._timed(os.open, f"{self._folder}/{name}", os.O_RDWR)
        return self._open[name]

    def _create(self):
        name = f"blocks-{len(self._sizes)}"
        size = BLOCK_SIZES[len(self._sizes)]
        fd = self._timed(os.open, f"{self._folder}/{name}", os.O_RDWR | os.O_CREAT)
        self._timed(os.fsync, fd)
        self._sync_folder()
        self._open[name] = fd
        self._say(f"file {name} {size}")
        self._sizes[name] = size
        self._blocks[name] = [Block() for _ in range(BLOCKS)]

    def _write(self, name):
        fd = self._fd(name)
        number = self._rng.randrange(BLOCKS)
        block = self._blocks[name][number]
        version = block.begin()
        self._say(f"w {name} {number} {version}")
        size = self._sizes[name]
        data = block_bytes(name, number, version, size)
        done = 0
        while done < size:
            done += self._timed(os.pwrite, fd, data[done:], number * size + done)
        block.written = version

    def _sync(self, name):
        self._timed(self._rng.choice([os.fsync, os.fsync, os.fdatasync]), self._fd(name))
        self._say(f"s {name}")
        for block in self._blocks[name]:
            block.synced()
        if not super()._may_fail():
            self._may_have_lost.discard(name)

    def _read(self, name):
        number = self._rng.randrange(BLOCKS)
        block = self._blocks[name][number]
        size = self._sizes[name]
        got = self._timed(os.pread, self._fd(name), size, number * size)
        got += bytes(size - len(got))
        lost = super()._may_fail() or name in self._may_have_lost
        versions = block.allowed() if lost else block.expected()
        bad = wrong_byte(got, name, number, versions)
        assert bad is None, (
            f"{self._folder}/{name}: block {number} read back wrong at byte {bad} of the block; "
            f"versions {list(versions)} are right")

    def _reopen(self, name):
        fd = self._open.pop(name, None)
        if fd is not None:
            self._timed(os.close, fd)


class NameWriter(Worker):
    """Creates, overwrites, renames and removes files, each change synced."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._number = 0
        self._files = []

    def _step(self):
        kind = self._rng.random()
        if kind < 0.15 and len(self._files) > 5:
            self._remove(self._rng.choice(self._files))
        elif kind < 0.35 and self._files:
            self._overwrite(self._rng.choice(self._files))
        else:
            self._create()
        if len(self._files) > KEPT_FILES:
            self._remove(self._files[0])

    def _create(self):
        self._number += 1
        path = f"{self._folder}/{self._number}"
        data = self._rng.randbytes(self._rng.choice(FILE_SIZES))
        self._say(f"begin {path}")
        self._timed(self._put, path, data)
        self._sync_folder()
        self._files.append(path)
        self._say(f"is {path} {hashlib.sha256(data).hexdigest()}")

    @staticmethod
    def _put(path, data):
        with open(f"{path}.new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)

    def _overwrite(self, path):
        self._say(f"begin {path}")
        data = self._rng.randbytes(self._rng.choice(FILE_SIZES[1:]))
        digest = self._timed(self._change, path, data)
        self._say(f"is {path} {digest}")

    def _change(self, path, data):
        with open(path, "r+b") as file:
            offset = self._rng.randrange(os.fstat(file.fileno()).st_size + 1)
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return hashlib.sha256(file.read()).hexdigest()

    def _remove(self, path):
        self._say(f"begin {path}")
        self._files.remove(path)
        self._timed(os.unlink, path)
        self._sync_folder()
        self._say(f"gone {path}")


class Control:
    def __init__(self):
        self.stop = multiprocessing.Event()
        self.errors_allowed = multiprocessing.Value("b", 0)
        self.healed_at = multiprocessing.Value("d", 0.0)


def _work(kind, arguments, board):
    kind(*arguments).run(board)


class Load:
    """Two workers of each kind on `mount`; manifests in `local`."""

    def __init__(self, mount, local, seed):
        self.control = Control()
        self.manifests = []
        self.longest = 0.0
        self._boards = []
        self._workers = []
        for number, kind in enumerate([BlockWriter, BlockWriter, NameWriter]):
            folder = f"{mount}/{kind.__name__}-{number}"
            os.mkdir(folder)
            manifest = f"{local}/{kind.__name__}-{number}"
            self.manifests.append(manifest)
            board = Board()
            arguments = (folder, manifest, f"{seed}-{number}", self.control)
            worker = multiprocessing.Process(target=_work, args=(kind, arguments, board),
                                             daemon=True)
            worker.start()
            self._boards.append(board)
            self._workers.append(worker)

    def allow_errors(self, allowed):
        self.control.errors_allowed.value = 1 if allowed else 0

    def check(self):
        for worker in self._workers:
            assert worker.exitcode is None, "a worker failed on the mount (above)"

    def steps(self):
        return sum(board.steps.value for board in self._boards)

    def errors(self):
        return sum(board.errors.value for board in self._boards)

    def break_now(self):
        """A fault begins: until healed() nobody's wait counts."""
        self.control.healed_at.value = float("inf")

    def healed(self):
        """The fault ends now: from here on every operation has to end within HANG_SECONDS."""
        for board in self._boards:
            board.longest.value = 0.0
        self.control.healed_at.value = time.monotonic()

    def wait_progress(self):
        """Waits until each worker has done something that began after healed(), and gives the
        longest wait of any operation since."""
        wanted = [board.steps.value + 2 for board in self._boards]
        healed_at = self.control.healed_at.value
        while True:
            self.check()
            now = time.monotonic()
            waits = [now - max(board.since.value, healed_at) for board in self._boards
                     if board.since.value]
            worst = max([0.0, *waits, *(board.longest.value for board in self._boards)])
            assert worst <= HANG_SECONDS, (
                f"an operation still waits or waited {worst:.1f} s after the fault had healed")
            if all(b.steps.value >= want for b, want in zip(self._boards, wanted, strict=True)):
                self.longest = max(self.longest, worst)
                return worst
            time.sleep(0.02)

    def end(self):
        self.control.stop.set()
        for worker in self._workers:
            worker.join(60)
            assert worker.exitcode == 0, f"a worker ended with {worker.exitcode}"
