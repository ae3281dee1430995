"""Matrices whose rows have to be looked for: scipy's sparse ones, and XGBoost's DMatrix, which gives one back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def rows_of(values: Any, names: Iterable[Any] | None) -> tuple[Any, Any]:
    """`values` as something that has rows, and the names of its columns; what has rows already stays as it is.

    A sparse matrix becomes a dict for each row, of the values that it stores, or an array when it stores all of them: what is not stored is zero to some
    models and missing to others.
    """
    if any(base.__name__ == "QuantileDMatrix" for base in type(values).__mro__):
        return values, names  # It has the bounds of its bins alone: those are nobody's features.
    if hasattr(values, "get_data") and hasattr(values, "num_row"):
        names = values.feature_names or names or [f"f{index}" for index in range(values.num_col())]
        values = values.get_data()
    if not hasattr(values, "tocsr") or values.ndim != 2:
        return values, names
    matrix = values.tocsr(copy=True)
    matrix.sum_duplicates()  # Sorts each row too.
    height, width = matrix.shape
    keys = [str(name) for name in (range(width) if names is None else names)]
    if matrix.nnz == height * width:
        return matrix.data.reshape(height, width), keys
    ends, columns, stored = (part.tolist() for part in (matrix.indptr, matrix.indices, matrix.data))
    return [{keys[columns[at]]: stored[at] for at in range(*ends[row : row + 2])} for row in range(height)], keys
