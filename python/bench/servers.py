"""Requests a second and p99 of a Flask and a FastAPI server: without logging, with predlog, and with Kafka's clients, in turns in the same run.

Starts a broker of its own (see tests/kafka_broker.py). A pass measures no logging first and last, and each share is of the mean of the two in its own pass.
`predlog` is a call of `log()` to SQLite in the handler, `-middleware` the extension or middleware in its place, `-kafka` the call to Kafka, and `-away` the
same with no broker there.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import HERE, INPUTS, broker, create_topic

PASSES = int(os.environ.get("PASSES", "3"))
SECONDS = float(os.environ.get("SECONDS", "5"))
CLIENTS = 4
BODY = json.dumps(INPUTS)
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


def client(port: int, until: float) -> list[float]:
    """Times of requests on one connection, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times = []
    while time.time() < until:
        start = time.perf_counter()
        connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        times.append(time.perf_counter() - start)
    return times


def measure(framework: str, logging: str, brokers: str, directory: str) -> tuple[float, float]:
    """Requests a second, and the p99 in milliseconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"PREDLOG_DIRECT__DIR": f"{directory}/store", "PREDLOG_KAFKA__FALLBACK__DIR": f"{directory}/fallback"}
    brokers = AWAY if logging == "predlog-away" else brokers
    environment = {**os.environ, **places, "LOGGING": logging, "BROKERS": brokers, "FRAMEWORK": framework, "PREDLOG_KAFKA__CREATE_TOPICS": "true"}
    command = [sys.executable, "-m", *(part.format(port=port) for part in COMMANDS[framework])]
    server = subprocess.Popen(command, cwd=HERE, env=environment)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert server.poll() is None and time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        client(port, time.time() + 1)
        with multiprocessing.get_context("spawn").Pool(CLIENTS) as pool:
            measured = pool.starmap(client, [(port, time.time() + SECONDS + 1)] * CLIENTS)
        times = sorted(sum(measured, []))
        return sum(len(own) / sum(own) for own in measured), times[int(len(times) * 0.99)] * 1e3
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, broker(Path(directory)) as brokers:
        create_topic(brokers)
        for framework, contenders in CONTENDERS.items():
            passes: dict[str, list[tuple[float, float, float, float]]] = {contender: [] for contender in ("none", *contenders)}
            for _ in range(PASSES):
                run = [(name, *measure(framework, name, brokers, directory)) for name in ("none", *contenders, "none")]
                base, base_p99 = (statistics.mean(column) for column in zip(run[0][1:], run[-1][1:]))
                for contender, rate, p99 in run:
                    passes[contender].append((rate, rate / base, p99, p99 / base_p99))
            for contender, measured in passes.items():
                rate, share, p99, p99_share = (statistics.median(column) for column in zip(*measured))
                print(
                    f"{framework:8} {contender:18} {rate:7.0f} requests/s  {share:6.1%} of none  p99 {p99:5.1f} ms  {p99_share:6.1%} of none",
                    flush=True,
                )


if __name__ == "__main__":
    main()
