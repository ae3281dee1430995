"""The time of one call, flat out: `log()`, encoders alone, and Kafka's clients, in turns in the same process.

Starts a broker of its own. The median is of single calls, each timed (what an empty call takes is the first row); the mean is of calls in a row.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from peers import INPUTS, PEERS, Peer, broker, create_topic, predlog_config, timed

import predlog

ROUNDS, CALLS = int(os.environ.get("ROUNDS", "30")), 2_000
#: What log() may take beside orjson.dumps of the same dict, in ns.
GOAL_NS = 400


class Encoder(Peer):
    """What sends nothing."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.send = call

    def flush(self) -> None:
        pass


class Log(Peer):
    """`log()` of the inputs and a number."""

    def __init__(self, config: dict[str, Any]) -> None:
        logger = predlog.Logger(config)
        self.send = lambda: logger.log("wine", INPUTS, 5.2)
        self.logger = logger

    def flush(self) -> None:
        assert self.logger.flush(120.0)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, broker(Path(directory)) as brokers:
        create_topic(brokers)
        logs = {
            "predlog.log, SQLite": Log({"direct": {"dir": f"{directory}/direct"}}),
            "predlog.log, Kafka": Log(predlog_config(brokers, f"{directory}/fallback")),
        }
        contenders: dict[str, Peer] = {
            "nothing": Encoder(lambda: None),
            "orjson.dumps": Encoder(lambda: orjson.dumps(INPUTS)),
            "json.dumps": Encoder(lambda: json.dumps(INPUTS)),
            **logs,
            **{name: peer(brokers) for name, peer in PEERS.items()},
        }
        singles: dict[str, list[float]] = {name: [] for name in contenders}
        means: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, peer in contenders.items():
                singles[name].append(statistics.median(peer.times(CALLS)))
                peer.flush()
                start = time.perf_counter_ns()
                peer.run(CALLS)
                means[name].append((time.perf_counter_ns() - start) / CALLS)
                peer.flush()
        for peer in contenders.values():
            peer.close()
        for log in logs.values():
            assert log.logger.close()["dropped"] == {}
    report({name: statistics.median(measured) for name, measured in singles.items()}, means)


def report(medians: dict[str, float], means: dict[str, list[float]]) -> None:
    best = medians["predlog.log, SQLite"]
    for name, median in medians.items():
        print(f"{name:28} median {median:7.0f} ns  mean {statistics.median(means[name]):7.0f} ns  {median / best:6.2f} x log()")
    for name in ("predlog.log, SQLite", "predlog.log, Kafka"):
        more = medians[name] - medians["orjson.dumps"]
        print(f"{name}: orjson.dumps + {more:.0f} ns (at most {GOAL_NS}: {'yes' if more <= GOAL_NS else 'NO'})")


if __name__ == "__main__":
    main()
