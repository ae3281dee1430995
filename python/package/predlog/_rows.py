"""Frames, arrays and lists as records: by columns where they have columns, else by rows, some thousands at a time."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

from ._columns import frame_rows, in_utc, is_of, listed, names_of, source, with_names
from ._convert import plain_array
from ._matrix import rows_of

if TYPE_CHECKING:
    from . import Logger

#: Rows that are Python objects at one time.
SLICE = 8192
#: What a call of `log()` takes, at most, and the longest that the rows of a prediction wait for room in the queue.
ROW_SECONDS, MAX_WAIT_SECONDS = 20e-6, 10.0
#: Any longer time is this one: more than a process lives.
MAX_SECONDS = 1e9


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
        return frame_rows(part) if hasattr(part, "columns") else listed(part)
    if hasattr(values, "to_dicts"):  # polars
        return in_utc(values.slice(start, length)).to_dicts()
    if hasattr(values, "to_pylist"):  # pyarrow
        return in_utc(with_names(values.slice(start, length))).to_pylist()
    part = values[start:end]
    return plain_array(part) if _is_array(part) else part


def _is_per_output(outputs: Any, total: int) -> bool:
    """Whether it is a list of two-dimensional arrays that each have all rows, as scikit-learn's classifiers of several outputs answer, or a tuple of arrays
    that do, such as means and deviations. It has as many elements as there are outputs, be that the number of rows or not.
    """
    dimensions = (2,) if isinstance(outputs, list) else (1, 2)
    if not isinstance(outputs, (list, tuple)) or not outputs:
        return False
    return all(_is_array(part) and getattr(part, "ndim", 1) in dimensions and len(part) == total for part in outputs)


def _is_array(part: Any) -> bool:
    return hasattr(part, "dtype") and (hasattr(part, "tolist") or is_of(part, "polars", "Series"))


def seconds(timeout: Any) -> float:
    """`timeout`, if it can be one. Raises TypeError or ValueError."""
    if not isinstance(timeout, numbers.Real):
        raise TypeError(f"timeout={timeout!r}: expected seconds as a number, such as 5.0")
    limited: Any = min(timeout, MAX_SECONDS)  # Of ints there are some that no float can be.
    if not limited >= 0:
        raise ValueError(f"timeout={timeout}: expected seconds, from 0; pass a number such as 5.0")
    return float(limited)


def _prepared(inputs: Any, outputs: Any, names: Any) -> tuple[Any, Any, Any, int | None]:
    """Inputs and outputs that have rows, the names of the features and how many rows there are; None where all is one record."""
    inputs, names = rows_of(inputs, names)
    outputs, _ = rows_of(outputs, None)
    if names is None and getattr(inputs, "ndim", 0) == 1:
        names = getattr(getattr(inputs, "dtype", None), "names", None)  # NumPy's records
    total = count(inputs)
    if total is not None and _is_per_output(outputs, total):
        outputs = [list(row) for row in zip(*map(plain_array, outputs))]
    return inputs, outputs, names, total if outputs is None or count(outputs) == total else None


def log_rows(
    logger: Logger, model_name: str, inputs: Any, outputs: Any, fields: Mapping[str, Any], names: Any = None, timeout: float | None = None
) -> int:
    """A record for each row, with its `row_index`; returns how many were accepted. What has no rows is one record, and so is what failed before it had any.
    `fields` are keywords of `log()`. Without `timeout` columns wait for room in the queue as long as so many calls of `log()` would take.
    """
    if "row_index" in fields:
        raise TypeError("row_index: expected none, as each row has its own")
    try:
        inputs, outputs, names, total = _prepared(inputs, outputs, names)
    except Exception:  # Whatever the library raises, as a released memoryview does for all that it is asked.
        total = None
    if total is None or not total and fields.get("error") is not None:
        return int(bool(logger.log(model_name, inputs, outputs, row_index=0, **fields)))
    if timeout is None:
        timeout = min(MAX_WAIT_SECONDS, ROW_SECONDS * total)
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
    pairs = zip(rows(inputs, names), chain(results, repeat(None)))
    try:
        first = list(islice(pairs, 1))
    except Exception:  # They have no rows after all.
        return int(bool(logger.log(model_name, inputs, outputs, row_index=0, **fields)))
    accepted = 0
    for index, (row, result) in enumerate(chain(first, pairs)):
        accepted += bool(logger.log(model_name, row, result, row_index=index, **fields))
    return accepted
