#!/usr/bin/env python3
"""two_mounts.py [SEED [STEPS]]: two mounts of one cluster change one tree in random small steps.
After each step both must show the same, at once: content, size, times, names, links, attributes,
through paths, through files opened long before, and through mappings. Anything stale is a failure,
printed with the step and the seed."""

import errno
import mmap
import os
import random
import stat
import sys
from pathlib import Path

import cluster

STEPS = 3000
FILE_BYTES_MAX = 300_000
HELD_MAX = 8
NODES_MAX = 150
HISTORY = 12
WALK_EVERY = 400
PAGE = mmap.PAGESIZE


class Node:
    """What a file, directory or symbolic link of the tree has to look like."""

    def __init__(self, kind, mode=0o644):
        self.kind = kind  # "file", "folder" or "link"
        self.mode = mode
        self.data = bytearray()
        self.target = ""
        self.children = {}
        self.xattrs = {}
        self.links = 1
        self.mtime = None  # as the mount that changed it last saw it


class Held:
    """An open file, perhaps mapped, on one of the mounts."""

    def __init__(self, node, fd, mapping):
        self.node = node
        self.fd = fd
        self.mapping = mapping

    def close(self):
        if self.mapping is not None:
            self.mapping.close()
        os.close(self.fd)


def fails_with(code, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == code, f"{error}, not {errno.errorcode[code]}"
        return
    raise AssertionError(f"{call.__name__}{arguments} succeeded; {errno.errorcode[code]} is right")


def same_bytes(what, got, wanted):
    if got == wanted:
        return
    at = next((i for i in range(min(len(got), len(wanted))) if got[i] != wanted[i]),
              min(len(got), len(wanted)))
    raise AssertionError(f"{what}: {len(got)} bytes, {len(wanted)} are right; first difference at "
                         f"{at}: {bytes(got[at:at + 16])} instead of {bytes(wanted[at:at + 16])}")


class Checker:
    """Compares what a mount shows with the model."""

    def node(self, mount, path, node):
        full = f"{mount}/{path}"
        info = os.lstat(full)
        kind = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}[
            stat.S_IFMT(info.st_mode)]
        assert kind == node.kind, f"{full} is a {kind}, not a {node.kind}"
        if kind == "folder":
            assert sorted(os.listdir(full)) == sorted(node.children), (
                f"{full} lists {sorted(os.listdir(full))}, not {sorted(node.children)}")
            return
        assert info.st_nlink == node.links, f"{full}: {info.st_nlink} links, not {node.links}"
        if kind == "link":
            assert os.readlink(full) == node.target, f"{full} -> {os.readlink(full)}"
            return
        assert stat.S_IMODE(info.st_mode) == node.mode, f"{full}: mode {oct(info.st_mode)}"
        self._file(full, info, node)

    def _file(self, full, info, node):
        assert info.st_size == len(node.data), f"{full}: size {info.st_size}, not {len(node.data)}"
        assert node.mtime in (None, info.st_mtime_ns), (
            f"{full}: mtime {info.st_mtime_ns}, the writer saw {node.mtime}")
        with open(full, "rb") as file:
            same_bytes(full, file.read(), node.data)
        names = os.listxattr(full)
        got = {name: os.getxattr(full, name) for name in names if name.startswith("user.")}
        assert got == node.xattrs, f"{full}: attributes {got}, not {node.xattrs}"

    def held(self, where, held):
        node = held.node
        info = os.fstat(held.fd)
        assert info.st_size == len(node.data), (
            f"{where}: fstat gives size {info.st_size}, not {len(node.data)}")
        assert info.st_nlink == node.links, f"{where}: {info.st_nlink} links, not {node.links}"
        same_bytes(where, os.pread(held.fd, len(node.data) + 10, 0), node.data)
        if held.mapping is not None:
            # Whole pages beyond the end would be a SIGBUS.
            end = min(len(held.mapping), len(node.data))
            same_bytes(f"{where}, mapped", held.mapping[:end], node.data[:end])


class Game:
    """The tree, the two mounts, and the steps. A step changes the tree through one mount,
    `self.one`, and is then looked at through the other, `self.two`."""

    def __init__(self, mounts, seed):
        self.rng = random.Random(seed)
        self.mounts = mounts
        self.root = Node("folder")
        self.held = {mount: [] for mount in mounts}
        self.check = Checker()
        self.history = []
        self.counter = 0
        self.one, self.two = mounts

    # The tree.

    def all(self, kind=None):
        """[(path, node)] of every node below the root."""
        found = []
        todo = [("", self.root)]
        while todo:
            prefix, folder = todo.pop()
            for name in sorted(folder.children):
                node = folder.children[name]
                if kind in (None, node.kind):
                    found.append((prefix + name, node))
                if node.kind == "folder":
                    todo.append((f"{prefix}{name}/", node))
        return found

    def pick(self, kind=None):
        found = self.all(kind)
        return self.rng.choice(found) if found else (None, None)

    def pick_folder(self):
        return self.rng.choice([("", self.root), *self.all("folder")])

    def parent(self, path):
        node = self.root
        for name in path.split("/")[:-1]:
            node = node.children[name]
        return node

    def fresh_path(self):
        """A path that does not exist: a new name, or one that did exist before."""
        folder_path, folder = self.pick_folder()
        name = f"n{self.rng.randrange(60)}"
        while name in folder.children:
            self.counter += 1
            name = f"m{self.counter}"
        path = f"{folder_path}/{name}" if folder_path else name
        # Both kernels now know that it is not there.
        for mount in self.mounts:
            if self.rng.random() < 0.6:
                fails_with(errno.ENOENT, os.lstat, f"{mount}/{path}")
        return path

    def put(self, path, node):
        self.parent(path).children[path.rsplit("/", 1)[-1]] = node

    def take(self, path):
        return self.parent(path).children.pop(path.rsplit("/", 1)[-1])

    def bytes(self, most=20_000):
        return self.rng.randbytes(self.rng.choice([1, 10, 511, 4096, 5000, most]))

    # What a step ends with.

    def look(self, *paths):
        """Both mounts show these paths as they should be, the other mount first."""
        for mount in (self.two, self.one):
            for path in paths:
                node = self.parent(path).children.get(path.rsplit("/", 1)[-1])
                if node is None:
                    fails_with(errno.ENOENT, os.lstat, f"{mount}/{path}")
                else:
                    self.check.node(mount, path, node)
                folder = path.rsplit("/", 1)[0] if "/" in path else "."
                names = sorted(os.listdir(f"{mount}/{folder}"))
                wanted = sorted(self.parent(path).children)
                assert names == wanted, f"{mount}/{folder} lists {names}, not {wanted}"

    def look_at_held(self, node=None):
        for mount in (self.two, self.one):
            for held in self.held[mount]:
                if node in (None, held.node):
                    self.check.held(f"a file held open on {mount}", held)

    def written(self, path, node, fd):
        """After a change of a file's content, while it is still open."""
        node.mtime = os.fstat(fd).st_mtime_ns
        if self.rng.random() < 0.5:
            self.look(path)
            self.look_at_held(node)
            os.close(fd)
        else:
            os.close(fd)
            self.look(path)
            self.look_at_held(node)

    # The steps.

    def step_create(self):
        if len(self.all()) > NODES_MAX:
            return self.step_unlink()
        path = self.fresh_path()
        node = Node("file", self.rng.choice([0o644, 0o600, 0o755]))
        fd = os.open(f"{self.one}/{path}", os.O_RDWR | os.O_CREAT | os.O_EXCL, node.mode)
        self.put(path, node)
        if self.rng.random() < 0.8:
            node.data[:] = self.bytes()
            os.write(fd, node.data)
        self.written(path, node, fd)
        fails_with(errno.EEXIST, os.open, f"{self.two}/{path}", os.O_CREAT | os.O_EXCL)
        return f"create {path}, {len(node.data)} bytes"

    def step_write(self):
        path, node = self.pick("file")
        if node is None:
            return self.step_create()
        offset = self.rng.randrange(len(node.data) + 1)
        if self.rng.random() < 0.1:
            offset = self.rng.randrange(FILE_BYTES_MAX)
        data = self.bytes()
        fd = os.open(f"{self.one}/{path}", os.O_RDWR)
        os.pwrite(fd, data, offset)
        if len(node.data) < offset:
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset:offset + len(data)] = data
        self.written(path, node, fd)
        return f"write {path}, {len(data)} bytes at {offset}"

    def step_append(self):
        """Both append in turn, through files that stay open."""
        path, node = self.pick("file")
        if node is None or len(node.data) > FILE_BYTES_MAX:
            return self.step_truncate()
        fds = [os.open(f"{mount}/{path}", os.O_WRONLY | os.O_APPEND)
               for mount in (self.one, self.two)]
        for _ in range(self.rng.randrange(1, 4)):
            for fd in fds:
                data = self.bytes(2000)
                os.write(fd, data)
                node.data.extend(data)
        os.close(fds[0])
        self.written(path, node, fds[1])
        return f"append to {path} from both, now {len(node.data)} bytes"

    def step_truncate(self):
        path, node = self.pick("file")
        if node is None:
            return self.step_create()
        size = self.rng.choice([0, 1, PAGE, len(node.data) // 2, len(node.data) + 7000])
        fd = os.open(f"{self.one}/{path}", os.O_RDWR)
        if self.rng.random() < 0.3:
            size = 0
            os.close(fd)
            fd = os.open(f"{self.one}/{path}", os.O_RDWR | os.O_TRUNC)
        else:
            os.ftruncate(fd, size)
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))
        self.written(path, node, fd)
        return f"truncate {path} to {size}"

    def step_hold(self):
        path, node = self.pick("file")
        held = self.held[self.one]
        if len(held) >= HELD_MAX or (node is None and held):
            held.pop(self.rng.randrange(len(held))).close()
            return "close a held file"
        if node is None:
            return self.step_create()
        fd = os.open(f"{self.one}/{path}", os.O_RDONLY)
        mapping = None
        if len(node.data) > 0 and self.rng.random() < 0.6:
            mapping = mmap.mmap(fd, len(node.data), mmap.MAP_SHARED, mmap.PROT_READ)
        held.append(Held(node, fd, mapping))
        self.look_at_held(node)
        return f"hold {path} open{' and mapped' if mapping else ''}"

    def step_unlink(self):
        path, node = self.pick(self.rng.choice(["file", "link"]))
        if node is None:
            return self.step_mkdir()
        os.unlink(f"{self.one}/{path}")
        self.take(path)
        node.links -= 1
        self.look(path)
        self.look_at_held(node)
        return f"unlink {path}"

    def step_mkdir(self):
        path = self.fresh_path()
        os.mkdir(f"{self.one}/{path}")
        self.put(path, Node("folder"))
        self.look(path)
        fails_with(errno.EEXIST, os.mkdir, f"{self.two}/{path}")
        return f"mkdir {path}"

    def step_rmdir(self):
        path, node = self.pick("folder")
        if node is None:
            return self.step_mkdir()
        if node.children:
            fails_with(errno.ENOTEMPTY, os.rmdir, f"{self.one}/{path}")
            return f"rmdir of {path}, which is not empty"
        os.rmdir(f"{self.one}/{path}")
        self.take(path)
        self.look(path)
        return f"rmdir {path}"

    def step_rename(self):
        path, node = self.pick()
        if node is None:
            return self.step_create()
        to = self.fresh_path()
        if self.rng.random() < 0.3 and node.kind != "folder":
            to = self.pick(node.kind)[0]
        replaced = self.parent(to).children.get(to.rsplit("/", 1)[-1])
        if to == path or to.startswith(f"{path}/") or replaced is node:
            return self.step_write()
        os.rename(f"{self.one}/{path}", f"{self.one}/{to}")
        self.take(path)
        self.put(to, node)
        if replaced is not None:
            replaced.links -= 1
            self.look_at_held(replaced)
        self.look(path, to)
        return f"rename {path} to {to}{'' if replaced is None else ', which existed'}"

    def step_link(self):
        path, node = self.pick("file")
        if node is None:
            return self.step_create()
        to = self.fresh_path()
        os.link(f"{self.one}/{path}", f"{self.one}/{to}")
        node.links += 1
        self.put(to, node)
        self.look(path, to)
        self.look_at_held(node)
        return f"link {path} to {to}"

    def step_symlink(self):
        path = self.fresh_path()
        node = Node("link")
        node.target = f"target-{self.rng.randrange(1000)}"
        os.symlink(node.target, f"{self.one}/{path}")
        self.put(path, node)
        self.look(path)
        return f"symlink {path}"

    def step_attributes(self):
        path, node = self.pick("file")
        if node is None:
            return self.step_create()
        full = f"{self.one}/{path}"
        what = self.rng.choice(["chmod", "utime", "setxattr", "removexattr"])
        if what == "chmod":
            node.mode = self.rng.choice([0o644, 0o600, 0o755, 0o666])
            os.chmod(full, node.mode)
        elif what == "utime":
            node.mtime = self.rng.randrange(10**18, 2 * 10**18)
            os.utime(full, ns=(node.mtime, node.mtime))
        elif what == "setxattr" or not node.xattrs:
            name = f"user.x{self.rng.randrange(5)}"
            node.xattrs[name] = self.rng.randbytes(self.rng.randrange(1, 100))
            os.setxattr(full, name, node.xattrs[name])
        else:
            name = self.rng.choice(sorted(node.xattrs))
            os.removexattr(full, name)
            del node.xattrs[name]
        self.look(path)
        return f"{what} {path}"

    STEPS = {
        "create": 12, "write": 22, "append": 8, "truncate": 8, "hold": 8, "unlink": 8, "mkdir": 5,
        "rmdir": 4, "rename": 12, "link": 3, "symlink": 3, "attributes": 9,
    }

    def play(self, number):
        self.one, self.two = self.rng.sample(self.mounts, 2)
        name, = self.rng.choices(list(self.STEPS), self.STEPS.values())
        self.history.append(f"{number}: {name} on {self.one.name}, did not return")
        done = getattr(self, f"step_{name}")()
        self.history[-1] = f"{number}: {done}, on {self.one.name}"
        del self.history[:-HISTORY]
        # Something untouched must not have changed either.
        path, node = self.pick()
        if node is not None:
            self.check.node(self.two, path, node)

    def walk(self):
        for mount in self.mounts:
            for path, node in self.all():
                self.check.node(mount, path, node)
        self.look_at_held()

    def end(self):
        for mount in self.mounts:
            for held in self.held[mount]:
                held.close()


def play(mounts, seed, steps):
    game = Game(mounts, seed)
    number = 0
    try:
        for number in range(steps):
            game.play(number)
            if number % WALK_EVERY == WALK_EVERY - 1:
                game.walk()
        game.walk()
    except (AssertionError, OSError):
        print(f"step {number} of seed {seed} failed; the last steps:", *game.history,
              f"replay: {sys.argv[0]} {seed} {number + 1}", sep="\n    ", flush=True)
        raise
    finally:
        game.end()
    cluster.note(f"steps of seed {seed}", steps)


def test(test_cluster, seed=1, steps=STEPS):
    mounts = [test_cluster.mount, test_cluster.second_mount()]
    for mount in mounts:
        assert os.lstat(mount).st_ino == os.lstat(mounts[0]).st_ino, "not the same file system"
    play([Path(mount) for mount in mounts], seed, steps)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    cluster.run(lambda test_cluster: test(test_cluster, *numbers))
