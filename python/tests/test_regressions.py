"""Defects of values, batches and loggers that were found by hand: each test failed before its repair."""

from __future__ import annotations

import datetime
import inspect
import json
import sqlite3
import time
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from conftest import Store

import predlog

UTC = datetime.timezone.utc
LAST_DAY = datetime.datetime(9999, 12, 31, tzinfo=UTC)
ID = uuid.UUID(int=7)


def in_order(store: Store) -> list[dict[str, Any]]:
    return sorted(store.rows(), key=lambda row: int(row["row_index"]))


@pytest.mark.parametrize("seconds", [1.7e12, 1e30, -1e30, 253_402_300_800], ids=["milliseconds", "far", "long ago", "year 10000"])
def test_a_time_that_no_calendar_has_is_metadata(store: Store, seconds: float) -> None:
    with store.logger() as logger:
        now = time.time()
        assert logger.log("m", 1, timestamp=seconds)
        assert logger.snapshot()["encoded_as_text"] == 1
    (row,) = store.rows()
    assert row["metadata"] == {"timestamp": str(seconds)}
    assert row["timestamp"] / 1e6 == pytest.approx(now, abs=60)


def test_a_strict_logger_refuses_a_time_that_no_calendar_has(store: Store) -> None:
    with store.logger(strict=True) as logger, pytest.raises(TypeError, match="timestamp"):
        logger.log("m", 1, timestamp=1.7e12)


def test_parquet_takes_the_last_times_that_there_are(store: Store) -> None:
    """A time that could be written and not read back was a dead letter."""
    last = [LAST_DAY, LAST_DAY - datetime.timedelta(days=1), datetime.datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59Z", 253_402_300_799.9]
    times = [*last, 1.7e12, -62_135_596_800.0]
    with predlog.Logger(direct={"dir": store.dir, "store": "parquet"}) as logger:
        assert all(logger.log("m", {"n": number}, timestamp=at) for number, at in enumerate(times))
        assert logger.flush()
        totals = logger.snapshot()
    assert (totals["accepted"], totals["delivered"], totals["dropped"]) == (len(times), len(times), {})
    stored = [row for path in (store.dir / "predictions").rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    assert sorted(row["inputs"]["n"] for row in stored) == list(range(len(times)))
    assert not [path for path in store.dir.rglob("*") if "dead-letter" in path.parts and path.is_file()]


def odd_at(place: int, value: int, kind: Any) -> pa.Table:
    """A column of 10,000 zeros, but for one value."""
    numbers = np.zeros(10_000, "int32" if kind == pa.date32() else "int64")
    numbers[place] = value
    return pa.table({"t": pa.array(numbers).cast(kind)})


def numpy_times(year: str) -> pd.DataFrame:
    times = np.array(["1970-01-01"] * 10_000, "datetime64[s]")
    times[7] = np.datetime64(f"{year}-01-01", "s")
    return pd.DataFrame({"t": times})


LARGEST = 2**63 - 1
START = "1970-01-01T00:00:00"
TIMES: dict[str, tuple[Any, str, str]] = {
    "year 280000": (numpy_times("280000"), START, "8773779340800000000"),
    "year 300000": (numpy_times("300000"), START, "300000-01-01T00:00:00"),
    "us": (odd_at(7, LARGEST, pa.timestamp("us")), START, str(LARGEST)),
    "us, UTC": (odd_at(7, LARGEST, pa.timestamp("us", "UTC")), f"{START}+00:00", str(LARGEST)),
    "us, Berlin": (odd_at(7, LARGEST, pa.timestamp("us", "Europe/Berlin")), f"{START}+00:00", str(LARGEST)),
    "days": (odd_at(7, 2**31 - 1, pa.date32()), "1970-01-01", str(2**31 - 1)),
}


@pytest.mark.parametrize("name", TIMES)
def test_one_time_that_no_calendar_has_costs_the_others_nothing(store: Store, name: str) -> None:
    frame, others, odd = TIMES[name]
    with store.logger() as logger:
        assert logger.log_batch(frame, model_name="m") == 10_000
    assert [row["inputs"] for row in in_order(store)] == [{"t": odd if number == 7 else others} for number in range(10_000)]


IDS = pa.array([ID.bytes], pa.uuid())
PERIODS = pd.Series(pd.period_range("2026-01", periods=2, freq="M"))
MAPS = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))
EXTENSIONS: dict[str, tuple[Any, list[Any]]] = {
    "bins": (pd.DataFrame({"a": pd.cut([1, 5, 9], [0, 4, 10])}), [{"a": "(0, 4]"}, {"a": "(4, 10]"}, {"a": "(4, 10]"}]),
    "categories of periods": (pd.DataFrame({"a": PERIODS.astype("category")}), [{"a": "2026-01"}, {"a": "2026-02"}]),
    "within a list": (pa.table({"a": pa.ListArray.from_arrays([0, 1], IDS)}), [{"a": [str(ID)]}]),
    "within a struct": (pa.table({"a": pa.StructArray.from_arrays([IDS], ["id"])}), [{"a": {"id": str(ID)}}]),
    "within both": (pa.table({"a": pa.ListArray.from_arrays([0, 1], pa.StructArray.from_arrays([IDS], ["id"]))}), [{"a": [{"id": str(ID)}]}]),
    "names that are there twice": (pa.table([[1], [2]], names=["a", "a"]), [{"a": 1, "a.1": 2}]),
    "a batch with such": (pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"]), [{"a": 1, "a.1": 2}]),
    "such, and maps": (pa.table([pa.array([1]), MAPS], names=["a", "a"]), [{"a": 1, "a.1": [["k", 1]]}]),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_batch_and_a_value_say_the_same(store: Store, name: str) -> None:
    frame, expected = EXTENSIONS[name]
    with store.logger() as logger:
        assert logger.log_batch(frame, model_name="batch") == len(expected)
        assert logger.log("value", frame, row_index=len(expected))
    assert [row["inputs"] for row in in_order(store)] == [*expected, expected]


def test_a_name_that_is_no_unicode(store: Store) -> None:
    with store.logger() as logger:
        assert logger.log_batch(pd.DataFrame([[1, 2]], columns=pd.Index(["a\ud800", "b"], dtype=object)), model_name="m") == 1
    assert [row["inputs"] for row in store.rows()] == [{"a\\ud800": 1, "b": 2}]


@pytest.mark.parametrize("inputs", [[1, 2], np.array([1, 2])], ids=["list", "array"])
def test_keywords_of_a_batch(store: Store, inputs: Any) -> None:
    """None of them is an argument of what the batch goes through."""
    keywords = {"names": "abc", "logger": "x", "fields": "f"}
    with store.logger() as logger:
        assert logger.log_batch(inputs, model_name="m", timeout=float("inf"), **keywords) == 2
        with pytest.raises(TypeError, match="row_index"):
            logger.log_batch(inputs, model_name="m", row_index=5)
        assert logger.flush(float("inf"))
    assert [(row["inputs"], row["metadata"]) for row in in_order(store)] == [(number, keywords) for number in (1, 2)]


@pytest.mark.parametrize("height", [2, 3])
def test_a_tuple_of_arrays_is_an_answer_for_each_row(store: Store, height: int) -> None:
    """As many arrays as there are rows, or not."""
    means, deviations = np.arange(height) * 10.0, np.arange(height) / 4
    with store.logger() as logger:
        assert logger.log_batch(np.arange(height), (means, deviations), model_name="m") == height
    assert [(row["inputs"], row["outputs"]) for row in in_order(store)] == [(number, [number * 10.0, number / 4]) for number in range(height)]


def test_what_was_digested_is_known_when_the_logger_is_closed(store: Store) -> None:
    logger = store.logger()
    assert logger.log("m", {"a": "x" * 2_000_000})
    assert logger.close()["digested"] == logger.snapshot()["digested"] == 1


def test_variables_of_kubernetes_are_no_configuration(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sets for a service that is named `predlog`; a key that is spelt wrong is still told."""
    address = {"PREDLOG_SERVICE_HOST": "10.0.0.1", "PREDLOG_SERVICE_PORT": "8642", "PREDLOG_SERVICE_PORT_HTTP": "8642", "PREDLOG_PORT": "tcp://10.0.0.1:8642"}
    for name, value in {**address, "PREDLOG_PORT_8642_TCP": "tcp://10.0.0.1:8642", "PREDLOG_PORT_8642_TCP_ADDR": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with store.logger() as logger:
        assert logger.log("m", 1)
    assert [row["inputs"] for row in store.rows()] == [1]
    monkeypatch.setenv("PREDLOG_DIRECT__DIRR", "x")
    with pytest.raises(ValueError, match="PREDLOG_DIRECT__DIRR"):
        store.logger()


def test_configuration_that_is_no_unicode_or_no_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b"# \xe9\n")
    with pytest.raises(ValueError, match="latin.toml") as raised:
        predlog.Logger(file)
    assert type(raised.value) is ValueError
    number: Any = 3
    with pytest.raises(TypeError):
        predlog.Logger(number)
    monkeypatch.setenv("PREDLOG_DIRECT__STORE", "\udcff")
    with pytest.raises(ValueError, match="PREDLOG_DIRECT__STORE") as raised:
        store.logger()
    assert type(raised.value) is ValueError


@pytest.mark.parametrize("views", [np.True_, np.False_])
def test_a_bool_of_numpy_is_one(store: Store, views: Any) -> None:
    with store.logger(sqlite={"views": views}) as logger:
        assert logger.log("wine", {"a": 1})
    database = sqlite3.connect(store.dir / "predictions.db")
    found = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'view' AND name = 'model_wine'").fetchall()
    database.close()
    assert found == [(int(views),)]


def test_ids_and_versions_that_cannot_be_kept(store: Store) -> None:
    """An empty id is none; what is too long is metadata."""
    with store.logger() as logger:
        for number, (id, version) in enumerate([("", "v"), ("i" * 256, "v" * 1_024), ("é" * 129, "v"), ("own", "v" * 1_025)]):
            assert logger.log("m", number, id=id, model_version=version)
        refused = logger.actuals("", "m", {"a": 1})
        assert (bool(refused), refused.reason) == (False, "invalid")
        totals = logger.snapshot()
    assert (totals["accepted"], totals["dropped"], totals["encoded_as_text"]) == (4, {"invalid": 1}, 2)
    rows = sorted(store.rows(), key=lambda row: int(row["inputs"]))
    assert [row["model_version"] for row in rows] == ["v", "v" * 1_024, "v", None]
    assert [row["metadata"] for row in rows] == [None, None, {"id": "é" * 129}, {"model_version": "v" * 1_025}]
    assert [str(uuid.UUID(rows[at]["id"])) for at in (0, 2)] == [rows[0]["id"], rows[2]["id"]] and [rows[1]["id"], rows[3]["id"]] == ["i" * 256, "own"]


@pytest.mark.parametrize("kind", [dict, types.MappingProxyType])
def test_metadata_is_any_mapping_and_keywords_win(store: Store, kind: Any) -> None:
    with store.logger() as logger:
        assert logger.log("m", 1, metadata=kind({"region": "eu", "k": 1}), region="us")
        assert logger.log_batch([1], model_name="m", metadata=kind({"region": "eu", "k": 1}), region="us") == 1
        assert logger.log_batch(np.array([1]), model_name="m", metadata=kind({"region": "eu", "k": 1}), region="us") == 1
        assert logger.snapshot()["encoded_as_text"] == 0
    database = sqlite3.connect(store.dir / "predictions.db")
    texts = [text for (text,) in database.execute("SELECT metadata FROM predictions")]
    database.close()
    # Not only the last of two.
    assert [sorted(json.loads(text, object_pairs_hook=list)) for text in texts] == [[("k", "1"), ("region", "us")]] * 3


@pydantic.dataclasses.dataclass
class Person:
    age: int
    name: str = pydantic.Field(default="hidden", exclude=True)


VALUES: dict[str, tuple[Any, Any]] = {
    "an index of times": (pd.DatetimeIndex(["2026-01-02T03:04:05.5", "NaT"]), ["2026-01-02T03:04:05.500000", None]),
    "a far time": (np.datetime64("300000-01-01", "s"), "300000-01-01T00:00:00"),
    "far times": (np.array(["300000-01-01", "NaT"], "datetime64[s]"), ["300000-01-01T00:00:00", None]),
    "a field that pydantic excludes": (Person(age=7), {"age": 7}),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value(store: Store, name: str) -> None:
    value, expected = VALUES[name]
    with store.logger() as logger:
        assert logger.log("m", value)
    assert [row["inputs"] for row in store.rows()] == [expected]


def test_log_has_help() -> None:
    parameters = inspect.signature(predlog.Logger.log).parameters
    assert list(parameters)[:4] == ["self", "model_name", "inputs", "outputs"] and parameters["fields"].kind is inspect.Parameter.VAR_KEYWORD
    by_name = [name for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    assert by_name[:2] == ["model_version", "id"] and by_name[-2:] == ["metadata", "traceparent"]
    assert len((predlog.Logger.log.__doc__ or "").splitlines()) > 1
