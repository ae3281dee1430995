"""Values whose rows have to be looked for: scipy's sparse matrices, XGBoost's DMatrix, which gives one back, and what only tells Arrow of its rows."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from ._columns import as_series


def rows_of(values: Any, names: Iterable[Any] | None) -> tuple[Any, Any]:
    """`values` as something that has rows, and the names of its columns; what has rows already stays as it is, but for an index or an array of pandas.

    A sparse matrix becomes a dict for each row, of the values that it stores, or an array when it stores all of them: what is not stored is zero to some
    models and missing to others.
    """
    if any(base.__name__ == "QuantileDMatrix" for base in type(values).__mro__):
        return values, names  # It has the bounds of its bins alone: those are nobody's features.
    if hasattr(values, "get_data") and hasattr(values, "num_row"):
        names = values.feature_names or names or [f"f{index}" for index in range(values.num_col())]
        values = values.get_data()
    if not hasattr(values, "tocsr") or values.ndim != 2:
        return _table(as_series(values)), names
    matrix = values.tocsr(copy=True)
    matrix.sum_duplicates()  # Sorts each row too.
    height, width = matrix.shape
    keys = [str(name) for name in (range(width) if names is None else names)]
    if len(keys) != width:
        keys = [str(name) for name in range(width)]  # They are those of another matrix.
    if matrix.nnz == height * width:
        return matrix.data.reshape(height, width), keys
    ends, columns, stored = (part.tolist() for part in (matrix.indptr, matrix.indices, matrix.data))
    return [{keys[columns[at]]: stored[at] for at in range(*ends[row : row + 2])} for row in range(height)], keys


def _table(values: Any) -> Any:
    """What tells Arrow of its rows and has none itself, such as a relation of DuckDB, as a table of pyarrow, where that is installed. A reader, which has no
    length, stays as it is, as generators do: others are to read it.
    """
    if not hasattr(values, "__arrow_c_stream__") or not hasattr(values, "__len__") or hasattr(values, "slice") or hasattr(values, "iloc"):
        return values
    try:
        return importlib.import_module("pyarrow").table(values)
    except Exception:  # Whatever the library raises: then it has no rows.
        return values
