"""Siblings: children of one process, which open their loggers at the same moment."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from conftest import Store

import predlog
from predlog import _native

#: Longer than an opening takes, and shorter than a wait for a sibling's end would.
PATIENCE = 2.0


def test_siblings_are_told_apart_and_none_waits_for_another(store: Store) -> None:
    logger = store.logger()
    assert logger.log("m", "parent", None)
    for number in range(5):
        start = time.time() + 0.2
        children = []
        for child in range(8):
            pid = os.fork()
            if pid == 0:
                while time.time() < start:
                    pass
                before = time.monotonic()
                accepted = all([logger.log("m", [number, child, row], None) for row in range(3)])
                quick = time.monotonic() - before < PATIENCE
                # Alive for longer than any of its siblings should have to wait.
                time.sleep(0.3)
                os._exit(0 if accepted and quick and logger.close()["accepted"] == 3 else 1)
            children.append(pid)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
    logger.close()
    with store.logger() as logger:
        assert logger.flush()
    rows = store.rows()
    assert len(rows) == len({row["id"] for row in rows}) == 1 + 5 * 8 * 3
    assert len({row["writer"] for row in rows}) >= 1 + 5 * 8
    # Of ids of one time these bits alone differ.
    assert len({row["id"][19:] for row in rows}) == len(rows)


def pool_logs(dir: str, start: float, number: int) -> int:
    while time.time() < start:
        pass
    predlog.default()
    assert predlog.log("m", number, None)
    time.sleep(0.1)
    return os.getpid()


def test_a_pool_of_forked_processes(store: Store) -> None:
    predlog.init(direct={"dir": str(store.dir)})
    assert predlog.log("m", "parent", None)
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        start = time.time() + 0.3
        calls = [pool.submit(pool_logs, str(store.dir), start, number) for number in range(12)]
        processes = {call.result(timeout=60) for call in calls}
    predlog.close()
    with store.logger() as logger:
        assert logger.flush()
    rows = store.rows()
    assert len(rows) == len({row["id"] for row in rows}) == 13
    assert len({row["writer"] for row in rows}) >= 1 + len(processes)


def test_threads_that_open_a_logger_after_a_fork_open_one(store: Store) -> None:
    logger = store.logger()
    pid = os.fork()
    if pid == 0:
        accepted: list[bool] = []
        threads = [threading.Thread(target=lambda: accepted.append(bool(logger.log("m", 1, None)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one = len(list((store.dir / "writers").iterdir())) == 1
        os._exit(0 if accepted == [True] * 8 and one and logger.close()["delivered"] == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    logger.close()
    assert len(store.rows()) == 8


def test_why_a_logger_cannot_be_opened_again_is_told_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    logger = store.logger()
    _native.end_all([logger], 5.0, False)
    kept = store.dir.rename(store.dir.with_name("kept"))
    store.dir.write_text("no directory")
    with caplog.at_level(logging.ERROR, logger="predlog"):
        assert [logger.log("m", 1, None).reason for _ in range(3)] == ["closed"] * 3
    assert [str(store.dir) in record.getMessage() for record in caplog.records] == [True]
    store.dir.unlink()
    kept.rename(store.dir)
    time.sleep(0.2)  # It is not tried again with each record.
    assert logger.log("m", 1, None)
    assert logger.close()["dropped"] == {"closed": 3}


def held(store: Store) -> list[str]:
    """What a logger of this process has open below the store's directory but for the database, which a test has open too."""
    links = (os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return [link for link in links if f"{store.dir}/writers/" in link]


def test_a_fork_waits_for_a_logger_that_another_thread_closes(store: Store) -> None:
    logger = store.logger(sqlite={"busy_timeout": "100ms"})
    assert logger.log("m", 0, None) and logger.flush()
    # While somebody else has the database the closing cannot end before its time.
    other = sqlite3.connect(store.dir / "predictions.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert logger.log("m", 1, None) and held(store)
    thread = threading.Thread(target=logger.close, args=(1.0,))
    thread.start()
    while logger.log("m", 2, None):
        time.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        os._exit(1 if held(store) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    other.close()
    thread.join()


def test_children_log_while_the_parents_threads_open_and_close_loggers(store: Store) -> None:
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            with Store(store.dir / f"thread {number}").logger() as logger:
                logger.log("m", 1, None)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    exits = []
    try:
        for number in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)  # Of a child that hangs.
                with Store(store.dir / "children").logger() as logger:
                    accepted = bool(logger.log("m", number, None))
                os._exit(0 if accepted else 1)
            exits.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            if exits[-1] != 0:
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert exits == [0] * 20
    assert len(Store(store.dir / "children").rows()) == 20


def test_forks_that_python_does_not_know_of(tmp_path: Path) -> None:
    """As uWSGI forks its workers, in C."""
    code = """
        import ctypes, os, predlog

        fork = ctypes.PyDLL(None).fork
        logger = predlog.Logger(direct={"dir": "data"})
        assert logger.log("parent", -1)
        children = []
        for child in range(3):
            pid = fork()
            if pid == 0:
                for record in range(300):
                    assert logger.log(f"child-{child}", record)
                assert logger.flush()
                os._exit(0)
            children.append(pid)
        for record in range(300):
            assert logger.log("parent", record)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True, timeout=60)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "predictions.db")) as store:
        rows = store.execute("select model_name, count(*), count(distinct inputs) from predictions group by 1 order by 1").fetchall()
    assert rows == [("child-0", 300, 300), ("child-1", 300, 300), ("child-2", 300, 300), ("parent", 301, 301)]
