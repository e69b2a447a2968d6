#!/usr/bin/env python3
"""check_synced.py MOUNT MANIFEST...: reads through MOUNT what the manifests of fault_load.py say
was synced. Also while the workers go on: what was synced before a file is read has to be in it,
what was begun until it was read may be. Exit status 1 and the first thing that is wrong, or 0."""

import hashlib
import os
import sys
from pathlib import Path

from fault_load import BLOCKS, Block, wrong_byte

TRIES_MAX = 5


def lines_of(manifest):
    """Its complete lines, without remarks."""
    text = Path(manifest).read_text()
    lines = text[:text.rfind("\n") + 1].splitlines()
    return [line for line in lines if not line.startswith("#")]


def read_blocks(manifest):
    """{file: (block size, [Block])}"""
    files = {}
    for line in lines_of(manifest):
        kind, name, *numbers = line.split(" ")
        if kind == "file":
            files[name] = (int(numbers[0]), [Block() for _ in range(BLOCKS)])
        elif kind == "w":
            block = files[name][1][int(numbers[0])]
            block.begun = block.written = int(numbers[1])
        else:
            for block in files[name][1]:
                block.synced() if kind == "s" else block.failed()
    return files


def check_blocks(folder, manifest):
    before = read_blocks(manifest)
    for name, (size, blocks) in before.items():
        path = f"{folder}/{name}"
        data = Path(path).read_bytes()
        after = read_blocks(manifest)[name][1]
        for number, block in enumerate(blocks):
            got = data[number * size:(number + 1) * size]
            got += bytes(size - len(got))
            versions = range(block.floor, after[number].begun + 1)
            bad = wrong_byte(got, name, number, versions)
            assert bad is None, (
                f"{path}: byte {bad} of block {number} (file offset {number * size + bad}) is of "
                f"none of the versions {list(versions)}; {block.floor} was synced")
    return len(before)


def read_names(manifest):
    """{path: digest, None if it is gone, "?" if the last change was not acknowledged}"""
    wanted = {}
    for line in lines_of(manifest):
        kind, _, rest = line.partition(" ")
        if kind == "begin":
            wanted[rest] = "?"
        elif kind == "gone":
            wanted[rest] = None
        else:
            name, _, digest = rest.rpartition(" ")
            wanted[name] = digest
    return wanted


def digest_of(path):
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def check_names(folder, manifest):
    before = read_names(manifest)
    for path, wanted in before.items():
        got = digest_of(f"{folder}/{os.path.basename(path)}")
        if wanted == "?" or got == wanted:
            continue
        # Perhaps it was changed meanwhile.
        assert read_names(manifest)[path] != wanted, (
            f"{path} was synced {'as removed' if wanted is None else 'with ' + wanted} and is "
            f"{'gone' if got is None else 'there with ' + got}")
    return len(before)


def check(mount, manifests):
    files = 0
    for manifest in manifests:
        name = os.path.basename(manifest)
        folder = f"{mount}/{name}"
        is_blocks = name.startswith("BlockWriter")
        files += check_blocks(folder, manifest) if is_blocks else check_names(folder, manifest)
    return files


if __name__ == "__main__":
    print(check(sys.argv[1], sys.argv[2:]))
