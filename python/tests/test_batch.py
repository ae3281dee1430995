"""Frames and arrays: a record for each row."""

from __future__ import annotations

import datetime
import decimal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import Store

from predlog import _rows

UTC = datetime.timezone.utc
AT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "numpy", "list"])
def test_a_batch_is_a_record_for_each_row(store: Store, kind: str) -> None:
    columns = {"a": list(range(10_000)), "b": [0.5] * 10_000}
    frames = {"pandas": pd.DataFrame(columns), "polars": pl.DataFrame(columns), "pyarrow": pa.table(columns), "numpy": np.array(columns["a"]), "list": columns["a"]}
    with store.logger() as logger:
        assert logger.log_batch(frames[kind], np.ones(10_000), model_name="m", model_version="1") == 10_000
        assert logger.log_batch(frames[kind], [1], model_name="other") == 1
    rows = [row for row in store.rows() if row["model_name"] == "m"]
    assert sorted(row["row_index"] for row in rows) == list(range(10_000))
    assert len({row["request_id"] for row in rows}) == 1
    last = max(rows, key=lambda row: row["row_index"])
    assert last["inputs"] == ({"a": 9_999, "b": 0.5} if kind in ("pandas", "polars", "pyarrow") else 9_999) and last["outputs"] == 1.0


CASES: dict[str, tuple[Any, list[Any]]] = {
    "numbers": (pa.table({"a": pa.array([1, None], pa.int8()), "b": pa.array([0.5, None], pa.float16()), "c": pa.array([2**64 - 1, 0], pa.uint64())}), [{"a": 1, "b": 0.5, "c": 2**64 - 1}, {"a": None, "b": None, "c": 0}]),
    "not finite": (np.array([np.nan, np.inf, -np.inf]), ["NaN", "Infinity", "-Infinity"]),
    "float32": (np.array([0.1], "float32"), [float(np.float32(0.1))]),
    "other bytes' order": (np.array([1, 2], ">i4"), [1, 2]),
    "strided": (np.arange(8)[::3], [0, 3, 6]),
    "fortran": (np.asfortranarray(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]]),
    "bool": (pd.DataFrame({"a": [True, False]}), [{"a": True}, {"a": False}]),
    "pandas nulls": (pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [0.5, np.nan], "c": pd.array(["x", None], "str")}), [{"a": 1, "b": 0.5, "c": "x"}, {"a": None, "b": "NaN", "c": None}]),
    "pandas index": (pd.DataFrame({"a": [1, 2, 3]}).iloc[1:], [{"a": 2}, {"a": 3}]),
    "pandas times": (pd.DataFrame({"a": pd.to_datetime(["2026-01-02T03:04:05", None])}), [{"a": "2026-01-02T03:04:05"}, {"a": None}]),
    "categories": (pl.DataFrame({"a": pl.Series(["x", "y"], dtype=pl.Categorical)}), [{"a": "x"}, {"a": "y"}]),
    "text": (pl.DataFrame({"a": ["é\n\"", None]}), [{"a": "é\n\""}, {"a": None}]),
    "times": (pa.table({"t": pa.array([AT], pa.timestamp("us", "UTC")), "d": pa.array([AT.date()]), "s": pa.array([datetime.timedelta(seconds=1.5)])}), [{"t": "2026-01-02T03:04:05+00:00", "d": "2026-01-02", "s": 1.5}]),
    "bytes and decimals": (pa.table({"b": pa.array([b"\x00\xff"]), "d": pa.array([decimal.Decimal("1.10")])}), [{"b": "AP8=", "d": "1.10"}]),
    "nested": (pl.DataFrame({"a": [[1, 2], []], "b": [{"x": 1}, {"x": None}]}), [{"a": [1, 2], "b": {"x": 1}}, {"a": [], "b": {"x": None}}]),
    "a series": (pl.Series([1.5, None]), [1.5, None]),
}


@pytest.mark.parametrize("name", CASES)
def test_columns(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, expected = CASES[name]
    monkeypatch.delattr(_rows, "rows")
    with store.logger() as logger:
        assert logger.log_batch(frame, model_name="m", metadata={"k": 1}, region="eu") == len(expected)
    rows = sorted(store.rows(), key=lambda row: int(row["row_index"]))
    assert [row["inputs"] for row in rows] == expected
    assert rows[0]["metadata"] == {"k": "1", "region": "eu"}


BY_ROWS: dict[str, tuple[Any, list[Any]]] = {
    "python objects": (pd.DataFrame({"a": [1, "x"]}, dtype="object"), [{"a": 1}, {"a": "x"}]),
    "maps": (pa.table({"a": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}), [{"a": [["k", 1]]}]),
    "three dimensions": (np.zeros((1, 1, 1)), [[[0.0]]]),
    "complex": (np.array([1j]), ["1j"]),
}


@pytest.mark.parametrize("name", BY_ROWS)
def test_what_has_no_columns_goes_by_rows(store: Store, name: str) -> None:
    frame, expected = BY_ROWS[name]
    with store.logger() as logger:
        assert logger.log_batch(frame, model_name="m") == len(expected)
    assert [row["inputs"] for row in store.rows()] == expected


@pytest.mark.parametrize("make", [pa.chunked_array, pl.Series], ids=["pyarrow", "numbers"])
def test_chunks_of_inputs_and_outputs_need_not_agree(store: Store, make: Callable[[Any], Any]) -> None:
    table = pa.table({"a": pa.chunked_array([range(0, 7), [], range(7, 20_000)]), "l": pa.chunked_array([[[n] for n in range(20_000)]])})
    numbers = list(range(20_000))
    outputs = make([numbers[:9_000], numbers[9_000:]]) if make is pa.chunked_array else make(numbers)
    with store.logger() as logger:
        assert logger.log_batch(table, outputs, model_name="m") == 20_000
    rows = store.rows()
    assert len(rows) == 20_000
    assert all(row["inputs"] == {"a": row["row_index"], "l": [row["row_index"]]} and row["outputs"] == row["row_index"] for row in rows)


def test_a_batch_larger_than_the_queue_waits_and_loses_nothing(store: Store) -> None:
    frame = {f"feature_{number}": np.random.default_rng(number).random(300_000) for number in range(12)}
    with store.logger(logger={"queue_bytes": "8MiB"}) as logger:
        assert logger.log_batch(pl.DataFrame(frame), model_name="m", timeout=120.0) == 300_000
        assert logger.flush(120.0)
        totals = logger.snapshot()
    assert totals["dropped"] == {} and totals["delivered"] == 300_000


def test_other_threads_run_meanwhile(store: Store) -> None:
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    with store.logger() as logger:
        thread.start()
        before = ticks
        logger.log_batch(np.random.default_rng(0).random((300_000, 4)), model_name="m")
        during = ticks - before
        stop.set()
        thread.join()
    assert during > 2


def test_a_refused_batch_is_counted(store: Store) -> None:
    logger = store.logger()
    logger.close()
    assert logger.log_batch(np.arange(10), model_name="m") == 0
    assert logger.snapshot()["dropped"] == {"closed": 10}


@pytest.mark.parametrize("depth", [63, 65, 300, 3_000])
def test_columns_nested_deep_need_no_stack(store: Store, depth: int) -> None:
    kind, value = pa.int64(), 7
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]
    frame = pa.table({"a": pa.array([value] * 3, kind)})
    with store.logger() as logger:
        assert logger.log_batch(frame, model_name="m") == 3
    rows = [row["inputs"] for row in store.rows()]
    if depth < 64:
        assert rows == [{"a": value}] * 3
    else:
        assert [set(row) for row in rows] == [{"sha256", "bytes"}] * 3, rows
