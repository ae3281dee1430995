"""Values of the libraries that models use, as single values and as rows of a batch: each has a documented form, and none raises."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import types
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pydantic.v1
import pytest
import scipy.sparse
from conftest import Store

import predlog

UTC = datetime.timezone.utc
BERLIN = datetime.timezone(datetime.timedelta(hours=1))


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: list[int]


class Kind(str, enum.Enum):
    RED = "red"


class Flags(enum.Flag):
    A = 1
    B = 2


class Secretive(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    alcohol: float = pydantic.Field(alias="Alcohol")
    token: str = pydantic.Field("hidden", exclude=True)
    password: pydantic.SecretStr = pydantic.SecretStr("hidden")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def half(self) -> float:
        return self.alcohol / 2


class Cached(pydantic.BaseModel):
    a: int

    @functools.cached_property
    def costly(self) -> int:
        return self.a * 2

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @functools.cached_property
    def told(self) -> int:
        return self.a * 3


class OldCached(pydantic.v1.BaseModel):
    a: int

    class Config:
        extra = "allow"
        keep_untouched = (functools.cached_property,)

    @functools.cached_property
    def costly(self) -> int:
        return self.a * 2


def asked(model: Any) -> Any:
    """After its property was asked for."""
    assert model.costly == 2
    return model


class Failing(pydantic.BaseModel):
    a: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def broken(self) -> int:
        raise ValueError("no")


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Tensor:
    """What torch's has: `size()` is a method."""

    dtype = property(lambda self: "torch.float32")

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = np.array(numbers)

    def size(self) -> Any:
        return self.numbers.shape

    def numel(self) -> int:
        return self.numbers.size

    def tolist(self) -> Any:
        return self.numbers.tolist()

    def detach(self) -> Tensor:
        return self

    numpy = cpu = detach


class EagerTensor:
    """What tensorflow's has: no `tolist`, no `detach`."""

    dtype = property(lambda self: "tf.float32")

    def numpy(self) -> Any:
        return np.array([1.5, 2.0])


Point = collections.namedtuple("Point", "x y")
INNER = np.dtype([("x", "f4"), ("t", "M8[s]")])
NESTED = np.array([(1, (0.5, "2026-01-02"), [(1.5, "NaT"), (2.5, "NaT")])], dtype=[("a", "i4"), ("in", INNER), ("two", INNER, (2,))])
NESTED_ROW = {"a": 1, "in": {"x": 0.5, "t": "2026-01-02T00:00:00.000000"}, "two": [{"x": 1.5, "t": None}, {"x": 2.5, "t": None}]}
RUNS = pa.RunEndEncodedArray.from_arrays([2, 3], ["x", None])
VIEWS = pa.array([[1, 2], None, []], pa.list_view(pa.int64()))
LARGE_VIEWS = pa.array([[1.0, 2.0], None, []], pa.large_list_view(pa.float64()))
RECORDS = np.array([(1, 0.5), (2, 1.5)], dtype=[("a", "i4"), ("b", "f8")])

#: Value, and what stands in the record.
CASES: dict[str, tuple[Any, Any]] = {
    "a dataclass with slots": (Slotted(1, [2]), {"a": 1, "b": [2]}),
    "enums": ([Kind.RED, Flags.A | Flags.B], ["red", 3]),
    "ids and paths": ([uuid.UUID(int=1), pathlib.PurePosixPath("/a/b"), decimal.Decimal("NaN")], [str(uuid.UUID(int=1)), "/a/b", "NaN"]),
    "sets": ([{1}, frozenset(["a"])], [[1], ["a"]]),
    "named tuples": ({"p": Point(1, Point(2, None))}, {"p": {"x": 1, "y": {"x": 2, "y": None}}}),
    "a zone": (datetime.datetime(2026, 1, 2, 3, tzinfo=BERLIN), "2026-01-02T03:00:00+01:00"),
    "a duration": (datetime.timedelta(minutes=1, milliseconds=5), 60.005),
    "mappings": ([collections.ChainMap({"a": 1}), collections.Counter("aa")], [{"a": 1}, {"a": 2}]),
    "a root model": (Numbers([1, 2]), [1, 2]),
    "float16": (np.array([0.5, np.inf], "float16"), [0.5, "Infinity"]),
    "longdouble": ([np.longdouble(0.5), np.array([0.25], np.longdouble)], [0.5, [0.25]]),
    "complex arrays": (np.array([1 + 2j]), ["(1+2j)"]),
    "no dimensions": ([np.array(1.5), np.array(None, dtype=object)], [1.5, None]),
    "an empty array": (np.zeros((0, 3)), []),
    "records": ([RECORDS, RECORDS[0]], [[{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}], {"a": 1, "b": 0.5}]),
    "nested records": ([NESTED, NESTED[0], NESTED.reshape(1, 1), NESTED["in"]], [[NESTED_ROW], NESTED_ROW, [[NESTED_ROW]], [NESTED_ROW["in"]]]),
    "nested records that are objects": (np.array([NESTED[0], None], dtype=object), [NESTED_ROW, None]),
    "nested records of a recarray": (NESTED.view(np.recarray), [NESTED_ROW]),
    "nested records that are masked": (np.ma.array(NESTED, mask=[(False, (True, False), [(False, True), (True, True)])]), [{"a": 1, "in": {"x": None, "t": "2026-01-02T00:00:00.000000"}, "two": [{"x": 1.5, "t": None}, {"x": None, "t": None}]}]),
    "a nested record that is masked": (np.ma.array(NESTED, mask=[(False, (True, False), [(False, True), (True, True)])])[0], {"a": 1, "in": {"x": None, "t": "2026-01-02T00:00:00.000000"}, "two": [{"x": 1.5, "t": None}, {"x": None, "t": None}]}),
    "objects": (np.array([{"a": 1}, None, "x"], dtype=object), [{"a": 1}, None, "x"]),
    "text": (np.array(["é", "b"]), ["é", "b"]),
    "numpy times": ([np.datetime64("2026-01-02", "D"), np.datetime64("NaT"), np.timedelta64(1500, "ms")], ["2026-01-02T00:00:00.000000", None, 1.5]),
    "numpy times without a time": (np.array([1_500_000_000, "NaT"], "m8[ns]"), [1.5, None]),
    "numpy records of times": (np.array([("2026-01-02", 1_500_000_000)], [("t", "M8[ns]"), ("d", "m8[ns]")]), [{"t": "2026-01-02T00:00:00.000000", "d": 1.5}]),
    "masked": ([np.ma.array([1.5, 2.0], mask=[False, True]), np.ma.array(["2026-01-02"] * 2, "M8[D]", mask=[False, True])], [[1.5, None], ["2026-01-02T00:00:00.000000", None]]),
    "tensors": ([Tensor([1.0, 2.5]), EagerTensor()], [[1.0, 2.5], [1.5, 2.0]]),
    "a row with one name twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]).iloc[0], {"a": 1, "a.1": 2}),
    "a row with levels": (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])).iloc[0], {"a.x": 1, "a.y": 2}),
    "missing": ([pd.NA, pd.NaT, float("nan")], [None, None, "NaN"]),
    "pandas times": ([pd.Timestamp("2026-01-02", tz="UTC"), pd.Timedelta(seconds=2)], ["2026-01-02T00:00:00+00:00", 2.0]),
    "an index of times": (pd.DatetimeIndex(["2026-01-02", None], tz="UTC"), ["2026-01-02T00:00:00+00:00", None]),
    "a categorical": (pd.Categorical(["x", "y"]), ["x", "y"]),
    "an array of pandas": (pd.array([1, None], "Int64"), [1, None]),
    "a frame with an NA": (pd.DataFrame({"a": pd.array([1, None], "Int64")}), [{"a": 1}, {"a": None}]),
    "a frame with one name twice": (pd.DataFrame([[1, 2, 3]], columns=["a", "a", "b"]), [{"a": 1, "a.1": 2, "b": 3}]),
    "a frame with levels": (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", 1)])), [{"a.x": 1, "a.1": 2}]),
    "polars decimals": (pl.DataFrame({"a": [decimal.Decimal("1.10")], "d": [datetime.date(2026, 1, 2)]}), [{"a": "1.10", "d": "2026-01-02"}]),
    "cached properties": ([asked(Cached(a=1)), asked(OldCached(a=1, b=2))], [{"a": 1, "told": 3}, {"a": 1, "b": 2}]),
    "arrays of Arrow": ([pa.array([1, None]), pa.chunked_array([[0.5], []]), pa.scalar("x"), VIEWS, LARGE_VIEWS, RUNS], [[1, None], [0.5], "x", [[1, 2], None, []], [[1.0, 2.0], None, []], ["x", "x", None]]),
    "a table of Arrow": (pa.table({"v": VIEWS, "r": RUNS}), [{"v": [1, 2], "r": "x"}, {"v": None, "r": "x"}, {"v": [], "r": None}]),
    "aliases, computed and excluded fields": (Secretive.model_validate({"Alcohol": 9.0, "more": 1}), {"alcohol": 9.0, "password": "**********", "more": 1, "half": 4.5}),
}
#: What is kept as its text, of which there is nothing better to be said.
AS_TEXT = {"aliases, computed and excluded fields"}


@pytest.mark.parametrize("name", CASES)
def test_a_value(store: Store, name: str) -> None:
    value, expected = CASES[name]
    with store.logger(strict=name not in AS_TEXT) as logger:
        assert logger.log("m", value, value)
    [row] = store.rows()
    assert row["inputs"] == expected and row["outputs"] == expected


#: Values that have no form of their own: their text begins so, and is counted; `strict` raises.
TEXTS: dict[str, tuple[Any, str]] = {
    "complex": (1 + 2j, "(1+2j)"),
    "a lazy frame": (pl.DataFrame({"a": [1]}).lazy(), "naive plan"),
    "a period": (pd.Period("2026-01", "M"), "2026-01"),
    "a range": (range(3), "range(0, 3)"),
    "a class": (Slotted, "<class"),
    "a function": (len, "<built-in function len>"),
    "a model whose field fails": (Failing(a=1), "<Failing: str() raised ValueError>"),
    "a lock": (__import__("threading").Lock(), "<unlocked"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_has_no_form_is_text(store: Store, name: str) -> None:
    value, start = TEXTS[name]
    with store.logger() as logger:
        assert logger.log("m", [value], None)
        assert logger.log_batch([value], model_name="m") == 1
        assert logger.snapshot()["encoded_as_text"] == 2
    rows = store.rows()
    assert rows[0]["inputs"][0].startswith(start) and rows[1]["inputs"].startswith(start)
    with store.logger(strict=True) as strict, pytest.raises(TypeError, match="expected"):
        strict.log("m", value, None)


#: A batch, and its rows.
BATCHES: dict[str, tuple[Any, list[Any]]] = {
    "times with a zone": (pd.DataFrame({"t": pd.DatetimeIndex(["2026-01-02T01:00", None], tz=BERLIN)}), [{"t": "2026-01-02T00:00:00+00:00"}, {"t": None}]),
    "durations": (pd.DataFrame({"t": pd.to_timedelta([1.5, None], unit="s")}), [{"t": 1.5}, {"t": None}]),
    "categories": (pd.DataFrame({"c": pd.Categorical(["x", None])}), [{"c": "x"}, {"c": None}]),
    "extension types": (pd.DataFrame({"i": pd.array([2**60, None], "Int64"), "b": pd.array([True, None], "boolean"), "f": pd.array([0.5, None], "Float32")}), [{"i": 2**60, "b": True, "f": 0.5}, {"i": None, "b": None, "f": None}]),
    "arrow in pandas": (pd.DataFrame({"d": pd.array([decimal.Decimal("1.5"), None], pd.ArrowDtype(pa.decimal128(5, 2))), "l": pd.array([[1], None], pd.ArrowDtype(pa.list_(pa.int8())))}), [{"d": "1.50", "l": [1]}, {"d": None, "l": None}]),
    "one name twice": (pd.DataFrame([[1, 0.5]], columns=["a", "a"]), [{"a": 1, "a.1": 0.5}]),
    "levels": (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")])), [{"a.x": 1, "b.y": 2}]),
    "mixed objects": (pd.DataFrame({"a": [1, pd.NA, "x", None]}, dtype=object), [{"a": 1}, {"a": None}, {"a": "x"}, {"a": None}]),
    "records": (RECORDS, [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]),
    "records with text": (np.array([(1, "x")], dtype=[("a", "i4"), ("s", "U3")]), [{"a": 1, "s": "x"}]),
    "float16": (np.array([[0.5, 1.0]], "float16"), [[0.5, 1.0]]),
    "longdouble": (np.array([0.5], np.longdouble), [0.5]),
    "no columns": (pd.DataFrame(index=[0, 1]), [{}, {}]),
    "nested polars": (pl.DataFrame({"a": [[{"x": [1]}], None], "d": [decimal.Decimal("1.1"), None], "t": [datetime.time(1, 2), None]}), [{"a": [{"x": [1]}], "d": "1.1", "t": "01:02:00"}, {"a": None, "d": None, "t": None}]),
    "polars objects": (pl.DataFrame({"o": pl.Series([Point(1, 2)], dtype=pl.Object)}), [{"o": {"x": 1, "y": 2}}]),
    "dicts": ([{"a": 1}, {"b": Point(1, 2)}], [{"a": 1}, {"b": {"x": 1, "y": 2}}]),
    "nothing": (pd.DataFrame({"a": []}), []),
    "masked": (np.ma.array([[1.5, 2.0], [3.0, 4.0]], mask=[[False, True], [False, False]]), [[1.5, None], [3.0, 4.0]]),
    "masked, but nothing is": (np.ma.array([1, 2]), [1, 2]),
    "masked records": (np.ma.array([(1, 0.5)], [("a", "i4"), ("b", "f8")], mask=[(True, False)]), [{"a": None, "b": 0.5}]),
    "durations of NumPy": (np.array([1_500_000_000, "NaT"], "m8[ns]"), [1.5, None]),
    "records of times": (np.array([("2026-01-02", 1_500_000_000)], [("t", "M8[ns]"), ("d", "m8[ns]")]), [{"t": "2026-01-02T00:00:00.000000", "d": 1.5}]),
    "list views": (pa.table({"v": VIEWS, "l": LARGE_VIEWS}), [{"v": [1, 2], "l": [1.0, 2.0]}, {"v": None, "l": None}, {"v": [], "l": []}]),
    "a slice of list views": (pa.table({"v": VIEWS, "l": LARGE_VIEWS}).slice(1), [{"v": None, "l": None}, {"v": [], "l": []}]),
    "a slice of runs": (pa.table({"r": RUNS}).slice(1), [{"r": "x"}, {"r": None}]),
    "runs and views within": (pa.table({"s": pa.StructArray.from_arrays([RUNS, VIEWS], ["r", "v"])}), [{"s": {"r": "x", "v": [1, 2]}}, {"s": {"r": "x", "v": None}}, {"s": {"r": None, "v": []}}]),
    "views in views": (pa.array([[[1], []], []], pa.list_view(pa.list_view(pa.int8()))), [[[1], []], []]),
    "nested records": (NESTED, [NESTED_ROW]),
    "rows of records": (RECORDS.reshape(1, 2), [[{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]]),
    "extension types of Arrow": (pa.table({"u": pa.array([uuid.UUID(int=7).bytes], pa.uuid())}), [{"u": str(uuid.UUID(int=7))}]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch(store: Store, name: str) -> None:
    batch, expected = BATCHES[name]
    with store.logger(strict=True) as logger:
        assert logger.log_batch(batch, model_name="m") == len(expected)
    rows = sorted(store.rows(), key=lambda row: int(row["row_index"]))
    assert [row["inputs"] for row in rows] == expected


def test_periods_and_intervals_are_their_text(store: Store) -> None:
    frame = pd.DataFrame({"p": pd.period_range("2026-01", periods=1, freq="M"), "i": pd.interval_range(0, 1)})
    with store.logger() as logger:
        assert logger.log_batch(frame, model_name="m") == 1
        assert logger.log("m", frame, None)
    batch, single = (row["inputs"] for row in store.rows())
    assert [batch] == single == [{"p": "2026-01", "i": "(0, 1]"}]


def test_what_has_no_rows_is_one_record(store: Store) -> None:
    one_dimension = scipy.sparse.coo_array(np.array([1.0, 0.0, 2.0]))
    odd = [{1, 2}, collections.deque([1, 2]), {"a": 1}.values(), collections.UserDict(a=1), types.MappingProxyType({"a": 1}), one_dimension]
    with store.logger() as logger:
        for values in (pl.DataFrame({"a": [1]}).lazy(), 5, np.array(1.5), "text", {"a": [1, 2]}, None, (n for n in [1]), *odd):
            assert logger.log_batch(values, model_name="m") == 1
    assert len(store.rows()) == 7 + len(odd)


@pytest.mark.parametrize("height", [1, 2, 3])
def test_a_dict_of_outputs_has_no_rows(store: Store, height: int) -> None:
    outputs = {"score": [0] * height, "label": [1] * height}
    with store.logger() as logger:
        assert logger.log_batch(pd.DataFrame({"a": [1] * height}), outputs, model_name="m") == 1
    assert [row["outputs"] for row in store.rows()] == [outputs]


def test_answers_can_be_kept(store: Store) -> None:
    with store.logger() as logger:
        kept = [logger.log("m", number, None) for number in range(3)]
        logger.log("m", 3, None)
        refused = logger.log("", 4, None)
        assert [outcome.seq for outcome in kept] == [0, 1, 2] and refused.seq is None
        assert repr(kept[1]) == "Outcome(seq=1)" and "model_name" in repr(refused)


def test_keys_of_other_objects_with_the_same_address(store: Store) -> None:
    """Keys are known again by their objects: a key that is gone must not be taken for the one that has its place in memory now."""
    with store.logger() as logger:
        for number in range(5_000):
            assert logger.log("m", {f"key {number}": number, "same": number}, number)
        for number in range(50):
            text = f"long {number} " + "x" * 300
            assert logger.log("long", {text: 1, 'a"\n\\': 2, "é": 3}, text)
    rows = store.rows()
    assert all(row["inputs"] == {f"key {row['outputs']}": row["outputs"], "same": row["outputs"]} for row in rows if row["model_name"] == "m")
    assert all(row["inputs"] == {row["outputs"]: 1, 'a"\n\\': 2, "é": 3} for row in rows if row["model_name"] == "long")
    assert len(rows) == 5_050


def test_the_same_keys_from_many_threads(store: Store) -> None:
    import threading

    names = [f"feature {number}" for number in range(700)]

    def work(worker: int) -> None:
        for number in range(200):
            part = names[number : number + 20]
            assert logger.log("m", dict.fromkeys(part, worker), number)

    with store.logger() as logger:
        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = store.rows()
    assert len(rows) == 800
    assert all(list(row["inputs"]) == names[row["outputs"] : row["outputs"] + 20] for row in rows)
