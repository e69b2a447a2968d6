"""Makes the source tree of the main job, the same one every time: a C project of some hundred
files that make builds, headers of this machine, and files of every kind that tar knows."""

import os
import random
import subprocess
import sys
from pathlib import Path

MODULES = 240
SMALL_FILES = 1800
SYSTEM_FILES_MAX = 1200
SYSTEM_BYTES_MAX = 24 << 20

# Objects and archives without dates, users or absolute paths, so that two builds are equal.
MAKEFILE = """\
CC = cc
CFLAGS = -O1 -Iinclude -Wall
objects = $(patsubst src/%.c,obj/%.o,$(wildcard src/*.c))
all: program listing.txt
program: main.c libmodules.a
\t$(CC) $(CFLAGS) -Wl,--build-id=none -o $@ main.c libmodules.a
libmodules.a: $(objects)
\tar rcD $@ $(sort $(objects))
obj/%.o: src/%.c
\t@mkdir -p obj
\t$(CC) $(CFLAGS) -c -o $@.tmp $<
\t@mv $@.tmp $@
listing.txt: program
\t./program > $@
\tnm libmodules.a | sort >> $@
clean:
\trm -rf obj program libmodules.a listing.txt
"""


def _module(number, rng):
    table = ", ".join(str(rng.randrange(1 << 31)) for _ in range(40))
    other = f"module_{number - 1}(x ^ table[x % 40])" if number else "x"
    return (
        f'#include "module_{number}.h"\n#include <stdio.h>\n'
        f"static const unsigned table[40] = {{{table}}};\n"
        f"unsigned module_{number}(unsigned x) {{\n"
        f"    unsigned sum = {number};\n"
        f"    for (unsigned i = 0; i < 40; ++i) sum = sum * 31 + (table[i] ^ x);\n"
        f"    return sum ^ {other};\n}}\n"
    )


def _header(number):
    before = f'#include "module_{number - 1}.h"\n' if number % 20 else ""
    if number and not before:
        before = f"unsigned module_{number - 1}(unsigned x);\n"
    return f"#pragma once\n{before}unsigned module_{number}(unsigned x);\n"


def _make_project(root, rng):
    for folder in ("src", "include"):
        (root / folder).mkdir(parents=True)
    for number in range(MODULES):
        (root / f"src/module_{number}.c").write_text(_module(number, rng))
        (root / f"include/module_{number}.h").write_text(_header(number))
    (root / "main.c").write_text(
        f'#include "module_{MODULES - 1}.h"\n#include <stdio.h>\n'
        "int main(void) {\n    for (unsigned x = 0; x < 100; ++x)\n"
        f'        printf("%u %u\\n", x, module_{MODULES - 1}(x));\n    return 0;\n}}\n'
    )
    (root / "Makefile").write_text(MAKEFILE)


def _make_small_files(root, rng):
    for number in range(SMALL_FILES):
        folder = root / f"d{number % 23}" / f"e{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        size = rng.choice([0, 1, 100, 1000, 4095, 4096, 4097, 20000])
        path = folder / f"file-{number}"
        path.write_bytes(rng.randbytes(size))
        path.chmod(rng.choice([0o644, 0o600, 0o755, 0o440, 0o4755, 0o2711]))


def _make_odd_files(root, rng):
    root.mkdir()
    (root / "large").write_bytes(rng.randbytes(9 << 20))
    with open(root / "sparse", "wb") as file:
        file.seek(40 << 20)
        file.write(b"end")
    (root / "name with spaces, \u00fcml\u00e4ute and \u6f22\u5b57").write_text("x")
    (root / ("n" * 255)).write_text("longest name")
    os.symlink("large", root / "link")
    os.symlink("../no/such/place", root / "dangling")
    os.symlink("t" * 1000, root / "long-target")
    os.link(root / "large", root / "hard link")
    os.mkfifo(root / "fifo")
    (root / "empty").mkdir()
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)


def _copy_system_headers(root):
    """Regular files below /usr/include in sorted order, as many as the bounds allow."""
    files, total = 0, 0
    for folder, folders, names in os.walk("/usr/include"):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            total += len(data)
            files += 1
            if files > SYSTEM_FILES_MAX or total > SYSTEM_BYTES_MAX:
                return
            to = root / path.relative_to("/usr/include")
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(data)


def make_tar(folder):
    """Writes folder/tree.tar, which unpacks to `tree`; gives its path and the number of entries."""
    rng = random.Random(20)
    root = folder / "tree"
    _make_project(root, rng)
    _make_small_files(root / "small", rng)
    _make_odd_files(root / "odd", rng)
    _copy_system_headers(root / "system")
    archive = folder / "tree.tar"
    subprocess.run(["tar", "-cSf", archive, "-C", folder, "tree"], check=True)
    entries = subprocess.run(["tar", "-tf", archive], check=True, stdout=subprocess.PIPE)
    subprocess.run(["rm", "-rf", root], check=True)
    return archive, entries.stdout.count(b"\n")


def describe(root):
    """What diff -r does not see, per path: type, mode, owner, size, links, link target and, where
    tar or nobody set it after the unpacking, mtime."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            key = os.path.relpath(path, root)
            target = os.readlink(path) if os.path.islink(path) else ""
            built = key.startswith(("obj", "program", "libmodules.a", "listing.txt"))
            found[key] = (
                oct(info.st_mode),
                info.st_uid,
                0 if is_folder else info.st_size,
                0 if is_folder else info.st_nlink,
                target,
                0 if built or is_folder else info.st_mtime_ns,
            )
    return found


def compare(expected, actual):
    """Raises AssertionError with the first differences between two trees, if there are any."""
    # A pipe would make diff wait for a writer; describe() looks at it.
    words = ["diff", "-r", "--no-dereference", "--exclude=fifo", expected, actual]
    diff = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    lines = diff.stdout.decode(errors="replace").splitlines()
    assert diff.returncode == 0, f"diff -r finds {len(lines)} lines:\n" + "\n".join(lines[:20])
    wanted, got = describe(expected), describe(actual)
    for key in sorted(wanted.keys() | got.keys()):
        if wanted.get(key) != got.get(key):
            raise AssertionError(f"{key}: {wanted.get(key)} on the disk, {got.get(key)} in kdfs")


if __name__ == "__main__":
    print(make_tar(Path(sys.argv[1])))
