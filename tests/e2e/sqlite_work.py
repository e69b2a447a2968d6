#!/usr/bin/env python3
"""SQLite on the mount: a writer moves money between accounts while readers in other processes check
that the sum stays, in the delete and WAL journal modes, with a storage daemon killed in between."""

import multiprocessing
import os
import random
import sqlite3

import cluster

ACCOUNTS = 200
AMOUNT = 1000
TRANSFERS = 250
READERS = 2
BUSY_SECONDS = 60


def connect(path):
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def create(path, mode):
    db = connect(path)
    got = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    assert got == mode, f"SQLite uses journal mode {got}, not {mode}, on {path}"
    db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, note TEXT)")
    db.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, source INTEGER, target INTEGER)")
    db.execute("BEGIN")
    rows = [(number, AMOUNT, "n" * (number * 37 % 900)) for number in range(ACCOUNTS)]
    db.executemany("INSERT INTO account VALUES (?, ?, ?)", rows)
    db.execute("COMMIT")
    db.close()


def write(path, first, count, done):
    """`count` transfers numbered from `first`; reports each one after its COMMIT returned."""
    db = connect(path)
    db.execute("PRAGMA synchronous=FULL")
    rng = random.Random(first)
    for number in range(first, first + count):
        source, target, amount = rng.randrange(ACCOUNTS), rng.randrange(ACCOUNTS), rng.randrange(9)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE account SET amount = amount - ? WHERE id = ?", (amount, source))
        db.execute("UPDATE account SET amount = amount + ?, note = ? WHERE id = ?",
                   (amount, "m" * rng.randrange(1500), target))
        db.execute("INSERT INTO log VALUES (?, ?, ?)", (number, source, target))
        if number % 10 == 9:
            db.execute("ROLLBACK")
        else:
            db.execute("COMMIT")
        done.value = number + 1
    db.close()


def read(path, stop, sums):
    """Checks the sum in one transaction after another until `stop`."""
    db = connect(path)
    while not stop.is_set():
        db.execute("BEGIN")
        total, = db.execute("SELECT sum(amount) FROM account").fetchone()
        again, = db.execute("SELECT sum(amount) FROM account").fetchone()
        db.execute("COMMIT")
        if total != ACCOUNTS * AMOUNT or again != total:
            raise AssertionError(f"the sum is {total}, then {again}, not {ACCOUNTS * AMOUNT}")
        with sums.get_lock():
            sums.value += 1
    db.close()


def check(path, transfers):
    db = connect(path)
    integrity = db.execute("PRAGMA integrity_check").fetchall()
    assert integrity == [("ok",)], f"integrity_check of {path}: {integrity[:5]}"
    wanted = [number for number in range(transfers) if number % 10 != 9]
    got = [number for number, in db.execute("SELECT number FROM log ORDER BY number")]
    assert got == wanted, f"{path} holds {len(got)} transfers, not {len(wanted)}"
    total, = db.execute("SELECT sum(amount) FROM account").fetchone()
    assert total == ACCOUNTS * AMOUNT, f"{path}: the sum is {total}"
    db.close()


class Workload:
    """Readers and a writer as processes of their own, on one database."""

    def __init__(self, path):
        self._path = path
        self._stop = multiprocessing.Event()
        self._sums = multiprocessing.Value("l", 0)
        self._done = multiprocessing.Value("l", 0)
        arguments = (path, self._stop, self._sums)
        self._readers = [multiprocessing.Process(target=read, args=arguments, daemon=True)
                         for _ in range(READERS)]
        for reader in self._readers:
            reader.start()

    def write(self, first, count, at=None, action=None):
        """Transfers, with `action` called when the one numbered `at` is done."""
        writer = multiprocessing.Process(
            target=write, args=(self._path, first, count, self._done), daemon=True)
        writer.start()
        while at is not None and self._done.value < at and writer.is_alive():
            writer.join(0.002)
        if action:
            action()
        writer.join()
        assert writer.exitcode == 0, f"the writer failed, its exit status is {writer.exitcode}"

    def end(self):
        self._stop.set()
        for reader in self._readers:
            reader.join(BUSY_SECONDS)
            assert reader.exitcode == 0, f"a reader failed, its exit status is {reader.exitcode}"
        return self._sums.value


def run_mode(test_cluster, mode):
    path = os.path.join(test_cluster.mount, f"{mode}.db")
    create(path, mode)
    workload = Workload(path)
    workload.write(0, TRANSFERS, TRANSFERS // 3, lambda: test_cluster.kill("storage-3"))
    test_cluster.up()
    workload.write(TRANSFERS, TRANSFERS, TRANSFERS + 20, test_cluster.wait_healthy)
    cluster.note(f"{mode}: sums checked by readers", workload.end())
    check(path, 2 * TRANSFERS)
    os.stat(path)
    return path


def test(test_cluster):
    paths = [run_mode(test_cluster, mode) for mode in ("delete", "wal")]
    test_cluster.down()
    test_cluster.up()
    for path in paths:
        check(path, 2 * TRANSFERS)
        assert not os.path.exists(f"{path}-journal"), "a journal is left over"


if __name__ == "__main__":
    cluster.run(test)
