"""Frames and arrays as columns for the extension: Arrow's C stream, or NumPy's bytes."""

from __future__ import annotations

import sys
from typing import Any


def source(values: Any, names: Any = None) -> Any:
    """What `Logger._log_columns` reads: a capsule, `(kind, bytes, width)`, or a list of `(name, source)`.

    `names` are those of the columns of an array. Raises TypeError, or what the library raises, for values that have no columns or whose columns are
    Python objects.
    """
    if _is(values, "pandas", "DataFrame"):
        # By column, so that numbers need no pyarrow, and NaN stays NaN.
        return [(str(name), source(column)) for name, column in values.items()]
    if _is(values, "pandas", "Series"):
        if _is(values.dtype, "numpy", "dtype"):
            return _numpy(values.to_numpy())
    elif _is(values, "numpy", "ndarray"):
        if names is not None and values.ndim == 2:
            return [(str(name), _numpy(values[:, index])) for index, name in enumerate(names)]
        return _numpy(values)
    return values.__arrow_c_stream__()


def _is(values: Any, module: str, name: str) -> bool:
    """Whether `values` is of a class of a library, if that is in use at all."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(values, kind)


def _numpy(array: Any) -> tuple[str, bytes, int | None]:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.ndim not in (1, 2) or kind not in "biufM" or array.ndim == 2 and array.shape[1] == 0:
        raise TypeError(f"dtype={array.dtype} ndim={array.ndim}: expected numbers or times in one or two dimensions")
    if kind == "M":
        array = array.astype("datetime64[us]")
    elif kind == "f" and size not in (4, 8):
        array, size = array.astype("float64"), 8
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return f"{kind}{size}", array.tobytes(), array.shape[1] if array.ndim == 2 else None
