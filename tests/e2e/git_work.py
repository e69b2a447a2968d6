#!/usr/bin/env python3
"""git clone, fsck, status, commit, gc, push on the mount, with a storage daemon killed once."""

import os
import random
import subprocess

import cluster

FILES = 400
COMMITS = 120

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": value
       for who in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "a"), ("EMAIL", "a@b"), ("DATE", "2026-01-01T00:00:00Z"))},
}


def git(folder, *words):
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-c", "protocol.file.allow=always", *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.returncode}\n{done.stdout}"
    return done.stdout


def change_files(folder, rng, count):
    for _ in range(count):
        path = folder / f"d{rng.randrange(20)}" / f"f{rng.randrange(FILES)}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([10, 500, 5000])).hex().encode())


def make_origin(folder):
    rng = random.Random(7)
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    change_files(folder, rng, FILES)
    for number in range(COMMITS):
        change_files(folder, rng, 5)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", f"change {number}")
    git(folder, "tag", "-a", "-m", "a tag", "v1")


def check_clean(folder):
    git(folder, "fsck", "--full", "--strict")
    status = git(folder, "status", "--porcelain")
    assert status == "", f"git status in {folder}:\n{status}"


def work_in_clone(clone):
    """Branches, many commits, a merge, a rebase and a repack inside the mount."""
    rng = random.Random(8)
    git(clone, "checkout", "-q", "-b", "topic", "HEAD~20")
    for number in range(15):
        change_files(clone, rng, 3)
        git(clone, "add", "-A")
        git(clone, "commit", "-q", "-m", f"topic {number}")
    git(clone, "checkout", "-q", "main")
    git(clone, "merge", "-q", "-X", "theirs", "-m", "merge", "topic")
    git(clone, "gc", "-q", "--prune=now")
    check_clean(clone)


def test(test_cluster):
    cluster.require_tools("git", "diff")
    origin = test_cluster.local / "origin"
    make_origin(origin)
    mount = test_cluster.mount

    git(mount, "clone", "-q", "--no-local", str(origin), "clone")
    check_clean(mount / "clone")
    words = ["diff", "-r", "--exclude=.git", origin, mount / "clone"]
    subprocess.run(words, check=True)
    cluster.say("cloned")

    test_cluster.kill("storage-1")
    work_in_clone(mount / "clone")
    test_cluster.up()
    cluster.say("worked in the clone, a storage daemon was killed")

    # Hard links between the object stores, and pushes over the mount.
    git(mount, "clone", "-q", "--local", "clone", "second")
    check_clean(mount / "second")
    git(mount, "clone", "-q", "--bare", "second", "bare.git")
    git(mount / "second", "push", "-q", str(mount / "bare.git"), "HEAD:refs/heads/pushed")
    git(mount / "bare.git", "fsck", "--full")
    cluster.note("full redundancy after seconds", f"{test_cluster.wait_healthy():.1f}")

    test_cluster.down()
    test_cluster.up()
    check_clean(mount / "clone")
    check_clean(mount / "second")


if __name__ == "__main__":
    cluster.run(test)
