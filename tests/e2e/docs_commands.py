#!/usr/bin/env python3
"""Runs the commands that the documents show: every block fenced as ```sh test in README.md and
docs/, in order, one bash per document, in a fresh directory. In a block /kdfs stands for the test's
mount point and /var/tmp/kdfs for its state directory. Unless a block runs `kdfs up` itself, the
cluster is up before the first. The document's name and the failed command are shown."""

import os
import re
import subprocess
from pathlib import Path

import cluster

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh test\n(.*?)^```$", re.M | re.S)


def documents():
    """[(path, commands)] of every document with commands to test."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = BLOCK.findall(path.read_text())
        if blocks:
            found.append((path.relative_to(ROOT), "\n".join(blocks)))
    return found


def place(commands, test_cluster):
    commands = re.sub(r"(?<![\w./-])/var/tmp/kdfs(?![\w-])", str(test_cluster.state), commands)
    return re.sub(r"(?<![\w./-])/kdfs(?![\w-])", str(test_cluster.mount), commands)


def run_document(path, commands, test_cluster):
    if not re.search(r"\bkdfs up\b", commands):
        test_cluster.up()
        test_cluster.wait_healthy()
    folder = test_cluster.local / path.stem
    folder.mkdir()
    environment = {**os.environ, "KDFS_DIR": str(test_cluster.state), "HOME": str(folder),
                   "PATH": f"{cluster.bin_dir()}:{os.environ['PATH']}"}
    script = "set -euo pipefail\nset -x\n" + place(commands, test_cluster)
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    last = "\n".join(done.stdout.splitlines()[-30:])
    assert done.returncode == 0, f"a command of {path} failed ({done.returncode}):\n{last}"
    cluster.say(f"{path}: {len(commands.splitlines())} lines of commands work")
    if (test_cluster.state / "kdfs.json").exists():
        test_cluster.down()


def test(test_cluster):
    found = documents()
    assert found, "no document has a block of commands marked ```sh test"
    for path, commands in found:
        run_document(path, commands, test_cluster)


if __name__ == "__main__":
    cluster.run_bare(test)
