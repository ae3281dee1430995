"""What becomes of each kind of value."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import json
import math
import sqlite3
import threading
import uuid
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pydantic
import pytest
from conftest import Store

from predlog import Json


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Wine:
    alcohol: float
    tags: tuple[str, ...]


class Model(pydantic.BaseModel):
    ph: float
    wine: Wine


Point = namedtuple("Point", "x y")
ID = uuid.UUID(int=7)
UTC = datetime.timezone.utc

CASES: dict[str, tuple[Any, Any]] = {
    "plain": ({"a": 1, "b": -2.5, "c": "é\n\"", "d": True, "e": None, "f": [1, (2, 3)]}, {"a": 1, "b": -2.5, "c": "é\n\"", "d": True, "e": None, "f": [1, [2, 3]]}),
    "not finite": ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"]),
    "64 bits": ([2**63 - 1, -(2**63), 2**64 - 1], [2**63 - 1, -(2**63), 2**64 - 1]),
    "keys": ({1: "a", 1.5: "b", True: "c", None: "d", Color.RED: "e"}, {"1": "c", "1.5": "b", "null": "d", "red": "e"}),
    "subclasses": ([OrderedDict(x=1), Point(1, 2), Level.HIGH, np.float64(0.5)], [{"x": 1}, {"x": 1, "y": 2}, 3, 0.5]),
    "dataclass": (Wine(9.5, ("dry",)), {"alcohol": 9.5, "tags": ["dry"]}),
    "pydantic": (Model(ph=3.5, wine=Wine(9.5, ())), {"ph": 3.5, "wine": {"alcohol": 9.5, "tags": []}}),
    "time": ([datetime.datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime.date(2026, 1, 2), datetime.time(3, 4)], ["2026-01-02T03:04:05.000006+00:00", "2026-01-02", "03:04:00"]),
    "text": ([decimal.Decimal("1.10"), ID, Color.RED, b"\x00\xff", {7}], ["1.10", str(ID), "red", "AP8=", [7]]),
    "numpy": ([np.int8(3), np.bool_(True), np.arange(4).reshape(2, 2), np.array([0.5, np.nan])], [3, True, [[0, 1], [2, 3]], [0.5, "NaN"]]),
    "numpy times": (np.array(["2026-01-02T03:04:05"], "datetime64[s]"), ["2026-01-02T03:04:05.000000"]),
    "pandas": (pd.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
    "pandas row": (pd.DataFrame({"a": [1], "b": [2]}).iloc[0], {"a": 1, "b": 2}),
    "polars": (pl.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
    "polars series": (pl.Series([1, 2]), [1, 2]),
}


def test_a_keyword_with_a_lone_surrogate_is_metadata(store: Store) -> None:
    with store.logger() as logger:
        assert logger.log("m", 1, 2, **{"\ud800": 1})
    assert store.rows()[0]["metadata"] == {"\\ud800": "1"}


def test_json_that_is_encoded_already_is_kept_to_the_letter(store: Store) -> None:
    body = b' { "a" : 1.50, "b": [1e400, 123456789012345678901234567890], "a": "\\ud83d\\ude00" } \n'
    deep = b"[" * 100_000 + b"]" * 100_000
    with store.logger(strict=True) as logger:
        assert logger.log("m", Json(body), [Json(b"1.0"), {"x": Json(bytearray(b"null"))}], timestamp=1)
        assert logger.log("m", Json(b'{"a": NaN, "b": -Infinity}'), Json(b"not {json}"), timestamp=2)
        assert logger.log("m", Json(b""), Json(b"\xff[1] 2"), timestamp=3)
        assert logger.log("m", Json(deep), Json(b"1 2"), timestamp=4)
    database = sqlite3.connect(store.dir / "predictions.db")
    rows = database.execute("SELECT inputs, outputs FROM predictions ORDER BY timestamp").fetchall()
    database.close()
    assert rows[0] == ('{"a":1.50,"b":[1e400,123456789012345678901234567890],"a":"\\ud83d\\ude00"}', '[1.0,{"x":null}]')
    assert rows[1] == ('{"a":"NaN","b":"-Infinity"}', '"not {json}"')
    assert rows[2] == ('""', '"\\\\xff[1] 2"')
    assert '"sha256"' in rows[3][0] and rows[3][1] == '"1 2"'
    with pytest.raises(TypeError):
        Json("text")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_value(store: Store, name: str) -> None:
    value, expected = CASES[name]
    with store.logger(strict=True) as logger:
        assert logger.log("m", {"value": value}, 1)
    assert logger.snapshot()["encoded_as_text"] == 0
    assert store.rows()[0]["inputs"] == {"value": expected}


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no")


class Endless:
    def __len__(self) -> int:
        return 1

    @property
    def __dict__(self) -> Any:
        raise RuntimeError

    def keys(self) -> Any:
        return ["x"]

    def items(self) -> Any:
        return [("x", Endless())]


class Growing:
    def __init__(self, dict: dict[str, Any]) -> None:
        self.dict = dict

    def __str__(self) -> str:
        for step in range(1_000):
            self.dict[f"new {step}"] = 0
        return "grown"


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value["b"] = value
    return value


def growing() -> dict[str, Any]:
    value: dict[str, Any] = {"first": 1}
    value["grows"] = Growing(value)
    return value


def shared() -> list[Any]:
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    return value


def test_hostile_values_neither_raise_nor_crash(store: Store) -> None:
    digest = {"sha256": None, "bytes": None}
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with store.logger() as logger:
        for value in (cyclic(), deep, Endless(), 10**30, 10**5_000, "a\ud800", {"\udc80": 1}, Unprintable(), (n for n in [1]), object, growing()):
            assert logger.log("m", value, None)
        assert logger.log("m", shared(), None).reason == "invalid"
    inputs = [row["inputs"] for row in store.rows()]
    assert inputs[:2] == [digest] * 2 and len(inputs[2]["sha256"]) == 64
    assert inputs[3:8] == [str(10**30), "<int: str() raised ValueError>", "a\\ud800", {"\\udc80": 1}, "<Unprintable: str() raised ValueError>"]
    assert inputs[8].startswith("<generator object") and inputs[9] == "<class 'object'>"
    assert inputs[10]["first"] == 1 and inputs[10]["grows"] == "grown"
    assert logger.snapshot()["encoded_as_text"] >= 8


@dataclasses.dataclass
class Node:
    """Converted at each level."""

    child: Any


class Text(str):
    pass


def nested(depth: int) -> Any:
    """So many containers, of all kinds, one within the other."""
    value: Any = ["deepest", Text("text"), 2**63, None, 1.5]
    for level in range(depth - 1):
        value = [{"a": value, 1: "b"}, [level, value, "x"], (value,), Node(value), OrderedDict(é=value)][level % 5]
    return value


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda node: {"child": node.child}))


def test_what_is_nested_deep_needs_no_stack(store: Store) -> None:
    depths = [1, 31, 32, 33, 34, 63, 64, 65, 66, 200, 400]
    deepest: list[Any] = []
    for _ in range(100_000):
        deepest = [deepest]
    before = threading.stack_size(256 * 1024)
    try:
        with store.logger(strict=True) as logger:

            def work() -> None:
                for depth in depths:
                    assert logger.log("m", nested(depth), None)
                for value in (cyclic(), deepest, [Json(b"[" * 1_000 + b"]" * 1_000)]):
                    assert logger.log("m", value, None)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    finally:
        threading.stack_size(before)
    inputs = [row["inputs"] for row in store.rows()]
    for depth, value in zip(depths, inputs):
        expected = plain(nested(depth))
        if depth > 64:
            text = json.dumps(expected, ensure_ascii=False, separators=(",", ":")).encode()
            expected = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
        assert value == expected, depth
    cycle, endless, raw = inputs[len(depths) :]
    assert cycle == endless == {"sha256": None, "bytes": None}
    assert raw["bytes"] == 2_002


def test_what_strict_refuses_deep_within_is_refused(store: Store) -> None:
    with store.logger(strict=True) as logger:
        for value, error in ((object(), TypeError), ({object(): 1}, TypeError), (10**30, TypeError), ("\ud800", UnicodeEncodeError), (Text("\ud800"), UnicodeEncodeError)):
            for _ in range(40):
                value = [value]
            with pytest.raises(error):
                logger.log("m", value, None)
    value = [10**30, Text("a\ud800"), {"\ud800": object}, *[Node(1) for _ in range(300)]]
    for _ in range(40):
        value = [value]
    with store.logger() as logger:
        assert logger.log("m", value, None)
        assert logger.snapshot()["encoded_as_text"] == 4
    [row] = store.rows()
    found = row["inputs"]
    for _ in range(40):
        [found] = found
    assert found == [str(10**30), "a\\ud800", {"\\ud800": "<class 'object'>"}, *[{"child": 1}] * 300]


def test_a_large_dict_becomes_its_digest(store: Store) -> None:
    with store.logger() as logger:
        assert logger.log("m", {str(key): key for key in range(1_000_000)}, None)
    row = store.rows()[0]
    assert row["inputs"]["bytes"] > 10_000_000 and len(row["inputs"]["sha256"]) == 64


@pytest.mark.parametrize("value", [object(), 10**30, {object(): 1}])
def test_strict_raises(store: Store, value: Any) -> None:
    with store.logger(strict=True) as logger:
        with pytest.raises(TypeError, match="expected"):
            logger.log("m", [value], None)
        with pytest.raises(UnicodeEncodeError):
            logger.log("m", "\ud800", None)
        assert logger.log("m", 1, 2)


def test_an_interrupt_reaches_the_caller(store: Store) -> None:
    class Interrupting:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with store.logger() as logger, pytest.raises(KeyboardInterrupt):
        logger.log("m", Interrupting(), None)


def test_fields(store: Store) -> None:
    at = datetime.datetime(2020, 1, 2, 3, 4, 5, 6, UTC)
    with store.logger() as logger:
        outcome = logger.log(
            model_name="m", model_version="1", inputs={}, outputs=[], id=ID, timestamp=at, request_id="r", row_index=np.int64(3), status_code=200,
            error="e", latency_ms=1.5, sample_weight=2, metadata={"k": 1}, traceparent="t", region="eu",
        )
        assert outcome and outcome.seq is not None and outcome.reason is None
        logger.log("m", 1, 2, status_code="teapot", latency_ms=[1], timestamp=object)
        refused = logger.log("", 1, 2)
        assert not refused and refused.reason == "invalid" and refused.seq is None
    rows = store.rows()
    full = {key: rows[0][key] for key in ("id", "model_version", "request_id", "row_index", "status_code", "error", "latency_ms", "sample_weight", "traceparent")}
    assert full == dict(id=str(ID), model_version="1", request_id="r", row_index=3, status_code=200, error="e", latency_ms=1.5, sample_weight=2.0, traceparent="t")
    assert rows[0]["metadata"] == {"k": "1", "region": "eu"}
    assert rows[0]["timestamp"] == int(at.timestamp()) * 1_000_000 + 6
    assert rows[1]["metadata"] == {"status_code": "teapot", "latency_ms": "[1]", "timestamp": "<class 'object'>"}


def test_a_row_index_past_its_column_is_metadata(store: Store) -> None:
    with store.logger() as logger:
        for time, index in enumerate((2**63 - 1, 2**63, np.uint64(2**64 - 1), 2**64, -1)):
            assert logger.log("m", 1, 2, row_index=index, timestamp=time)
        assert logger.snapshot()["encoded_as_text"] == 4
    rows = store.rows()
    assert [row["row_index"] for row in rows] == [2**63 - 1, None, None, None, None]
    assert [row["metadata"] for row in rows[1:]] == [{"row_index": str(index)} for index in (2**63, 2**64 - 1, 2**64, -1)]
    with store.logger(strict=True) as strict, pytest.raises(TypeError, match="row_index as an int from 0 to"):
        strict.log("m", 1, 2, row_index=2**63)
