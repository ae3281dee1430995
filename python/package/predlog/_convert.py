"""Makes objects plain: what the encoder does not know by type becomes dicts, lists, text and numbers here."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import pathlib
import sys
import uuid
from typing import Any

from ._columns import frame_rows, in_utc, is_of, listed, micros, names_of, with_names
from ._native import Json

# Larger arrays would be lists of objects only to become a digest.
MAX_ELEMENTS = 1_000_000


def convert(value: Any) -> Any:
    """`value` with plain values, one level deep. Raises TypeError where nothing is known of its type.

    Iterators and generators are not known: the handler wants them itself.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return None if _is_missing(value) else value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID, pathlib.PurePath)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Json):
        return _loaded(bytes(value))
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, tuple):
        as_dict = getattr(value, "_asdict", None)
        return tuple(value) if as_dict is None else as_dict()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    return _structured(value)


def _loaded(body: bytes) -> Any:
    """What is no JSON, but may be what `json` takes for it (NaN); else its text."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _structured(value: Any) -> Any:
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        own: Any = getattr(kind, "__pydantic_fields__", {})  # Where pydantic has made it: what it excludes from its own dumps is no one else's.
        names = (field.name for field in dataclasses.fields(kind))
        return {name: getattr(value, name) for name in names if not getattr(own.get(name), "exclude", None)}
    if hasattr(kind, "__pydantic_fields__") or hasattr(kind, "model_fields") and hasattr(kind, "model_dump"):
        return _model(value)
    if hasattr(kind, "__fields__") and hasattr(kind, "json"):
        return {name: field for name, field in value.__dict__.items() if name in kind.__fields__ or name in value.__fields_set__}  # pydantic 1
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if hasattr(kind, "to_dict") and hasattr(kind, "iloc"):
        return list(frame_rows(value)) if hasattr(kind, "columns") else _series(value)  # pandas: frame, series
    if hasattr(kind, "to_dicts"):
        return in_utc(value).to_dicts()  # polars: frame
    if hasattr(kind, "tolist") and hasattr(kind, "dtype"):
        return _array(value)
    if hasattr(kind, "to_list") and hasattr(kind, "dtype"):
        return listed(value)  # polars: series
    if hasattr(kind, "detach") and hasattr(kind, "numpy"):
        return _array(value.detach().cpu().numpy())  # torch
    if hasattr(kind, "numpy") and (hasattr(kind, "dtype") or hasattr(kind, "shape")):
        return value.numpy()  # tensorflow; onnxruntime, whose values have a shape alone
    if hasattr(kind, "to_pylist"):
        return _arrow(value)  # pyarrow: array, table
    if hasattr(kind, "as_py"):
        return value.as_py()  # pyarrow: scalar
    if hasattr(kind, "items") and hasattr(kind, "keys"):
        return dict(value.items())
    if _is_missing(value):
        return None
    raise TypeError(f"type={kind.__name__}: expected a type that has a JSON form")


def _is_missing(value: Any) -> bool:
    """Whether it is NaT or NA of pandas, which are of classes of their own."""
    return type(value).__name__ in ("NaTType", "NAType")


def _model(value: Any) -> Any:
    """A model of pydantic 2: its fields by their names, without those that it excludes from its own dumps, and those that it computes."""
    kind: Any = type(value)
    if getattr(kind, "__pydantic_root_model__", False):
        return value.root
    kept, computed = _fields_of(kind)
    own = value.__dict__  # A cached property is there too, once it was asked for.
    fields = {name: own[name] for name in kept if name in own}
    fields.update(getattr(value, "__pydantic_extra__", None) or {})
    for name in computed:
        fields[name] = getattr(value, name)
    return fields


@functools.lru_cache(maxsize=1024)
def _fields_of(kind: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the fields that are not excluded, and of those that are computed."""
    fields = getattr(kind, "__pydantic_fields__", None) or kind.model_fields
    computed = getattr(kind, "__pydantic_computed_fields__", None)
    if computed is None:
        computed = getattr(getattr(kind, "__pydantic_decorators__", None), "computed_fields", {})
    return tuple(name for name, field in fields.items() if not getattr(field, "exclude", None)), tuple(computed)


def _series(value: Any) -> Any:
    """A series of pandas; a row of a frame has the names that the frame's rows have."""
    return dict(zip(names_of(value.index), listed(value)))


def _array(value: Any) -> Any:
    """An array, if it is not too large."""
    size = getattr(value, "size", 0)
    if callable(size):  # torch
        size = value.numel()
    if size > MAX_ELEMENTS:
        raise TypeError(f"size={size}: expected at most {MAX_ELEMENTS} elements")
    return plain_array(value)


def _arrow(value: Any) -> Any:
    size = len(value) * getattr(value, "num_columns", 1)
    if size > MAX_ELEMENTS:
        raise TypeError(f"size={size}: expected at most {MAX_ELEMENTS} elements")
    return in_utc(with_names(value)).to_pylist()


def plain_array(value: Any) -> Any:
    """An array as nested lists, a scalar as its number; numpy's dates as ISO 8601; records as objects; null for what is masked."""
    dtype = value.dtype
    kind = getattr(dtype, "kind", "O")
    if type(dtype).__module__.partition(".")[0] != "numpy":
        return listed(value)  # pandas, polars: their own types, of which Python's are made
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()  # pandas: its text of times is another.
    if kind == "M":
        plain, outside = micros(value)
        texts = plain.astype(str)
        if outside.any():
            texts = sys.modules["numpy"].where(outside, value.astype(str), texts)
        return _without_missing(texts.tolist())
    if kind == "m":
        if dtype.str.endswith(("Y]", "M]")):  # They have no seconds.
            return _without_missing(value.astype(str).tolist())
        return _without_missing((value / dtype.type(1, "s")).tolist())
    if kind == "c":
        return value.astype(str).tolist()
    if kind == "f" and dtype.itemsize > 8:
        return value.astype("float64").tolist()
    if dtype.names is not None:
        # NumPy gives a masked record's own records as one missing value when any part of them is.
        return _records(value.data, value.mask) if is_of(value, "numpy.ma", "MaskedArray") else _records(value, None)
    plain = value.tolist()
    return str(value) if plain is value else plain


def _without_missing(values: Any) -> Any:
    """NaT is null, be it a time's text or a number of seconds."""
    if isinstance(values, list):
        return [_without_missing(value) for value in values]
    return None if values == "NaT" or values != values else values


def _records(value: Any, mask: Any) -> Any:
    """Records as objects. `mask` has the same fields."""
    names, dimensions = value.dtype.names, getattr(value, "ndim", 0)
    if dimensions > 1:
        return [_records(part, None if mask is None else mask[at]) for at, part in enumerate(value)]
    columns = [_field(value[name], None if mask is None else mask[name]) for name in names]
    return [dict(zip(names, row)) for row in zip(*columns)] if dimensions else dict(zip(names, columns))


def _field(value: Any, mask: Any) -> Any:
    dtype = getattr(value, "dtype", None)
    if dtype is not None and dtype.names is not None:
        return _records(value, mask)
    plain = value if dtype is None else plain_array(value)
    return plain if mask is None else _without_masked(plain, mask.tolist())


def _without_masked(values: Any, mask: Any) -> Any:
    if isinstance(mask, list):
        return [_without_masked(value, masked) for value, masked in zip(values, mask)]
    return None if mask else values
