"""The time of one call, against json.dumps and orjson.dumps of the same dict, in turns."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import orjson

import predlog

INPUTS = {f"feature_{number}": 0.5 + number * 1.37 for number in range(12)}
ROUNDS, CALLS = 200, 1_000


def main() -> None:
    with tempfile.TemporaryDirectory() as dir, predlog.Logger(direct={"dir": dir}) as logger:
        contenders: dict[str, Callable[[], Any]] = {
            "orjson.dumps": lambda: orjson.dumps(INPUTS),
            "json.dumps": lambda: json.dumps(INPUTS),
            "predlog.log": lambda: logger.log("wine", INPUTS, 5.2),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, call in contenders.items():
                start = time.perf_counter_ns()
                for _ in range(CALLS):
                    call()
                times[name].append((time.perf_counter_ns() - start) / CALLS)
            logger.flush()
        for name, measured in times.items():
            print(f"{name:14} median {statistics.median(measured):7.0f} ns  best {min(measured):7.0f} ns")
        print("dropped", logger.snapshot()["dropped"])


if __name__ == "__main__":
    main()
