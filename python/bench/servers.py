"""Requests a second and p99 of a Flask and a FastAPI server: without logging, with predlog, and with Kafka's clients.

Starts a broker of its own (see tests/kafka_broker.py). All servers of a framework are up at the same time and get load in turns of a quarter of a second, in an
order that changes with each pass: machines change their speed within seconds. A share is that of the mean of the turns before and after, which have no logging:
- "of none": those of another server, which has nothing to do with logging. Two such servers, of the same code, differ by 3 %, for as long as they run (where
  their memory lies, which seed their hashes have): so all servers are started anew every few passes.
- "of its own": those of the route `/plain` of the same server, which logs nothing.
Figures are medians of all passes. `predlog` is a call of `log()` to SQLite in the handler, `-middleware` the extension or middleware in its place, `-kafka` the
call to Kafka, and `-away` the same with no broker there. CPU is that of the server's processes alone, by request; of predlog's own threads it is given apart.
PASSES, PASSES_A_START, SECONDS (of a turn), FRAMEWORKS and CONTENDERS (names with blanks between) are variables of the environment.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peers import HERE, INPUTS, broker, create_topic

PASSES = int(os.environ.get("PASSES", "60"))
PASSES_A_START = int(os.environ.get("PASSES_A_START", "20"))
SECONDS = float(os.environ.get("SECONDS", "0.25"))
CLIENTS = 4
BODY = json.dumps(INPUTS).encode()
REQUEST = b"POST /%s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
CONTENDERS = {
    "flask": ["predlog", "predlog-middleware", "predlog-kafka", "predlog-away", "confluent-kafka", "kafka-python"],
    "fastapi": ["predlog", "predlog-middleware", "predlog-kafka", "predlog-away", "confluent-kafka", "aiokafka"],
}
#: Nothing listens there.
AWAY = "127.0.0.1:1"
COMMANDS = {
    "flask": ["gunicorn", "--worker-class", "gthread", "--threads", "4", "--log-level", "error", "--bind", "127.0.0.1:{port}", "apps:flask_app"],
    "fastapi": ["uvicorn", "--log-level", "error", "--no-access-log", "--port", "{port}", "apps:fastapi_app"],
}


def client(port: int, route: bytes, until: float) -> list[float]:
    """Times of requests on one connection, in seconds. What a client does itself is kept small: the cores are the servers'."""
    times: list[float] = []
    request = REQUEST % (route, len(BODY), BODY)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        while not times or time.time() < until:
            start = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(65_536)
            while len(answer) < (length := _length(answer)):
                part = connection.recv(65_536)
                assert part, answer
                answer += part
            times.append(time.perf_counter() - start)
            assert answer.startswith(b"HTTP/1.1 200") and len(answer) == length, answer
    return times


def _length(answer: bytes) -> int:
    """How long a response is, as far as its headers are there to tell."""
    head, end, _ = answer.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return len(head) + len(end) + int(found[1]) if end and found else len(answer) + 1


class Turn(NamedTuple):
    rate: float
    p99: float
    cpu: float
    own: float

    def beside(self, before: Turn, after: Turn) -> tuple[float, float, float]:
        """Its share of their rate and of their p99, and how much more CPU it took."""
        rate, p99, cpu = ((one + other) / 2 for one, other in zip(before[:3], after[:3]))
        return self.rate / rate, self.p99 / p99, self.cpu - cpu


class Server:
    """One server with one kind of logging."""

    def __init__(self, framework: str, logging: str, brokers: str, directory: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        places = {"PREDLOG_DIRECT__DIR": f"{directory}/{logging}/store", "PREDLOG_KAFKA__FALLBACK__DIR": f"{directory}/{logging}/fallback"}
        brokers = AWAY if logging == "predlog-away" else brokers
        environment = {**os.environ, **places, "LOGGING": logging, "BROKERS": brokers, "FRAMEWORK": framework, "PREDLOG_KAFKA__CREATE_TOPICS": "true"}
        command = [sys.executable, "-m", *(part.format(port=self.port) for part in COMMANDS[framework])]
        self.process = subprocess.Popen(command, cwd=HERE, env=environment)
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        client(self.port, b"predict", time.time() + 0.5)

    def turn(self, pool: Any, route: bytes = b"predict") -> Turn:
        before = self._cpu()
        measured = pool.starmap(client, [(self.port, route, time.time() + SECONDS)] * CLIENTS, 1)
        cpu = [after - first for after, first in zip(self._cpu(), before)]
        times = sorted(sum(measured, []))
        return Turn(sum(len(own) / sum(own) for own in measured), times[int(len(times) * 0.99)] * 1e3, *(ns / 1e3 / len(times) for ns in cpu))

    def _cpu(self) -> tuple[int, int]:
        """CPU time so far, in ns: of all threads, and of those that are not Python's."""
        total = own = 0
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for task in (task for pid in (str(self.process.pid), *children) for task in Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                ns = int((task / "schedstat").read_text().split()[0])
                total += ns
                own += ns if (task / "comm").read_text().startswith(("predlog", "rdk:")) else 0
        return total, own

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def servers(framework: str, brokers: str, directory: str, names: list[str]) -> Iterator[dict[str, Server]]:
    started: dict[str, Server] = {}
    try:
        for name in names:
            started[name] = Server(framework, name, brokers, directory)
        yield started
    finally:
        for server in started.values():
            server.end()


def measure(framework: str, contenders: list[str], brokers: str, directory: str) -> None:
    turns: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("none", *contenders)}
    with multiprocessing.get_context("spawn").Pool(CLIENTS) as pool:
        for first in range(0, PASSES, PASSES_A_START):
            with servers(framework, brokers, f"{directory}/{first}", list(turns)) as started:
                for server in started.values():
                    server.turn(pool)
                for _ in range(first, min(first + PASSES_A_START, PASSES)):
                    run_pass(started, random.sample(contenders, len(contenders)), pool, turns)
    for name, measured in turns.items():
        rate, p99, cpu, own, share, p99_share, more, own_share, own_p99_share, own_more = (statistics.median(column) for column in zip(*measured))
        print(
            f"{framework:8} {name:18} {rate:7.0f} requests/s  p99 {p99:5.2f} ms  CPU {cpu:5.0f} us, predlog's threads {own:5.1f} us"
            f"  of none {share:6.1%}, p99 {p99_share:6.1%}, CPU {more:+6.1f} us"
            f"  of its own {own_share:6.1%}, p99 {own_p99_share:6.1%}, CPU {own_more:+6.1f} us",
            flush=True,
        )


def run_pass(started: dict[str, Server], contenders: list[str], pool: Any, turns: dict[str, list[tuple[float, ...]]]) -> None:
    none, base = started["none"], started["none"].turn(pool)
    for name in contenders:
        server = started[name]
        before, turn, after = server.turn(pool, b"plain"), server.turn(pool), server.turn(pool, b"plain")
        next_base = none.turn(pool)
        turns[name].append((*turn, *turn.beside(base, next_base), *turn.beside(before, after)))
        turns["none"].append((*next_base, *next_base.beside(base, base), *next_base.beside(base, base)))
        base = next_base


def main() -> None:
    wanted = os.environ.get("CONTENDERS", "").split()
    frameworks = os.environ.get("FRAMEWORKS", " ".join(CONTENDERS)).split()
    contenders = {framework: [name for name in CONTENDERS[framework] if not wanted or name in wanted] for framework in frameworks}
    needed = any("kafka" in name for names in contenders.values() for name in names)
    with tempfile.TemporaryDirectory() as directory, broker(Path(directory)) if needed else contextlib.nullcontext(AWAY) as brokers:
        if needed:
            create_topic(brokers)
        for framework, names in contenders.items():
            measure(framework, names, brokers, f"{directory}/{framework}")


if __name__ == "__main__":
    main()
