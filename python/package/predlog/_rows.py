"""Frames, arrays and lists as records: by columns where they have columns, else by rows, some thousands at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from ._columns import frame_rows, names_of, source, with_names
from ._convert import plain_array
from ._matrix import rows_of

if TYPE_CHECKING:
    from . import Logger

#: Rows that are Python objects at one time.
SLICE = 8192


def count(values: Any) -> int | None:
    """How many rows there are; None for what has none: a mapping, a text, and what has a length and no slices, such as a set."""
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping)):
        return None
    try:
        total = len(values)
        if not hasattr(values, "__arrow_c_stream__"):
            values[:0]
        return total
    except Exception:  # Whatever the library raises for it.
        return None


def rows(values: Any, names: Any = None) -> Iterator[Any]:
    """A dict for each row of a frame; of an array or a list with `names` too, else its element."""
    total = len(values)
    names = None if names is None else names_of(names)
    for start in range(0, total, SLICE):
        for row in _slice(values, start, min(SLICE, total - start)):
            yield row if names is None or not _has_length(row, len(names)) else dict(zip(names, row))


def _has_length(row: Any, length: int) -> bool:
    """Whether it is a row of so many features, and not one of another kind, which the model may refuse."""
    try:
        return not isinstance(row, (str, bytes, Mapping)) and len(row) == length
    except Exception:
        return False


def _slice(values: Any, start: int, length: int) -> Any:
    end = start + length
    if hasattr(values, "iloc"):  # pandas
        part = values.iloc[start:end]
        return frame_rows(part) if hasattr(part, "columns") else part.tolist()
    if hasattr(values, "to_dicts"):  # polars
        return values.slice(start, length).to_dicts()
    if hasattr(values, "to_pylist"):  # pyarrow
        return with_names(values.slice(start, length)).to_pylist()
    part = values[start:end]
    return plain_array(part) if hasattr(part, "tolist") and hasattr(part, "dtype") else part


def _is_per_output(outputs: Any, total: int) -> bool:
    """Whether it is a list of two-dimensional arrays that each have all rows, as scikit-learn's classifiers of several outputs answer, or a tuple of arrays
    that do, such as means and deviations. It has as many elements as there are outputs, be that the number of rows or not.
    """
    dimensions = (2,) if isinstance(outputs, list) else (1, 2)
    if not isinstance(outputs, (list, tuple)) or not outputs:
        return False
    return all(_is_array(part) and part.ndim in dimensions and len(part) == total for part in outputs)


def _is_array(part: Any) -> bool:
    return hasattr(part, "ndim") and hasattr(part, "tolist") and hasattr(part, "dtype")


def log_rows(
    logger: Logger, model_name: str, inputs: Any, outputs: Any, fields: Mapping[str, Any], names: Any = None, timeout: float = 0.0
) -> int:
    """A record for each row, with its `row_index`; returns how many were accepted. What has no rows is one record. `fields` are keywords of `log()`."""
    if "row_index" in fields:
        raise TypeError("row_index: expected none, as each row has its own")
    inputs, names = rows_of(inputs, names)
    outputs, _ = rows_of(outputs, None)
    if names is None and getattr(inputs, "ndim", 0) == 1:
        names = getattr(getattr(inputs, "dtype", None), "names", None)  # NumPy's records
    total = count(inputs)
    if total is not None and _is_per_output(outputs, total):
        outputs = [list(row) for row in zip(*map(plain_array, outputs))]
    if total is None or outputs is not None and count(outputs) != total:
        return int(bool(logger.log(model_name, inputs, outputs, row_index=0, **fields)))
    try:
        columns = source(inputs, names), None if outputs is None else source(outputs)
    except Exception:  # Whatever the library raises: then they are no columns.
        columns = None
    if columns is not None:
        try:
            return logger._log_columns(*columns, {"model_name": model_name, **fields}, timeout)
        except (TypeError, UnicodeEncodeError):
            pass  # Nothing was logged: a type that only Python makes plain, such as a map, or a name that is no Unicode.
    results = repeat(None) if outputs is None else rows(outputs)
    accepted = 0
    for index, (row, result) in enumerate(zip(rows(inputs, names), chain(results, repeat(None)))):
        accepted += bool(logger.log(model_name, row, result, row_index=index, **fields))
    return accepted
