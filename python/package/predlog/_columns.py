"""Frames and arrays as columns for the extension: Arrow's C stream, or NumPy's bytes."""

from __future__ import annotations

import array
import importlib
import sys
from collections.abc import Iterator
from typing import Any

#: Days since 1970 that 64 bits of microseconds can tell, with room to spare: some 290,000 years either way.
MICROS_DAYS = -106_600_000, 106_600_000


def source(values: Any, names: Any = None) -> Any:
    """What `Logger._log_columns` reads: a capsule, `(kind, bytes, width)`, `("str", list, width)`, or a list of `(name, source)`.

    `names` are those of the columns of an array. Raises TypeError, or what the library raises, for values that have no columns or whose columns are
    Python objects, but for text.
    """
    if type(values) is list:
        return _of_list(values)
    if is_of(values, "pandas", "DataFrame"):
        # By column, so that numbers need no pyarrow, and NaN stays NaN.
        return [(name, source(column)) for name, (_, column) in zip(names_of(values.columns), values.items())]
    if is_of(values, "pandas", "Series"):
        if is_of(values.dtype, "numpy", "dtype"):
            return _numpy(values.to_numpy())
        if _is_extension(values.dtype):
            raise TypeError(f"dtype={values.dtype}: expected one whose values Arrow has too")
        if not hasattr(values, "__arrow_c_stream__"):  # pandas 2, which has it of frames alone.
            return _arrow(values)
    elif is_of(values, "numpy", "ndarray"):
        if getattr(values, "mask", None) is not None and values.mask.any():
            raise TypeError("expected an array that is not masked: its bytes have something in place of what is missing")
        if values.dtype.names is not None and values.ndim == 1:
            return [(name, _numpy(values[name])) for name in values.dtype.names]
        if names is not None and values.ndim == 2:
            names = names_of(names)
            if len(names) != values.shape[1]:
                raise TypeError(f"shape={values.shape}: expected {len(names)} columns; rows of another length are kept whole")
            return [(name, _numpy(values[:, index])) for index, name in enumerate(names)]
        return _numpy(values)
    elif _has_objects(values) or _has_extensions(values):
        raise TypeError("expected columns that are neither Python objects nor extension types")
    else:
        values = with_names(values)
    return values.__arrow_c_stream__()


def names_of(columns: Any) -> list[str]:
    """Names of columns as text, each another one: those of several levels are joined by dots, and a second `a` is `a.1`."""
    names: dict[str, None] = {}
    for column in columns:
        name = text = ".".join(map(str, column)) if isinstance(column, tuple) else str(column)
        again = 0
        while name in names:
            again += 1
            name = f"{text}.{again}"
        names[name] = None
    return list(names)


def with_names(table: Any) -> Any:
    """A table of pyarrow whose columns have names of their own; anything else as it is."""
    names = getattr(getattr(table, "schema", None), "names", None)
    if not hasattr(table, "rename_columns") or names is None or len(set(names)) == len(names):
        return table
    return table.rename_columns(names_of(names))


def as_series(values: Any) -> Any:
    """An index or an array of pandas as a series; anything else, and an index of several levels, as it is."""
    is_index = is_of(values, "pandas", "Index") and values.nlevels == 1
    return sys.modules["pandas"].Series(values) if is_index or is_of(values, "pandas.api.extensions", "ExtensionArray") else values


def listed(values: Any) -> Any:
    """A series of pandas or Polars, or anything with `tolist`, as a list that says what its column would: what a series of pandas calls missing is None, but
    for NumPy's NaN, and times with a zone are in UTC.
    """
    values = as_series(values)
    if is_of(values, "polars", "Series"):
        return (values.dt.convert_time_zone("UTC") if getattr(values.dtype, "time_zone", None) else values).to_list()
    if not is_of(values, "pandas", "Series") or is_of(values.dtype, "numpy", "dtype"):
        return values.tolist()
    if hasattr(values.dtype, "categories"):
        categories = listed(values.cat.categories)
        return [None if code < 0 else categories[code] for code in values.cat.codes.tolist()]
    if getattr(getattr(values.dtype, "pyarrow_dtype", values.dtype), "tz", None) is not None:
        values = values.dt.tz_convert("UTC")
    return [None if missing else value for value, missing in zip(values.tolist(), values.isna().tolist())]


def in_utc(table: Any) -> Any:
    """A frame of Polars, or a table or an array of pyarrow, whose times with a zone are in UTC; anything else as it is."""
    if is_of(table, "polars", "DataFrame"):
        return table.with_columns(sys.modules["polars"].selectors.datetime(time_zone="*").dt.convert_time_zone("UTC"))
    kind, schema = getattr(table, "type", None), getattr(table, "schema", None)
    if schema is None:
        return table.cast(_in_utc(kind)) if getattr(kind, "tz", None) else table
    zoned = [index for index, kind in enumerate(schema.types) if getattr(kind, "tz", None)]
    for index in zoned:
        schema = schema.set(index, schema.field(index).with_type(_in_utc(schema.types[index])))
    return table.cast(schema) if zoned else table


def _in_utc(kind: Any) -> Any:
    return sys.modules["pyarrow"].timestamp(kind.unit, "UTC")


def _arrow(series: Any) -> Any:
    pyarrow = importlib.import_module("pyarrow")
    values = pyarrow.Array.from_pandas(series)
    return (values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.chunked_array([values])).__arrow_c_stream__()


def frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """The rows of a frame of pandas."""
    names = names_of(frame.columns)
    if not names:
        return ({} for _ in range(len(frame)))  # Of these some versions' itertuples has none.
    return (dict(zip(names, row)) for row in zip(*(listed(column) for _, column in frame.items())))


def _has_objects(values: Any) -> bool:
    """Whether columns of Polars are Python objects: Arrow would get their addresses."""
    polars = sys.modules.get("polars")
    if polars is None or not isinstance(values, (polars.DataFrame, polars.Series)):
        return False
    return polars.Object in (values.dtypes if isinstance(values, polars.DataFrame) else [values.dtype])


def _is_extension(dtype: Any) -> bool:
    """Whether Arrow would have the storage of a pandas column: a period's ordinal."""
    kind = type(dtype).__name__
    if kind == "CategoricalDtype":
        return _is_extension(dtype.categories.dtype)
    storage = getattr(dtype, "pyarrow_dtype", None)
    return kind in ("PeriodDtype", "IntervalDtype") or storage is not None and _extends(storage)


def _has_extensions(values: Any) -> bool:
    """The same of columns of pyarrow: a UUID's bytes."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is None or not isinstance(values, (pyarrow.Table, pyarrow.RecordBatch, pyarrow.Array, pyarrow.ChunkedArray)):
        return False
    types = values.schema.types if hasattr(values, "schema") else [values.type]
    return any(map(_extends, types))


def _extends(kind: Any) -> bool:
    """Whether a type of pyarrow is an extension, or has one within."""
    if isinstance(kind, sys.modules["pyarrow"].BaseExtensionType):
        return True
    if hasattr(kind, "value_type"):  # Lists, dictionaries, run-end-encoded ones.
        return _extends(kind.value_type)
    return hasattr(kind, "get_all_field_indices") and any(_extends(kind.field(at).type) for at in range(kind.num_fields))  # Structs.


def is_of(values: Any, module: str, name: str) -> bool:
    """Whether `values` is of a class of a library, if that is in use at all."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(values, kind)


def micros(times: Any) -> tuple[Any, Any]:
    """NumPy's times in microseconds since 1970, and which of them are out of that range, of which NumPy tells nothing or raises, as its versions go."""
    if times.dtype.str.partition("[")[2] in ("", "us]", "ns]", "ps]", "fs]", "as]"):
        return times.astype("datetime64[us]"), sys.modules["numpy"].zeros(times.shape, bool)
    first, last = (times.dtype.type(day, "D").astype(times.dtype) for day in MICROS_DAYS)
    return times.clip(first, last).astype("datetime64[us]"), (times < first) | (times > last)


def _numpy(values: Any) -> tuple[str, bytes | list[str], int | None]:
    kind, size = values.dtype.kind, values.dtype.itemsize
    if values.ndim not in (1, 2) or kind not in "biufMUO" or values.ndim == 2 and values.shape[1] == 0:
        raise TypeError(f"dtype={values.dtype} ndim={values.ndim}: expected numbers, text or times in one or two dimensions")
    width = values.shape[1] if values.ndim == 2 else None
    if kind == "U":
        return "str", sys.modules["numpy"].asarray(values).ravel().tolist(), width
    if kind == "O":
        return _texts(values.tolist())
    if kind == "M":
        values, outside = micros(values)
        if outside.any():
            raise TypeError(f"dtype={values.dtype}: expected times that microseconds can tell")
    elif kind == "f" and size not in (4, 8):
        values, size = values.astype("float64"), 8
    elif not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return f"{kind}{size}", values.tobytes(), width


def _of_list(values: list[Any]) -> tuple[str, bytes | list[str], None]:
    """A list whose elements are all of one plain type, as most models' answers are."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return "f8", array.array("d", values).tobytes(), None
    if kinds == {int}:
        return "i8", array.array("q", values).tobytes(), None
    return ("b1", bytes(values), None) if kinds == {bool} else _texts(values)


def _texts(values: list[Any]) -> tuple[str, list[str], None]:
    if set(map(type, values)) != {str}:
        raise TypeError("expected elements of one type: float, int, bool or str")
    return "str", values, None
