"""Rows of frames, tables, arrays and lists: by columns and by rows they say the same."""

from __future__ import annotations

import array
import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import Store, logged

from predlog import _rows
from predlog._columns import source

BERLIN = "Europe/Berlin"
NOON = datetime.datetime(2026, 7, 1, 12)
TEN = "2026-07-01T10:00:00+00:00"


# By rows as by columns.

ZONED = pd.Series([NOON, None]).dt.tz_localize(BERLIN)
MISSING: dict[str, tuple[Any, list[Any]]] = {
    "str": (pd.Series(["a", None], dtype="str"), ["a", None]),
    "string": (pd.Series(["a", None], dtype="string"), ["a", None]),
    "categories": (pd.Series(["p", None], dtype="category"), ["p", None]),
    "categories of numbers": (pd.Series([1, None], dtype="Int64").astype("category"), [1, None]),
    "categories of times": (ZONED.astype("category"), [TEN, None]),
    "integers": (pd.Series([1, None], dtype="Int64"), [1, None]),
    "a zone": (ZONED, [TEN, None]),
    "a zone of Arrow": (pd.Series([NOON, None]).dt.tz_localize(BERLIN).astype(pd.ArrowDtype(pa.timestamp("us", BERLIN))), [TEN, None]),
    "NumPy's": (pd.Series([0.5, np.nan]), [0.5, "NaN"]),
    "intervals": (pd.Series(pd.arrays.IntervalArray.from_tuples([(0, 1), None])), ["(0.0, 1.0]", None]),
}
#: No column that Arrow has.
OBJECT = pd.Series([{"x": 1}, None], dtype=object)


@pytest.mark.parametrize("name", MISSING)
def test_what_a_column_of_pandas_calls_missing_is_so_by_rows(store: Store, name: str) -> None:
    column, expected = MISSING[name]
    with store.logger() as logger:
        logger.log_batch(pd.DataFrame({"a": column}), model_name="by columns")
        logger.log_batch(pd.DataFrame({"a": column, "o": OBJECT}), model_name="by rows")
        logger.log_batch(pd.DataFrame({"a": column}), [{"y": 1}, {"y": 2}], model_name="by rows of outputs")
        logger.log_batch([[1], [2]], column, model_name="a series")
        logger.log("a frame", pd.DataFrame({"a": column}))
        logger.log("a value", column)
    found: dict[str, list[Any]] = {}
    for row in sorted(store.rows(), key=lambda row: row["row_index"] or 0):
        found.setdefault(row["model_name"], []).append(row["outputs"] if row["model_name"] == "a series" else row["inputs"])
    rows = [{"a": value} for value in expected]
    assert found.pop("by rows") == [{**row, "o": other} for row, other in zip(rows, [{"x": 1}, None])]
    assert found == {"by columns": rows, "by rows of outputs": rows, "a series": expected, "a frame": [rows], "a value": [{"0": expected[0], "1": expected[1]}]}


ZONED_TABLES: dict[str, Any] = {
    "polars": pl.DataFrame({"a": [NOON, None]}).with_columns(pl.col("a").dt.replace_time_zone(BERLIN)),
    "pyarrow": pa.table({"a": pa.array(ZONED, pa.timestamp("us", BERLIN))}),
}


@pytest.mark.parametrize("name", ZONED_TABLES)
def test_zones_of_tables_are_utc_by_rows(store: Store, name: str) -> None:
    table = ZONED_TABLES[name]
    column = table["a"]
    with store.logger() as logger:
        logger.log_batch(table, [[1], [2]], model_name="m")
        logger.log_batch([[1], [2]], column, model_name="m")
        logger.log("m", table)
    assert logged(store) == [({"a": TEN}, [1], None), ({"a": None}, [2], None), ([1], TEN, None), ([2], None, None), ([{"a": TEN}, {"a": None}], None, None)]


ARRAYS: dict[str, tuple[Any, list[Any]]] = {
    "a categorical": (pd.Categorical(["x", None]), ["x", None]),
    "an array": (pd.array([1, None], "Int64"), [1, None]),
    "an index": (pd.Index(["x", "y"]), ["x", "y"]),
    "an index of times": (pd.DatetimeIndex(ZONED), [TEN, None]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_and_indexes_of_pandas_are_as_series(store: Store, name: str) -> None:
    values, expected = ARRAYS[name]
    with store.logger() as logger:
        logger.log_batch(values, values, model_name="m")
        logger.log_batch([[1], [2]], values, model_name="m")
        logger.log("m", values)
    assert logged(store) == [*((value, value, None) for value in expected), *(([at + 1], value, None) for at, value in enumerate(expected)), (expected, None, None)]


ANSWERS: dict[str, tuple[Any, list[Any], Any]] = {
    "text of NumPy": (np.array(["é", "b"]), ["é", "b"], ("str", ["é", "b"], None)),
    "text in two dimensions": (np.array([["a", "b"], ["c", "d"]])[:, ::-1], [["b", "a"], ["d", "c"]], ("str", ["b", "a", "d", "c"], 2)),
    "objects": (np.array(["a", "b"], dtype=object), ["a", "b"], ("str", ["a", "b"], None)),
    "text": (["a", "b"], ["a", "b"], ("str", ["a", "b"], None)),
    "floats": ([0.5, float("nan")], [0.5, "NaN"], ("f8", np.array([0.5, np.nan]).tobytes(), None)),
    "ints": ([1, -(2**63)], [1, -(2**63)], ("i8", array.array("q", [1, -(2**63)]).tobytes(), None)),
    "bools": ([True, False], [True, False], ("b1", b"\x01\x00", None)),
}
#: Missing text, which is no column of rows.
FRAME = pd.DataFrame({"s": pd.Series(["x", None], dtype="str")})


@pytest.mark.parametrize("name", ANSWERS)
def test_plain_answers_are_columns(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, expected, columns = ANSWERS[name]
    assert source(answers) == columns
    monkeypatch.delattr(_rows, "rows")
    with store.logger() as logger:
        assert logger.log_batch(FRAME, answers, model_name="m") == 2
    assert logged(store) == [({"s": "x"}, expected[0], None), ({"s": None}, expected[1], None)]


class Text(str):
    pass


NO_COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "large ints": ([1, 2**64 - 1], [1, 2**64 - 1]),
    "mixed": ([1, 0.5], [1, 0.5]),
    "a bool and an int": ([True, 1], [True, 1]),
    "missing": (["a", None], ["a", None]),
    "another text": ([Text("a"), "b"], ["a", "b"]),
    "no unicode": (["\udc80", "b"], ["\\udc80", "b"]),
    "objects": (np.array(["a", None], dtype=object), ["a", None]),
}


@pytest.mark.parametrize("name", NO_COLUMNS)
def test_other_answers_go_by_rows(store: Store, name: str) -> None:
    answers, expected = NO_COLUMNS[name]
    with store.logger() as logger:
        assert logger.log_batch(FRAME, answers, model_name="m") == 2
    assert logged(store) == [({"s": "x"}, expected[0], None), ({"s": None}, expected[1], None)]


# log_batch does not raise.

DURATIONS: dict[str, tuple[Any, list[Any]]] = {
    "years": (np.array([1, "NaT"], "m8[Y]"), ["1 years", None]),
    "months": (np.array([1, 2], "m8[M]"), ["1 months", "2 months"]),
    "minutes": (np.array([1, 2], "m8[m]"), [60.0, 120.0]),
    "records": (np.array([(1, 2)], [("a", "m8[M]"), ("b", "i4")]), [{"a": "1 months", "b": 2}]),
}


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.filterwarnings("error")
def test_durations_without_seconds_are_text(store: Store, name: str) -> None:
    values, expected = DURATIONS[name]
    with store.logger(strict=True) as logger:
        assert logger.log_batch(values, values, model_name="m") == len(expected)
        assert logger.log("m", values)
    assert logged(store) == [*((value, value, None) for value in expected), (expected, None, None)]


class Relation:
    """What DuckDB's has: columns for Arrow and a length, and any other name is taken for a column."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: Any) -> Any:
        raise AttributeError(name)


MAPS = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))


@pytest.mark.parametrize("outputs", [None, [1, 2], [{"y": 1}, {"y": 2}]])
def test_what_tells_arrow_of_its_rows_has_rows(store: Store, outputs: Any) -> None:
    with store.logger() as logger:
        assert logger.log_batch(Relation(pa.table({"a": [1, 2], "m": MAPS})), outputs, model_name="m") == 2
        assert logger.log_batch([[1], [2]], Relation(pa.table({"y": [1, 2]})), model_name="outputs") == 2
    inputs = [{"a": 1, "m": [["k", 1]]}, {"a": 2, "m": None}]
    answers = [None, None] if outputs is None else outputs
    assert logged(store) == [*((row, answer, None) for row, answer in zip(inputs, answers)), ([1], {"y": 1}, None), ([2], {"y": 2}, None)]


def test_a_reader_is_for_others(store: Store) -> None:
    reader = pa.table({"a": [1, 2]}).to_reader()
    with store.logger() as logger:
        assert logger.log_batch(reader, model_name="m") == 1
    assert reader.read_all().num_rows == 2


class Closed:
    """Has a length, and no rows any more."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: Any) -> Any:
        if at.stop == 0:
            return []
        raise OSError("closed")

    def __str__(self) -> str:
        return "closed"


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.mark.parametrize("values", [released(), Closed()], ids=["memoryview", "list"])
def test_what_gives_no_row_is_one_record(store: Store, values: Any) -> None:
    with store.logger() as logger:
        assert logger.log_batch(values, model_name="m") == 1
        assert logger.log_batch([[1], [2]], values, model_name="m") == 1
    (first, _, _), (second, third, _) = logged(store)
    assert first == third == str(values) and second == [[1], [2]]
    with store.logger(strict=True) as strict, pytest.raises(TypeError, match="expected"):
        strict.log_batch(values, model_name="m")


# A row of a frame.

COLUMNS: dict[str, Any] = {
    "one text twice": pd.Index([1, "1"], dtype=object),
    "bools": pd.Index([True, False]),
    "times": pd.to_datetime(["2026-01-02", "2026-01-03"]),
    "tuples": pd.Index([("a", 1), "b"], dtype=object, tupleize_cols=False),
    "missing": pd.Index([None, 0.5], dtype=object),
    "intervals": pd.interval_range(0, 2),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_row_has_the_names_of_its_frame(store: Store, name: str) -> None:
    frame = pd.DataFrame([[10, 20]], columns=COLUMNS[name])
    with store.logger(strict=True) as logger:
        logger.log("m", frame, frame.iloc[0])
    [row] = store.rows()
    assert row["inputs"] == [row["outputs"]] and list(row["outputs"].values()) == [10, 20]


# Tuples of series.


@pytest.mark.parametrize("height", [2, 3])
@pytest.mark.parametrize("make", [pl.Series, pd.Series])
def test_a_tuple_of_series_is_an_answer_for_each_row(store: Store, height: int, make: Any) -> None:
    with store.logger() as logger:
        assert logger.log_batch(np.arange(height), (make(range(height)), make(["a"] * height)), model_name="m") == height
    assert logged(store) == [(number, [number, "a"], None) for number in range(height)]


# Timeouts.


@pytest.mark.parametrize("inputs", [np.arange(2), [[1], [2]]], ids=["columns", "rows"])
@pytest.mark.parametrize("timeout", [None, datetime.timedelta(seconds=1), "5", -1, -0.5, float("nan")])
def test_a_timeout_that_is_none_is_told(store: Store, inputs: Any, timeout: Any) -> None:
    wrong = ValueError if isinstance(timeout, (int, float)) else TypeError
    with store.logger() as logger, pytest.raises(wrong, match="timeout=.*expected seconds"):
        logger.log_batch(inputs, model_name="m", timeout=timeout)
    assert store.rows() == []


@pytest.mark.parametrize("timeout", [0, 1e300, 10**400, float("inf"), np.float32(1), np.int64(2)])
def test_any_number_is_a_timeout(store: Store, timeout: Any) -> None:
    with store.logger() as logger:
        assert logger.log_batch(np.arange(2), model_name="m", timeout=timeout) == 2
    assert logged(store) == [(0, None, None), (1, None, None)]
