"""Where a logger's configuration comes from."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Union

Config = Union[str, "os.PathLike[str]", Mapping[str, Any], None]

_PREFIX = "PREDLOG_"


def read(config: Config, overrides: Mapping[str, Any]) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    """The file's name, its TOML text, and the variables, of which later ones win."""
    variables = [(name, value) for name, value in os.environ.items() if name.startswith(_PREFIX)]
    variables += _variables(overrides, _PREFIX)
    if config is None:
        config = os.environ.get("PREDLOG_CONFIG") or None
    if config is None:
        return None, None, variables
    if isinstance(config, Mapping):
        return "the given dict", "\n".join(_toml(config)), variables
    with open(config, encoding="utf-8") as file:
        return os.fspath(config), file.read(), variables


def _variables(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = prefix + key.upper()
        if isinstance(value, Mapping):
            yield from _variables(value, name + "__")
        elif value is not None:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _toml(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_string(key)} = {_value(value)}" for key, value in values.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(_toml(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime.timedelta):
        return _string(f"{value // datetime.timedelta(microseconds=1)}us")
    return _string(str(value))


def _string(text: str) -> str:
    # JSON's escapes are TOML's; DEL is the one character that only TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
