"""What a process is told of its loggers: counters, problems, messages in `logging`; and what its own use of the store may not disturb."""

from __future__ import annotations

import collections
import datetime
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Store

import predlog

AWAY: dict[str, Any] = {"mode": "kafka", "kafka": {"brokers": "127.0.0.1:1", "deadline": "1s"}}


def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def run(code: str, directory: Path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def away(directory: Path) -> dict[str, Any]:
    return {**AWAY, "kafka": {**AWAY["kafka"], "fallback": {"dir": str(directory)}}}


def test_brokers_that_are_away_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In `logging`, by a thread that nobody waits for, and in the counters."""
    with caplog.at_level(logging.INFO, "predlog"), predlog.Logger(away(tmp_path)) as logger:
        assert logger.snapshot()["problem"] is None
        assert logger.log("wine", 1)
        until(lambda: logger.snapshot()["problem"])
        until(lambda: any("cannot be stored" in record.getMessage() for record in caplog.records))
    [message] = [record for record in caplog.records if "cannot be stored" in record.getMessage()]
    assert (message.levelno, message.name) == (logging.ERROR, "predlog.logger.worker.failure")
    assert logger.snapshot()["problem"]


def test_what_is_told_last_is_told(tmp_path: Path) -> None:
    """Also in a child, which has a thread of its own for it; and the thread holds up no end."""
    code = """
        import logging, os, predlog, sys, time

        def fail():
            logger = predlog.Logger(config)
            logger.log("wine", 1)
            until = time.monotonic() + 20
            while not logger.snapshot()["problem"]:
                assert time.monotonic() < until
                time.sleep(0.01)

        logging.basicConfig(level="INFO", stream=sys.stdout, format="%(process)d %(message)s")
        config = {"mode": "kafka", "kafka": {"brokers": "127.0.0.1:1", "deadline": "100ms", "fallback": {"dir": "data"}}}
        fail()
        if (pid := os.fork()) == 0:
            fail()
            sys.exit()
        os.waitpid(pid, 0)
        print(os.getpid(), pid)
    """
    *messages, pids = run(code, tmp_path).splitlines()
    for pid in pids.split():
        assert any(message.startswith(pid) and "cannot be stored" in message for message in messages), messages


def test_where_threads_are_greenlets_a_call_tells(tmp_path: Path) -> None:
    """gevent's and eventlet's locks are not for other threads, and the handlers of `logging` have locks."""
    code = """
        import _thread, logging, predlog, threading, time

        class Handler(logging.Handler):
            def emit(self, record):
                told.append(record.thread)

        told = []
        logging.getLogger("predlog").addHandler(Handler())
        start = _thread.start_new_thread
        _thread.start_new_thread = lambda *arguments: start(*arguments)
        logger = predlog.Logger({"mode": "kafka", "kafka": {"brokers": "127.0.0.1:1", "deadline": "100ms", "fallback": {"dir": "data"}}})
        until = time.monotonic() + 20
        while not told:
            assert logger.log("wine", 1) and time.monotonic() < until
            time.sleep(0.01)
        assert set(told) == {threading.main_thread().ident}
    """
    run(code, tmp_path)


def test_after_a_fork_the_next_logger_delivers_what_the_last_has_left(store: Store) -> None:
    code = """
        import os, predlog, sqlite3

        logger = predlog.Logger(direct={"dir": "data"}, sqlite={"busy_timeout": "100ms"})
        assert logger.log("m", 1) and logger.flush()
        other = sqlite3.connect("data/predictions.db", isolation_level=None)
        other.execute("begin immediate")
        for number in range(100):
            assert logger.log("m", number)
        if os.fork() == 0:
            os._exit(0)
        assert logger.log("m", 101)
        assert logger.snapshot()["on_disk"] == 100, logger.snapshot()
        other.execute("rollback")
        assert logger.flush()
        totals = logger.close()
        assert (totals["accepted"], totals["delivered"], totals["on_disk"], totals["problem"]) == (102, 102, 0, None), totals
        assert logger.flush()
    """
    run(code, store.dir.parent)


def test_each_sink_has_its_counters(tmp_path: Path) -> None:
    kafka = away(tmp_path)["kafka"]
    with predlog.Logger(direct={"dir": str(tmp_path / "one")}, kafka=kafka, sinks=[{"type": "kafka", "name": "two"}]) as logger:
        assert logger.log("m", 1)
        until(lambda: logger.snapshot()["sinks"]["two"]["problem"])
        assert logger.snapshot()["problem"] is None
    totals = logger.snapshot()
    two = totals["sinks"]["two"]
    assert (totals["delivered"], two["accepted"], two["delivered"], two["on_disk"]) == (1, 1, 0, 1)
    assert two["problem"]


HELD = """
    import contextlib, os, predlog, sqlite3

    def store():
        return sqlite3.connect("data/predictions.db", isolation_level=None)

    def count():
        with contextlib.closing(store()) as other:
            return other.execute("select count(*) from predictions").fetchone()[0]

    with predlog.Logger(direct={"dir": "data"}) as logger:
        assert logger.log("m", 0)
    mine = store()
"""


@pytest.mark.parametrize("again", ["with predlog.Logger(direct={'dir': 'data'}): pass", "os.fork() or os._exit(0)"])
def test_a_transaction_of_the_same_process_keeps_its_locks(tmp_path: Path, again: str) -> None:
    """Whatever loggers open and end meanwhile: closing a file would drop them, and both would write at once."""
    code = f"""
        mine.execute("create table mine (x)")
        mine.execute("pragma cache_size = 10")
        logger = predlog.Logger(direct={{"dir": "data"}}, sqlite={{"busy_timeout": "100ms"}})
        assert logger.log("m", 1) and logger.flush()
        mine.execute("begin immediate")
        mine.executemany("insert into mine values (?)", [("x" * 1000,)] * 500)
        {again}
        for number in range(500):
            assert logger.log("m", "y" * 500)
        assert not logger.flush(0.5)
        mine.executemany("insert into mine values (?)", [("x" * 1000,)] * 500)
        mine.execute("commit")
        assert logger.flush()
        logger.close()
        assert store().execute("pragma integrity_check").fetchall() == [("ok",)]
        assert store().execute("select count(*) from mine").fetchone() == (1000,)
        assert count() == 502, count()
    """
    run(textwrap.dedent(HELD) + textwrap.dedent(code), tmp_path)


def test_a_connection_that_is_kept_sees_new_rows(tmp_path: Path) -> None:
    """It saw old ones for good from the third fork on."""
    code = """
        with predlog.Logger(direct={"dir": "data"}) as logger:
            for number in range(1, 8):
                assert logger.log("m", number) and logger.flush()
                assert mine.execute("select count(*) from predictions").fetchone()[0] == count() == number + 1
                os.fork() or os._exit(0)
        open_files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        ours = [name for name in open_files if "predictions.db" in name]
        assert len(ours) < 10, ours  # Not three more with each fork.
    """
    run(textwrap.dedent(HELD) + textwrap.dedent(code), tmp_path)


def test_the_end_of_a_subinterpreter_is_not_the_processs(tmp_path: Path) -> None:
    code = """
        import predlog

        logger = predlog.Logger(direct={"dir": "data"})
        try:
            import _interpreters as interpreters

            other = interpreters.create("legacy")
        except ImportError:  # Before Python 3.13.
            import _xxsubinterpreters as interpreters

            other = interpreters.create(isolated=False)
        interpreters.run_string(other, "import predlog; predlog.Logger(direct={'dir': 'other'}).close()")
        interpreters.destroy(other)
        assert logger.log("m", 1)
        assert logger.close()["delivered"] == 1
    """
    run(code, tmp_path)


def test_without_a_directory_to_write_in(tmp_path: Path) -> None:
    """`memory`, without what is spilled, needs none."""
    file = tmp_path / "file"
    file.touch()
    with predlog.Logger(away(file / "none"), logger={"durability": "memory", "overflow": "drop"}) as logger:
        assert logger.log("m", 1)
    with pytest.raises(RuntimeError, match="cannot write in dir"):
        predlog.Logger(away(file / "none"), logger={"durability": "memory"})


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(ValueError) as raised:
        predlog.Logger(direct={"dir": path, "\udc80": 1}, model="wine")
    lines = str(raised.value).splitlines()
    assert [line.partition("=")[0] for line in lines[:1]] == ["keyword: direct.dir"], lines
    assert "expected text that UTF-8 can have" in lines[0] and "direct.\\udc80" in lines[1] and "model" in lines[2]
    path.write_text(f'direct.dir = "{tmp_path}/data"')
    for config in (path, os.fsencode(path)):
        predlog.Logger(config).close()  # type: ignore[arg-type]


class Interrupts(datetime.tzinfo):
    """As when Ctrl-C comes while Python code runs."""

    def utcoffset(self, _: datetime.datetime | None) -> datetime.timedelta:
        raise KeyboardInterrupt


class Pairs(collections.UserDict[str, str]):
    def items(self) -> Any:
        raise KeyboardInterrupt


class Number:
    def __index__(self) -> int:
        signal.raise_signal(signal.SIGINT)
        return 1

    def __float__(self) -> float:
        return float(self.__index__())


def test_a_close_sees_an_interrupt(tmp_path: Path) -> None:
    """It goes on beside whatever comes next, and the end of the process waits for it."""
    code = """
        import os, predlog, signal, threading, time

        config = {"mode": "kafka", "kafka": {"brokers": "127.0.0.1:1", "deadline": "30s", "fallback": {"dir": "data"}}}
        logger = predlog.Logger(config)
        assert logger.log("wine", 1)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            logger.close(6)
        except KeyboardInterrupt:
            assert time.monotonic() - start < 5
        else:
            raise AssertionError
        assert not logger.log("wine", 1)
        totals = logger.close(60)
        assert (totals["accepted"], totals["on_disk"]) == (1, 1), totals
    """
    run(code, tmp_path)


@pytest.mark.parametrize("name", ["row_index", "status_code", "latency_ms", "sample_weight", "timestamp", "metadata"])
def test_an_interrupt_is_raised_to_the_caller(store: Store, name: str) -> None:
    others: dict[str, Any] = {"timestamp": datetime.datetime(2026, 1, 2, tzinfo=Interrupts()), "metadata": Pairs()}
    with store.logger() as logger, pytest.raises(KeyboardInterrupt):
        logger.log("m", 1, **{name: others.get(name, Number())})


def test_a_local_time_of_pandas_is_local(tmp_path: Path) -> None:
    code = """
        import datetime, os, pandas, predlog, sqlite3, time

        os.environ["TZ"] = "America/New_York"
        time.tzset()
        with predlog.Logger(direct={"dir": "data"}) as logger:
            for at in (datetime.datetime(2026, 1, 2, 3, 4, 5), pandas.Timestamp(2026, 1, 2, 3, 4, 5), pandas.Timestamp("2026-01-02T03:04:05-05:00")):
                assert logger.log("m", None, timestamp=at)
        times = sqlite3.connect("data/predictions.db").execute("select distinct timestamp from predictions").fetchall()
        assert times == [(1767341045000000,)], times  # 08:04:05 UTC
    """
    run(code, tmp_path)


def test_missing_fields_are_none(store: Store) -> None:
    with store.logger() as logger:
        for missing in (None, pd.NA, pd.NaT, float("nan")):
            assert logger.log("m", 1, id=missing, model_version=missing, request_id=missing)
        assert logger.log("m", 1, latency_ms=float("nan"), sample_weight=float("inf"))
        assert logger.snapshot()["encoded_as_text"] == 2
    rows = store.rows()
    assert len({row["id"] for row in rows}) == 5
    assert {(row["model_version"], row["request_id"]) for row in rows} <= {(None, None), ("", None)}
    assert (rows[-1]["latency_ms"], rows[-1]["sample_weight"], rows[-1]["metadata"]) == (None, None, {"latency_ms": "nan", "sample_weight": "inf"})
