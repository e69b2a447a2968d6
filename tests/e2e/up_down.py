#!/usr/bin/env python3
"""kdfs up, use, status, down; nothing is left behind; up again brings the data back."""

import os

import cluster


def write_some(folder):
    tree = folder / "some" / "deep" / "tree"
    tree.mkdir(parents=True)
    (tree / "hello").write_text("hello\n")
    (tree / "big").write_bytes(bytes(range(256)) * 4096 * 5)
    os.symlink("hello", tree / "link")
    os.setxattr(tree / "hello", "user.colour", b"blue")


def check_some(folder):
    tree = folder / "some" / "deep" / "tree"
    assert sorted(os.listdir(tree)) == ["big", "hello", "link"], os.listdir(tree)
    assert (tree / "link").read_text() == "hello\n"
    assert (tree / "big").read_bytes() == bytes(range(256)) * 4096 * 5
    assert os.getxattr(tree / "hello", "user.colour") == b"blue"


def check_nothing_left(test_cluster):
    processes = cluster.processes_of(test_cluster.base)
    mounts = cluster.mounts_below(test_cluster.base)
    assert not processes, f"processes after kdfs down: {processes}"
    assert not mounts, f"mounts after kdfs down: {mounts}"


def check_status(test_cluster):
    status = test_cluster.status()
    assert status["health"] == "healthy", status
    assert len(status["nodes"]) == 3 and all(node["online"] for node in status["nodes"]), status
    assert status["chains"]["complete"] == status["chains"]["total"] > 0, status
    assert len(status["sessions"]) == 1, status
    text = test_cluster.kdfs("status", "--dir", test_cluster.state).stdout
    assert "healthy" in text.splitlines()[0], text


def test(test_cluster):
    cluster.note("first kdfs up, seconds", f"{test_cluster.up():.2f}")
    write_some(test_cluster.mount)
    check_some(test_cluster.mount)
    check_status(test_cluster)

    again = test_cluster.kdfs("up", "--dir", test_cluster.state).stdout
    assert "already running" in again, again

    test_cluster.down()
    check_nothing_left(test_cluster)
    assert not os.path.exists(test_cluster.mount / "some")
    down = test_cluster.kdfs("status", "--dir", test_cluster.state, check=False)
    assert down.returncode == 3, f"status of a stopped cluster: {down}"
    test_cluster.down()

    cluster.note("kdfs up with data, seconds", f"{test_cluster.up():.2f}")
    check_some(test_cluster.mount)
    test_cluster.wait_healthy()
    fsck = test_cluster.kdfs("fsck", "--dir", test_cluster.state)
    cluster.say(f"fsck: {fsck.stdout.strip().splitlines()[-1]}")

    # A machine that lost everything at once: up clears what the dead mount left.
    for daemon in reversed(test_cluster.daemons()):
        test_cluster.kill(daemon)
    cluster.note("kdfs up after kill -9 of all, seconds", f"{test_cluster.up():.2f}")
    check_some(test_cluster.mount)
    test_cluster.wait_healthy()
    test_cluster.down()
    check_nothing_left(test_cluster)


if __name__ == "__main__":
    cluster.run_bare(test)
