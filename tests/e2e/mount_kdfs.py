#!/usr/bin/env python3
"""mount -t kdfs and a line of fstab, with umount. Runs in a private mount namespace in which fstab
and /sbin/mount.kdfs are ours, so that nothing of the machine is touched."""

import os
import subprocess
import sys
from pathlib import Path

import cluster

INSIDE = "KDFS_E2E_IN_NAMESPACE"


def enter_namespace():
    """Runs this script again in a mount namespace of its own."""
    if os.geteuid() != 0:
        raise cluster.Skip("mount namespaces need root")
    cluster.require_tools("unshare", "mount")
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
    probe = subprocess.run([*words[:4], "true"], stderr=subprocess.DEVNULL, check=False)
    if probe.returncode != 0:
        raise cluster.Skip("this machine allows no mount namespace")
    os.execvpe(words[0], words, {**os.environ, INSIDE: "1"})


def put_helper_into_sbin(test_cluster):
    """mount(8) looks for /sbin/mount.TYPE only: lay a folder with ours over /sbin."""
    folder = test_cluster.local / "sbin"
    folder.mkdir()
    (folder / "mount.kdfs").symlink_to(cluster.program("mount.kdfs"))
    sbin = os.path.realpath("/sbin")
    words = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={folder}:{sbin}", sbin]
    if subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        raise cluster.Skip("this machine has no overlay file system to show mount.kdfs in /sbin")


def run(*words):
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.returncode} {done.stdout}"


def check_mounted(test_cluster, path):
    assert os.path.ismount(path), f"{path} is not mounted"
    (path / "through").write_text("mount -t kdfs")
    assert (test_cluster.mount / "through").read_text() == "mount -t kdfs"
    run("umount", path)
    assert not os.path.ismount(path), f"{path} is still mounted"


def test(test_cluster):
    put_helper_into_sbin(test_cluster)
    source = test_cluster.mds_address()
    key = test_cluster.key_file()
    path = test_cluster.base / "by-hand"
    path.mkdir()

    run("mount", "-t", "kdfs", "-o", f"cluster-key={key}", source, path)
    check_mounted(test_cluster, path)
    cluster.say("mount -t kdfs")

    fstab = test_cluster.local / "fstab"
    fstab.write_text(f"{source} {path} kdfs cluster-key={key},noauto,_netdev,nofail 0 0\n")
    run("mount", "--bind", fstab, Path("/etc/fstab").resolve())
    run("mount", path)
    check_mounted(test_cluster, path)
    cluster.say("mount by a line of fstab")

    run("mount", "-o", "ro", path)
    try:
        (path / "no").write_text("")
        raise AssertionError("a read-only mount takes a new file")
    except OSError as error:
        assert "Read-only" in str(error), error
    run("umount", path)
    cluster.say("mount -o ro")

    wrong = subprocess.run(["mount", "-t", "kdfs", "-o", f"cluster-key={key}", "127.0.0.1:1", path],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           check=False, timeout=60)
    assert wrong.returncode != 0 and "127.0.0.1:1" in wrong.stdout, wrong


def main():
    if not os.environ.get(INSIDE):
        try:
            enter_namespace()
        except cluster.Skip as reason:
            print(f"SKIP {reason}")
            sys.exit(cluster.SKIPPED)
    cluster.run(test)


if __name__ == "__main__":
    main()
