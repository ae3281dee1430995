"""Configuration, threads, asyncio, forks, the end of the process, and the program."""

from __future__ import annotations

import asyncio
import datetime
import enum
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Store

import predlog


def test_configuration_comes_from_a_dict_a_file_the_environment_and_keywords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "predlog.toml"
    file.write_text(f"[direct]\ndir = '{tmp_path}/file'\n")
    monkeypatch.setenv("PREDLOG_CONFIG", str(file))
    predlog.Logger().close()
    predlog.Logger(file, direct={"dir": tmp_path / "keyword"}, batch={"max_rows": 7}).close()
    monkeypatch.setenv("PREDLOG_DIRECT__DIR", f"{tmp_path}/variable")
    predlog.Logger({"direct": {"dir": f"{tmp_path}/dict"}}).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "keyword", "predlog.toml", "variable"]


def test_wrong_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean `store`"):
        predlog.Logger({"direct": {"stor": "sqlite"}})
    with pytest.raises(FileNotFoundError):
        predlog.Logger(tmp_path / "none.toml")
    with pytest.raises(RuntimeError):
        predlog.Logger({"direct": {"dir": "/dev/null/x"}})


class Kind(str, enum.Enum):
    PARQUET = "parquet"


def test_keywords_are_durations_lists_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDLOG_BATCH__MAX_AGE", "nonsense")
    monkeypatch.setenv("PREDLOG_DIRECT__DIR", f"{tmp_path}/variable")
    with predlog.Logger(
        direct={"dir": tmp_path / "data", "store": Kind.PARQUET, "retain": None},
        batch={"max_age": datetime.timedelta(milliseconds=10), "max_rows": "7"},
        rotation={"max_age": datetime.timedelta(days=30_000), "max_rows": np.int64(5)},
        logger={"queue_bytes": 8 << 20, "lanes": 2},
        sqlite={"views": False},
        archive={"topics": ["a", "^b{1,2}"], "memory": 2**40},
        kafka={"properties": {"linger.ms": 5}},
        sinks=[{"type": "sqlite", "dir": tmp_path / "recent", "retain": datetime.timedelta(hours=1)}],
    ) as logger:
        assert logger.log("m", 1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "recent"]
    assert (tmp_path / "recent" / "predictions.db").exists() and (tmp_path / "data" / "predictions").exists()


def test_every_problem_of_a_configuration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDLOG_SERVER__ADR", "x")
    file = {"direct": {"dir": b"bytes", "stor": "sqlite"}, "sqlite": {"views": 5}, "logger": {"lanes": 0}}
    with pytest.raises(ValueError) as raised:
        predlog.Logger(
            file,
            batch={"max_rows": datetime.timedelta(seconds=1), "max_age": datetime.timedelta(0), "max_bytes": ["1MiB"]},
            archive={"topics": [{"a"}, "b"], "group": ""},
            upload={"url": object()},
        )
    said = [
        "keyword: archive.topics[0]: type=set: expected text, a number",
        "keyword: upload.url: type=object: expected text, a number",
        "file=the given dict: direct.dir: type=bytes: expected text, a number",
        "file=the given dict: unknown key direct.stor=\"sqlite\": did you mean `store`?",
        "variable=PREDLOG_SERVER__ADR: unknown key",
        "file=the given dict: sqlite.views=5: expected true or false",
        "keyword: batch.max_rows=\"1000000us\": expected a whole number",
        "keyword: batch.max_bytes=an array: expected a size",
        "file=the given dict: logger.lanes=0: expected 1 to 64",
        "keyword: batch.max_age=0s: expected 1ms to",
        "keyword: archive.group=\"\": expected letters",
    ]
    lines = str(raised.value).splitlines()
    assert len(lines) == len(said), lines
    for part in said:
        assert any(line.startswith(part) for line in lines), (part, lines)


def test_a_default_that_stands_in_for_a_wrong_value_conflicts_with_nothing() -> None:
    with pytest.raises(ValueError) as raised:
        predlog.Logger(logger={"queue_bytes": "1 parsec"}, batch={"max_bytes": "128MiB"}, upload={"endpont": "x", "allow_http": True})
    assert [line.split("=")[0] for line in str(raised.value).splitlines()] == ["keyword: unknown key upload.endpont", "keyword: logger.queue_bytes"]


@pytest.mark.parametrize("wrong", [{"direct": {"stor": "x"}}, {"direct": {"dir": "/dev/null/x"}}, {"config": "none.toml"}], ids=["key", "directory", "file"])
def test_what_is_wrong_with_a_new_configuration_leaves_the_old_logger(store: Store, wrong: Any) -> None:
    first = predlog.init(direct={"dir": str(store.dir)})
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError)):
        predlog.init(**wrong)
    assert predlog.default() is first and predlog.log("m", 1, None)
    second = predlog.init(direct={"dir": str(store.dir)})
    assert predlog.default() is second is not first and predlog.log("m", 2, None)
    assert first.log("m", 3, None).reason == "closed"
    predlog.close()
    assert sorted(row["inputs"] for row in store.rows()) == [1, 2]


def test_module_level_functions(store: Store) -> None:
    predlog.init(direct={"dir": str(store.dir)})
    assert predlog.log("m", {"a": 1}, 2, id="x")
    assert predlog.default().flush()
    predlog.close()
    assert [row["id"] for row in store.rows()] == ["x"]


def test_a_closed_logger_drops_and_counts(store: Store) -> None:
    logger = store.logger()
    assert logger.log("m", 1, 2)
    assert logger.close()["delivered"] == 1
    assert logger.log("m", 1, 2).reason == "closed"
    assert logger.close()["dropped"] == {"closed": 1}


def test_threads_and_tasks(store: Store) -> None:
    logger = store.logger()

    def work() -> None:
        for number in range(500):
            assert logger.log("m", {"n": number}, None)

    async def task() -> None:
        for number in range(100):
            assert logger.log("m", {"n": number}, None)
            await asyncio.sleep(0)

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(4)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    assert logger.close()["delivered"] == 2_400
    assert len(store.rows()) == 2_400


def test_a_call_that_waits_for_room_lets_other_threads_run(store: Store) -> None:
    text = "x" * 100_000
    accepted: list[bool] = []
    with store.logger(logger={"overflow": "block", "block_limit": "20s", "queue_bytes": "8MiB"}) as logger:
        assert logger.log("m", text) and logger.flush()
        # While somebody else has the database nothing leaves the queue, and the thread waits for room in it.
        other = sqlite3.connect(store.dir / "predictions.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        thread = threading.Thread(target=lambda: accepted.extend(bool(logger.log("m", text)) for _ in range(200)))
        thread.start()
        while logger.snapshot()["queue_bytes"] < 6 << 20:
            time.sleep(0.001)
        # If it kept this thread from running meanwhile, this would come too late for its record.
        other.execute("COMMIT")
        other.close()
        thread.join()
        assert logger.flush()
    assert accepted == [True] * 200
    assert len(store.rows()) == 201


def test_a_fork_keeps_every_record_once(store: Store) -> None:
    logger = store.logger()
    for number in range(1_000):
        assert logger.log("m", number, "before")
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            accepted = sum(bool(logger.log("m", number, f"child {child}")) for number in range(250))
            os._exit(0 if accepted == 250 and logger.close()["delivered"] == 250 else 1)
        children.append(pid)
        assert logger.log("m", child, "between")
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert logger.log("m", 1, "after")
    totals = logger.close()
    assert totals["accepted"] == totals["delivered"] == 1_005
    rows = store.rows()
    assert len(rows) == 2_005
    assert len({row["id"] for row in rows}) == 2_005
    # Times alone would tell most of them apart: what is random in an id is each process's own.
    assert len({row["id"][19:] for row in rows}) == 2_005


def test_a_fork_while_threads_log(store: Store) -> None:
    logger = store.logger()
    stop = threading.Event()
    accepted = [0] * 3

    def work(index: int) -> None:
        while not stop.is_set():
            accepted[index] += bool(logger.log("m", index, "thread"))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if logger.log("m", 0, "child") and logger.close()["delivered"] == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert logger.close()["accepted"] == sum(accepted)
    assert len(store.rows()) == sum(accepted) + 5


def child_logs(dir: str, count: int) -> None:
    predlog.init(direct={"dir": dir})
    for number in range(count):
        assert predlog.log("m", number, None)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(store: Store, method: str) -> None:
    context = multiprocessing.get_context(method)
    children = [context.Process(target=child_logs, args=(str(store.dir), 50)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert len(store.rows()) == 100


def test_the_end_of_the_interpreter_delivers(store: Store) -> None:
    script = f"import predlog; predlog.init(direct={{'dir': {str(store.dir)!r}}}); [predlog.log('m', n, None) for n in range(100)]"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(store.rows()) == 100


def test_the_end_of_a_forked_interpreter_delivers(store: Store) -> None:
    """Finalizers of multiprocessing are their own process's alone, and an object that something still has a reference to is not dropped."""
    script = (
        "import ctypes, os, predlog\n"
        "child = os.fork()\n"
        "if child:\n"
        "    os.waitpid(child, 0)\n"
        "    os._exit(0)\n"
        f"logger = predlog.init(direct={{'dir': {str(store.dir)!r}}})\n"
        "ctypes.pythonapi.Py_IncRef(ctypes.py_object(logger))\n"
        "for number in range(100):\n"
        "    predlog.log('m', number, None)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(store.rows()) == 100


def test_a_killed_process_is_recovered(store: Store) -> None:
    script = (
        f"import os, predlog; predlog.init(direct={{'dir': {str(store.dir)!r}}}, batch={{'max_age': '1h', 'max_rows': 100000}});"
        "[predlog.log('m', n, None) for n in range(100)]; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with store.logger() as logger:
        deadline = time.monotonic() + 30
        while logger.snapshot()["recovered"] < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert logger.flush()
    assert sorted(row["inputs"] for row in store.rows()) == list(range(100))


def test_the_program(store: Store) -> None:
    with store.logger() as logger:
        logger.log("m", 1, 2)
    program = [sys.executable, "-m", "predlog"]
    environment = {**os.environ, "PREDLOG_DIRECT__DIR": str(store.dir)}
    assert "predlog serve" in subprocess.run([*program, "--help"], check=True, capture_output=True, text=True).stdout
    assert subprocess.run([*program, "check"], env=environment, capture_output=True).returncode == 0
    assert subprocess.run([*program, "check", "--config", "none.toml"], capture_output=True).returncode == 2
