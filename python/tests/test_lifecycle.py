"""What else a process does to its loggers: it reads their database itself, changes its directory, gets signals, and ends while its threads log."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run(code: str, directory: Path, returncode: int = 0) -> str:
    """What a process prints that runs `code` in `directory`, and ends as it should."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREDLOG_")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == returncode, (ended.returncode, ended.stdout, ended.stderr)
    return ended.stdout


def count(directory: Path) -> int:
    connection = sqlite3.connect(directory / "predictions.db")
    try:
        return int(connection.execute("SELECT count(*) FROM predictions").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("reader", ["sqlite3.connect('data/predictions.db')", "sqlite3.connect('file:data/predictions.db?mode=ro', uri=True)"])
def test_a_process_reads_its_own_database(tmp_path: Path, reader: str) -> None:
    """Another copy of SQLite in the process takes nothing away from the logger's: neither its locks nor its -wal file."""
    code = f"""
        import predlog, sqlite3, sys, time
        logger = predlog.Logger(direct={{"dir": "data"}}, batch={{"max_age": "20ms"}})
        accepted, until = 0, time.time() + 2
        while time.time() < until:
            accepted += sum(bool(logger.log("wine", n)) for n in range(20))
            try:
                reader = {reader}
                reader.execute("SELECT count(*) FROM predictions").fetchone()
                reader.close()
                with open("data/predictions.db", "rb") as copied:
                    copied.read(100)
            except sqlite3.OperationalError:
                pass  # The logger had it locked.
            time.sleep(0.01)
        report = logger.close()
        assert report["delivered"] == accepted, report
        print(accepted)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREDLOG_")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert count(tmp_path / "data") == sum(map(int, printed)) > 0


def test_a_killed_process_that_has_read_its_own_database_loses_nothing(tmp_path: Path) -> None:
    """What was committed after the reader closed is in the database for everybody."""
    code = """
        import os, predlog, signal, sqlite3
        logger = predlog.Logger(direct={"dir": "data"})
        assert all([logger.log("wine", n) for n in range(10)]) and logger.flush()
        reader = sqlite3.connect("data/predictions.db")
        assert reader.execute("SELECT count(*) FROM predictions").fetchone() == (10,)
        reader.close()
        assert all([logger.log("wine", n) for n in range(10)]) and logger.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run(code, tmp_path, -signal.SIGKILL)
    assert count(tmp_path / "data") == 20


@pytest.mark.parametrize("store", ["sqlite", "parquet"])
def test_the_directory_stays_where_it_was(tmp_path: Path, store: str) -> None:
    """A relative directory is of where the logger was made, whatever the process's own is later, also after a fork."""
    code = f"""
        import os, predlog
        os.mkdir("a"), os.mkdir("b"), os.chdir("a")
        logger = predlog.Logger(direct={{"dir": "data", "store": "{store}"}})
        logger.log("wine", 1)
        os.chdir("../b")
        logger.log("wine", 2)
        if os.fork() == 0:
            logger.log("wine", 3)
            assert logger.close()["delivered"] == 1
            os._exit(0)
        os.wait()
        logger.log("wine", 4)
        assert logger.close()["delivered"] == 3
        assert os.listdir(".") == []
    """
    run(code, tmp_path)
    if store == "sqlite":
        assert count(tmp_path / "a/data") == 4


def test_values_are_not_kept_alive(tmp_path: Path) -> None:
    """Of what is kept as text nothing else stays in memory, also where no other call into the extension comes."""
    code = """
        import predlog, resource
        logger = predlog.Logger(direct={"dir": "data"})

        class Image:
            def __init__(self):
                self.pixels = bytearray(10_000_000)

        logger.log("wine", Image())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(40):
            logger.log("wine", Image())
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 60_000
    """
    run(code, tmp_path)


@pytest.mark.parametrize("handler", ["predlog.close()", "predlog.log('wine', 1)"])
def test_a_signal_while_the_default_logger_is_opened(tmp_path: Path, handler: str) -> None:
    """Its handler may close it, or log, whatever the thread is in the middle of."""
    code = f"""
        import predlog, signal
        signal.signal(signal.SIGALRM, lambda *_: {handler})
        for n in range(40):
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0005 * (n % 12))
            if n % 2:
                predlog.init(direct={{"dir": "data"}})
            else:
                predlog._default = None
                predlog.log("wine", n)
    """
    run(code, tmp_path)


def test_threads_that_log_as_the_process_ends(tmp_path: Path) -> None:
    """Daemon threads are stopped, and the process ends as any other."""
    code = """
        import predlog, threading, time
        predlog.init(direct={"dir": "data"})

        class Lazy:
            def __str__(self):
                time.sleep(0.01)
                return "x"

        def work():
            while True:
                predlog.log("wine", Lazy())

        for _ in range(16):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
    """
    for _ in range(3):
        run(code, tmp_path)


def test_a_logger_that_cannot_be_opened_again(tmp_path: Path) -> None:
    """After a fork on a full disk, say: calls answer at once, and nothing is left in the directory."""
    code = """
        import os, predlog, resource, time
        logger = predlog.Logger(direct={"dir": "data"})
        assert logger.log("wine", 1)
        if os.fork() == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
            start = time.monotonic()
            assert {logger.log("wine", 2).reason for _ in range(500)} == {"closed"}
            assert time.monotonic() - start < 1 and os.listdir("data/writers") == []
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            until = time.monotonic() + 20
            while not logger.log("wine", 3):
                assert time.monotonic() < until
            assert logger.close()["delivered"] == 1
            os._exit(0)
        assert os.wait()[1] == 0
    """
    run(code, tmp_path)
    assert count(tmp_path / "data") == 2


def test_signals_are_for_the_threads_of_the_process(tmp_path: Path) -> None:
    """A process that blocks a signal to wait for it gets it: no thread of predlog's takes it."""
    code = """
        import os, predlog, signal, time
        predlog.init(direct={"dir": "data"})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        print(signal.sigwait({signal.SIGTERM}) == signal.SIGTERM)
    """
    assert run(code, tmp_path) == "True\n"


def test_threads_of_multiprocessing_that_outlive_their_function(tmp_path: Path) -> None:
    """What they log is delivered by the next logger of the directory; since Python 3.13, which waits for them, by their own."""
    code = """
        import multiprocessing, predlog, sqlite3, threading, time

        def log():
            time.sleep(0.3)
            assert predlog.log("wine", 1)

        def child():
            predlog.init(direct={"dir": "data"})
            threading.Thread(target=log).start()

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        with predlog.Logger(direct={"dir": "data"}) as logger:
            until = time.monotonic() + 20
            while sqlite3.connect("data/predictions.db").execute("select count(*) from predictions").fetchall() != [(1,)]:
                assert time.monotonic() < until
                time.sleep(0.01)
    """
    run(code, tmp_path)
    assert count(tmp_path / "data") == 1


def test_what_waits_holds_up_nobody(tmp_path: Path) -> None:
    """With brokers away: other threads run while a logger is dropped, `flush()` sees Ctrl-C, and loggers end all at the same time."""
    code = """
        import predlog, signal, threading, time
        from predlog import _lifecycle

        def away(number):
            logger = predlog.Logger(mode="kafka", kafka={"brokers": "127.0.0.1:1", "fallback": {"dir": f"fallback{number}"}})
            assert logger.log("wine", 1)
            return logger

        longest = 0.0

        def tick():
            global longest
            while True:
                start = time.monotonic()
                time.sleep(0.01)
                longest = max(longest, time.monotonic() - start)

        threading.Thread(target=tick, daemon=True).start()
        dropped = away(0)
        del dropped
        assert longest < 2, longest

        logger = away(1)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        start = time.monotonic()
        try:
            logger.flush(20)
        except KeyboardInterrupt:
            assert time.monotonic() - start < 5
        else:
            raise AssertionError("no KeyboardInterrupt")

        loggers = [logger, away(2), away(3)]
        start = time.monotonic()
        _lifecycle._close_all()
        assert time.monotonic() - start < 9, time.monotonic() - start
        assert [logger.snapshot()["on_disk"] for logger in loggers] == [1, 1, 1]
    """
    run(code, tmp_path)


def test_children_of_a_busy_process_end_at_once(tmp_path: Path) -> None:
    """Threads that were in `log()` at the fork are not there in the child, and are not waited for."""
    code = """
        import os, predlog, threading, time
        from predlog import _lifecycle
        logger = predlog.Logger(direct={"dir": "data"})

        def work():
            while True:
                logger.log("wine", 1)

        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(3):
            if os.fork() == 0:
                start = time.monotonic()
                _lifecycle._close_all()
                os._exit(0 if time.monotonic() - start < 0.9 else 1)
            assert os.wait()[1] == 0
        report = logger.close(float(2**62))
        assert report["accepted"] == report["delivered"] > 0, report
    """
    run(code, tmp_path)


def test_closing_twice_at_the_same_time(tmp_path: Path) -> None:
    """Who comes second waits until all is delivered."""
    code = """
        import predlog, threading, time
        logger = predlog.Logger(direct={"dir": "data"}, logger={"durability": "memory"})
        accepted = sum(bool(logger.log("wine", n)) for n in range(60_000))
        threading.Thread(target=logger.close, daemon=True).start()
        time.sleep(0.001)
        assert logger.close()["delivered"] == accepted
    """
    run(code, tmp_path)
