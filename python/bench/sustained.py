"""Records a second, from the first call until Kafka has acknowledged the last; and rows a second of `log_batch`.

Starts a broker of its own. Each run is a process of its own, in turns; the figures are medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import INPUTS, OUTPUTS, PEERS, Confluent, KafkaPython, Peer, broker, create_topic, orjson, predlog_config

import predlog

ROUNDS = int(os.environ.get("ROUNDS", "3"))
RECORDS = int(os.environ.get("RECORDS", "1000000"))
#: kafka-python and aiokafka would take minutes.
SLOW = 20
ROWS, COLUMNS = 1_000_000, 12


class Log(Peer):
    """`log()` to Kafka. A queue that is full makes the call wait, as it does with the other clients."""

    def __init__(self, brokers: str, **kafka: Any) -> None:
        self._directory = tempfile.TemporaryDirectory()
        config = predlog_config(brokers, self._directory.name, **kafka)
        logger = predlog.Logger(config, logger={"overflow": "block", "block_limit": "60s"})
        self.send = lambda: logger.log("wine", INPUTS, OUTPUTS, model_version="1")
        self._logger = logger

    def flush(self) -> None:
        assert self._logger.flush(120.0)
        totals = self._logger.close()
        assert totals["dropped"] == {} and totals["delivered"] == totals["accepted"], totals


SENDERS: dict[str, Callable[[str], Peer]] = {
    **PEERS,
    "confluent-kafka, orjson, tuned": lambda brokers: Confluent(
        brokers, orjson.dumps, **{"linger.ms": 50, "batch.size": 1_000_000, "queue.buffering.max.messages": 1_000_000}
    ),
    "kafka-python send, tuned": lambda brokers: KafkaPython(brokers, batch_size=262_144, compression_type="lz4"),
    "predlog.log": lambda brokers: Log(brokers),
    "predlog.log, no headers": lambda brokers: Log(brokers, headers=False, key="none"),
    "predlog.log, ndjson": lambda brokers: Log(brokers, packing="ndjson", key="none"),
}


def frames() -> dict[str, Any]:
    import pandas as pd
    import polars as pl

    values = np.random.default_rng(0).random((ROWS, COLUMNS))
    columns = {f"feature_{number}": values[:, number].copy() for number in range(COLUMNS)}
    return {"log_batch, pandas": pd.DataFrame(columns), "log_batch, Polars": pl.DataFrame(columns), "log_batch, NumPy": values}


def batch(name: str) -> tuple[float, float]:
    """Rows a second until the call returns, with a queue that has room for them; and until SQLite has them. The worker has its share of the cores meanwhile."""
    frame = frames()[name]
    with tempfile.TemporaryDirectory() as directory:
        logger = predlog.Logger(direct={"dir": directory}, logger={"queue_bytes": "2GiB", "max_record_bytes": "64KiB"})
        logger.log_batch(frame[:10_000], model_name="wine")
        assert logger.flush(120.0)
        start = time.perf_counter()
        assert logger.log_batch(frame, model_name="wine", timeout=120.0) == ROWS
        accepted = time.perf_counter()
        assert logger.flush(300.0)
        stored = time.perf_counter()
        assert logger.close()["dropped"] == {}
    return ROWS / (accepted - start), ROWS / (stored - start)


def sustained(name: str, brokers: str) -> tuple[float, float]:
    """Records a second until the last call returns, and until all are delivered."""
    count = RECORDS // SLOW if name.startswith(("kafka-python", "aiokafka")) else RECORDS
    peer = SENDERS[name](brokers)
    start = time.perf_counter()
    peer.run(count)
    called = time.perf_counter()
    peer.flush()
    done = time.perf_counter()
    peer.close()
    return count / (called - start), count / (done - start)


def main() -> None:
    if len(sys.argv) > 1:
        name, brokers = sys.argv[1:]
        print(json.dumps(batch(name) if name.startswith("log_batch") else sustained(name, brokers)))
        return
    names = [*SENDERS, "log_batch, pandas", "log_batch, Polars", "log_batch, NumPy"]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory, broker(Path(directory)) as brokers:
        create_topic(brokers)
        for _ in range(ROUNDS):
            for name in names:
                done = subprocess.run([sys.executable, __file__, name, brokers], check=True, stdout=subprocess.PIPE, text=True)
                figures[name].append(json.loads(done.stdout))
    rates = {name: [statistics.median(column) for column in zip(*measured)] for name, measured in figures.items()}
    for name, (called, done) in rates.items():
        print(f"{name:32} called {called:9.0f}/s  delivered {done:9.0f}/s")
    for name, goal in (("confluent-kafka, orjson", 3), ("kafka-python send, orjson", 30)):
        for own in ("predlog.log", "predlog.log, no headers", "predlog.log, ndjson"):
            times = rates[own][1] / rates[name][1]
            print(f"{own}: {times:.1f} x {name} (at least {goal}: {'yes' if times >= goal else 'NO'})")


if __name__ == "__main__":
    main()
