"""Frames and arrays as columns for the extension: Arrow's C stream, or NumPy's bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def source(values: Any, names: Any = None) -> Any:
    """What `Logger._log_columns` reads: a capsule, `(kind, bytes, width)`, or a list of `(name, source)`.

    `names` are those of the columns of an array. Raises TypeError, or what the library raises, for values that have no columns or whose columns are
    Python objects.
    """
    if is_of(values, "pandas", "DataFrame"):
        # By column, so that numbers need no pyarrow, and NaN stays NaN.
        return [(name, source(column)) for name, (_, column) in zip(names_of(values.columns), values.items())]
    if is_of(values, "pandas", "Series"):
        if is_of(values.dtype, "numpy", "dtype"):
            return _numpy(values.to_numpy())
        if _is_extension(values.dtype):
            raise TypeError(f"dtype={values.dtype}: expected one whose values Arrow has too")
    elif is_of(values, "numpy", "ndarray"):
        if getattr(values, "mask", None) is not None and values.mask.any():
            raise TypeError("expected an array that is not masked: its bytes have something in place of what is missing")
        if values.dtype.names is not None and values.ndim == 1:
            return [(name, _numpy(values[name])) for name in values.dtype.names]
        if names is not None and values.ndim == 2:
            return [(name, _numpy(values[:, index])) for index, name in enumerate(names_of(names))]
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


def frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """The rows of a frame of pandas."""
    names = names_of(frame.columns)
    return (dict(zip(names, row)) for row in frame.itertuples(index=False, name=None))


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
    """NumPy's times in microseconds since 1970, and which of them are out of that range, which NumPy itself does not tell."""
    plain = times.astype("datetime64[us]")
    # Of finer ones the digits that are cut differ.
    coarse = times.dtype.str.partition("[")[2] not in ("us]", "ns]", "ps]", "fs]", "as]")
    return plain, (plain.astype(times.dtype) != times) & (times == times) & coarse


def _numpy(array: Any) -> tuple[str, bytes, int | None]:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.ndim not in (1, 2) or kind not in "biufM" or array.ndim == 2 and array.shape[1] == 0:
        raise TypeError(f"dtype={array.dtype} ndim={array.ndim}: expected numbers or times in one or two dimensions")
    if kind == "M":
        array, outside = micros(array)
        if outside.any():
            raise TypeError(f"dtype={array.dtype}: expected times that microseconds can tell")
    elif kind == "f" and size not in (4, 8):
        array, size = array.astype("float64"), 8
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return f"{kind}{size}", array.tobytes(), array.shape[1] if array.ndim == 2 else None
