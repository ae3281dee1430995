"""Rows by columns and by rows say the same, and models of all kinds are logged: each test failed before its repair."""

from __future__ import annotations

import array
import asyncio
import datetime
import inspect
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import sklearn
from conftest import Store
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import predlog
from predlog import _rows
from predlog._columns import source

X = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 0.5], [3.0, 2.0]])
Y = [0, 1, 0, 1]
BERLIN = "Europe/Berlin"
NOON = datetime.datetime(2026, 7, 1, 12)
TEN = "2026-07-01T10:00:00+00:00"


def logged(store: Store) -> list[tuple[Any, ...]]:
    rows = sorted(store.rows(), key=lambda row: (row["timestamp"], -1 if row["row_index"] is None else row["row_index"]))
    return [(row["inputs"], row["outputs"], row["error"]) for row in rows]


# 1. A large prediction loses nothing.


class First:
    def predict(self, rows: Any) -> Any:
        return rows[:, 0]


def test_rows_of_a_large_prediction_wait_for_room(store: Store) -> None:
    with store.logger(logger={"queue_bytes": "8MiB"}) as logger:
        predlog.wrap(First(), model_name="m", logger=logger).predict(np.random.default_rng(0).random((200_000, 12)))
        assert logger.flush(60.0)
        totals = logger.snapshot()
    assert (totals["delivered"], totals["dropped"]) == (200_000, {})


@pytest.mark.parametrize(("height", "expected"), [(2, 40e-6), (1_000_000, 10.0)])
def test_rows_of_a_prediction_wait_in_proportion(store: Store, monkeypatch: pytest.MonkeyPatch, height: int, expected: float) -> None:
    waits: list[float] = []

    class Watched(predlog.Logger):
        def _log_columns(self, inputs: Any, outputs: Any, fields: Any, timeout: float) -> int:
            waits.append(timeout)
            return 0

    with Watched({"direct": {"dir": str(store.dir)}}) as logger:
        predlog.wrap(First(), logger=logger).predict(np.zeros((height, 1), "int8"))
    assert waits == [pytest.approx(expected)]


# 2. Rows of another width, also of a sparse matrix.


class Named:
    """Was trained with two features."""

    feature_names_in_ = ("a", "b")

    def predict(self, rows: Any) -> Any:
        return np.zeros(rows.shape[0])


OTHER_WIDTHS: dict[str, tuple[Any, Any]] = {
    "wider": (np.array([[1.0, 2.0, 7.0]]), [1.0, 2.0, 7.0]),
    "narrower": (np.array([[1.0]]), [1.0]),
    "as wide": (np.array([[1.0, 2.0]]), {"a": 1.0, "b": 2.0}),
    "sparse": (scipy.sparse.csr_matrix([[1.0, 0.0, 7.0]]), {"0": 1.0, "2": 7.0}),
}


@pytest.mark.parametrize("name", OTHER_WIDTHS)
def test_a_row_of_another_width_than_the_features_is_whole(store: Store, name: str) -> None:
    rows, expected = OTHER_WIDTHS[name]
    with store.logger() as logger:
        predlog.wrap(Named(), logger=logger).predict(rows)
    assert logged(store) == [(expected, 0.0, None)]


# 3. By rows as by columns.

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


# 4. log_batch does not raise.

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


# 5. The inputs by any keyword.


class Keywords:
    def predict(self, x: Any = None, *, batch_size: int = 32, inputs: Any = None) -> Any:
        return x if inputs is None else inputs


@pytest.mark.parametrize("keywords", [{"x": [5]}, {"batch_size": 1, "x": [5]}, {"inputs": [5]}])
def test_inputs_by_other_keywords(store: Store, keywords: dict[str, Any]) -> None:
    with store.logger() as logger:
        assert predlog.wrap(Keywords(), logger=logger).predict(**keywords) == [5]
    assert logged(store) == [(5, 5, None)]


class Odd:
    def predict(self, rows: Any, method: str = "") -> Any:
        return [method] * len(rows)


def test_a_keyword_may_have_any_name(store: Store) -> None:
    with store.logger() as logger:
        assert predlog.wrap(Odd(), logger=logger).predict([5], method="ols") == ["ols"]
    assert logged(store) == [(5, "ols", None)]


# 6. Methods that answer the model itself.


class Module:
    """Like those of torch and Keras: it is called, and most methods answer it."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def eval(self) -> Module:
        return self

    def to(self, device: str, *, blocking: bool = False) -> Module:
        return self

    def __call__(self, inputs: Any, *, training: bool = False) -> Any:
        return [value * self.factor for value in inputs]

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *error: Any) -> bool:
        return error[0] is KeyError

    async def aclose(self) -> Module:
        return self


def routed(model: Any) -> Any:
    with sklearn.config_context(enable_metadata_routing=True):
        return model.set_fit_request(sample_weight=True)


CHANGES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "eval": (Module(), lambda model: model.eval()),
    "to": (Module(), lambda model: model.to("cpu", blocking=True)),
    "set_output": (make_pipeline(StandardScaler(), LogisticRegression()), lambda model: model.set_output(transform="default")),
    "set_fit_request": (LogisticRegression(), routed),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_answers_the_model_answers_the_wrapped_one(store: Store, name: str) -> None:
    model, change = CHANGES[name]
    with store.logger() as logger:
        wrapped = predlog.wrap(model, logger=logger)
        assert change(wrapped) is wrapped


def test_a_model_that_is_wrapped_twice_stays_so(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(predlog.wrap(LogisticRegression(), logger=logger), logger=logger)
        assert wrapped.fit(X, Y) is wrapped


def test_other_methods_are_as_they_were(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(Module(), logger=logger)
        assert inspect.signature(wrapped.to) == inspect.signature(Module().to) and wrapped.to.__name__ == "to"
        assert inspect.iscoroutinefunction(wrapped.aclose)


# 7. Models that are called.


def doubled(rows: list[int], *, plus: int = 0) -> list[int]:
    return [row * 2 + plus for row in rows]


def test_calls_are_predictions(store: Store) -> None:
    with store.logger() as logger:
        module, function = predlog.wrap(Module(), logger=logger), predlog.wrap(doubled, logger=logger)
        assert module([1, 2], training=True) == [2, 4] and module(inputs=[3]) == [6]
        assert function([4], plus=1) == [9] and predlog.wrap(doubled, model_name="named", logger=logger)([5]) == [10]
        with pytest.raises(TypeError):
            module(7)
        assert callable(module) and inspect.signature(function) == inspect.signature(doubled) and inspect.signature(module) == inspect.signature(Module())
    assert logged(store) == [(1, 2, None), (2, 4, None), (3, 6, None), (4, 9, None), (5, 10, None), (7, None, "TypeError: 'int' object is not iterable")]
    assert [row["model_name"] for row in store.rows()] == ["Module"] * 3 + ["doubled", "named", "Module"]


def test_what_cannot_be_called_still_cannot(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(First(), logger=logger)
        assert not callable(wrapped) and not hasattr(type(wrapped), "__enter__")


def test_a_wrapped_model_is_a_context(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(Module(), logger=logger)
        with wrapped as entered:
            assert entered is wrapped
            raise KeyError("taken by the model")


def test_a_called_model_can_be_pickled(store: Store) -> None:
    with store.logger() as logger:
        predlog.init({"direct": {"dir": str(store.dir / "other")}})
        assert pickle.loads(pickle.dumps(predlog.wrap(Module(3), logger=logger)))([1]) == [3]
        assert predlog.default().snapshot()["accepted"] == 1
        predlog.close()


# 8. Async.


class Async:
    async def predict(self, rows: list[int]) -> list[int]:
        await asyncio.sleep(0.02)
        if rows == [0]:
            raise ValueError("zero")
        return [row * 2 for row in rows]

    def predict_proba(self, rows: list[int]) -> Any:
        return self.predict(rows)

    async def __call__(self, rows: list[int]) -> list[int]:
        return await self.predict(rows)


@pytest.mark.parametrize("name", ["predict", "predict_proba", "__call__"])
def test_async_models_are_logged_when_they_answer(store: Store, name: str) -> None:
    with store.logger() as logger:
        method = getattr(predlog.wrap(Async(), logger=logger), name)
        assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(getattr(Async(), name))
        assert asyncio.run(method([1, 2])) == [2, 4]
        with pytest.raises(ValueError, match="zero"):
            asyncio.run(method([0]))
    assert logged(store) == [(1, 2, None), (2, 4, None), (0, None, "ValueError: zero")]
    assert all(row["latency_ms"] >= 19 for row in store.rows())


async def later(rows: list[int]) -> list[int]:
    return rows


def test_async_functions_are_models(store: Store) -> None:
    with store.logger() as logger:
        assert asyncio.run(predlog.wrap(later, logger=logger)([1])) == [1]
    assert logged(store) == [(1, 1, None)]


# 9. A row of a frame.

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


# 10. Tuples of series.


@pytest.mark.parametrize("height", [2, 3])
@pytest.mark.parametrize("make", [pl.Series, pd.Series])
def test_a_tuple_of_series_is_an_answer_for_each_row(store: Store, height: int, make: Any) -> None:
    with store.logger() as logger:
        assert logger.log_batch(np.arange(height), (make(range(height)), make(["a"] * height)), model_name="m") == height
    assert logged(store) == [(number, [number, "a"], None) for number in range(height)]


# 11. A failed prediction on no rows.


def test_a_failed_prediction_of_no_rows_is_a_record(store: Store) -> None:
    with store.logger() as logger:
        wrapped = predlog.wrap(LogisticRegression().fit(X, Y), logger=logger)
        with pytest.raises(ValueError):
            wrapped.predict(X[:0])
        assert logger.log_batch(X[:0], model_name="m") == 0
    [(inputs, outputs, error)] = logged(store)
    assert (inputs, outputs) == ([], None) and error.startswith("ValueError: Found array with 0 sample(s)")


# 12. Timeouts.


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


# 13. Types.

TYPED = """
import uuid
import numpy as np
import predlog
import predlog.flask

logger = predlog.Logger()
logger.log("m", 1, row_index=np.int64(3), status_code=np.int64(200), latency_ms=np.float32(1.5), sample_weight=np.float32(0.5))
logger.log_batch([1], model_name="m", request_id=uuid.uuid4())

@predlog.flask.log_predictions(model_name="m")
def view(name: str, *, count: int = 1) -> dict[str, float]:
    return {"a": 1.0}

reveal_type(view)
view(5)
"""


def test_types_of_numpy_and_of_views(tmp_path: Path) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED)
    result = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(file)], capture_output=True, text=True, cwd=tmp_path)
    assert "def (name: str, *, count: int =) -> flask.wrappers.Response" in result.stdout
    assert [line.partition(": ")[2] for line in result.stdout.splitlines() if ": error: " in line] == [
        'error: Argument 1 to "view" has incompatible type "int"; expected "str"  [arg-type]'
    ]


def test_numbers_of_numpy_are_fields(store: Store) -> None:
    with store.logger() as logger:
        assert logger.log("m", 1, row_index=np.int64(3), status_code=np.int64(200), latency_ms=np.float32(1.5), sample_weight=np.float32(0.5))
        assert logger.log_batch([1], model_name="m", request_id=uuid.UUID(int=1)) == 1
    first, second = store.rows()
    assert (first["row_index"], first["status_code"], first["latency_ms"], first["sample_weight"]) == (3, 200, 1.5, 0.5)
    assert second["request_id"] == str(uuid.UUID(int=1))


# 14. Names of CatBoost's features, values of onnxruntime.


class Cat:
    feature_names_ = ("a", "b")

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


class Untrained(Cat):
    @property
    def feature_names_(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not trained")


@pytest.mark.parametrize(("model", "expected"), [(Cat(), {"a": 1.0, "b": 2.0}), (Untrained(), [1.0, 2.0])], ids=["trained", "untrained"])
def test_features_have_the_names_of_catboost(store: Store, model: Any, expected: Any) -> None:
    with store.logger() as logger:
        predlog.wrap(model, logger=logger).predict(np.array([[1.0, 2.0]]))
    assert logged(store) == [(expected, 0.0, None)]


class OrtValue:
    def shape(self) -> list[int]:
        return [2]

    def numpy(self) -> Any:
        return np.array([1.5, 2.0])


def test_values_of_onnxruntime_are_arrays(store: Store) -> None:
    with store.logger(strict=True) as logger:
        assert logger.log("m", OrtValue(), [OrtValue()])
    assert logged(store) == [([1.5, 2.0], [[1.5, 2.0]], None)]
