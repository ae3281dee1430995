"""Where a logger's configuration comes from."""

from __future__ import annotations

import datetime
import enum
import json
import operator
import os
from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple, Union

from . import _native

Config = Union[str, "os.PathLike[str]", Mapping[str, Any], None]

_PREFIX = "PREDLOG_"


class Sources(NamedTuple):
    """What a configuration is read from; later ones win."""

    #: Of the file, or of what stands for it.
    name: str | None
    #: Its TOML.
    text: str | None
    variables: list[tuple[str, str]]
    #: TOML of the keywords.
    keywords: str


def read(config: Config, overrides: Mapping[str, Any]) -> Sources:
    """Raises ValueError for values that no configuration has, with a line for each."""
    problems: list[str] = []
    variables = [(name, value) for name, value in os.environ.items() if name.startswith(_PREFIX)]
    # Python has what is not UTF-8 as surrogates, which the extension does not take.
    problems.extend(f"variable {ascii(name)}: not UTF-8" for name, value in variables if not _is_unicode(name + value))
    variables = [(name, value) for name, value in variables if _is_unicode(name + value)]
    keywords = _document(overrides, "keyword", problems)
    if config is None:
        config = os.environ.get("PREDLOG_CONFIG") or None
    name: str | None = None
    text: str | None = None
    if isinstance(config, Mapping):
        name, text = "the given dict", _document(config, "file=the given dict", problems)
    elif config is not None:
        # `open()` takes numbers too, as files that are open already.
        path = os.fspath(config)
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        with open(path, encoding="utf-8") as file:
            try:
                text = file.read()
            except UnicodeDecodeError as error:
                raise ValueError(f"file={name}: expected UTF-8: {error}") from None
    if problems:
        try:
            _native.Logger(name, text, variables, keywords, False)  # For all else that is wrong; it is not opened.
        except ValueError as error:
            problems.append(str(error))
        raise ValueError("\n".join(problems))
    return Sources(name, text, variables, keywords)


def _document(values: Mapping[str, Any], origin: str, problems: list[str]) -> str:
    return "\n".join(f"{key} = {value}" for key, value in _entries(values, origin, "", problems))


def _entries(values: Mapping[str, Any], origin: str, section: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Keys and values as TOML. What is None counts as not given."""
    for key, value in values.items():
        path = f"{section}.{key}" if section else str(key)
        if not _is_unicode(path):
            problems.append(f"{origin}: {ascii(path)}: expected a key that UTF-8 can have")
            continue
        toml = None if value is None else _value(value, origin, path, problems)
        if toml is not None:
            yield _string(str(key)), toml


def _value(value: Any, origin: str, path: str, problems: list[str]) -> str | None:
    """None, and a problem, for what cannot be meant as text, a number, a list or a table."""
    if isinstance(value, enum.Enum):
        value = value.value
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {inner}" for key, inner in _entries(value, origin, path, problems)) + "}"
    if isinstance(value, (list, tuple)):
        elements = (_value(element, origin, f"{path}[{at}]", problems) for at, element in enumerate(value))
        return "[" + ", ".join(element for element in elements if element is not None) + "]"
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, datetime.timedelta):
        return _string(f"{value // datetime.timedelta(microseconds=1)}us")
    if not isinstance(value, str) and hasattr(type(value), "__index__"):
        number = operator.index(value)
        return str(number) if -(2**63) <= number < 2**63 else _string(str(number))  # TOML has no larger ones.
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if _is_text(value):
        text = str.__str__(value) if isinstance(value, str) else str(value)
        if _is_unicode(text):
            return _string(text)
        # Python has the name of a file that is not UTF-8 as surrogates.
        problems.append(f"{origin}: {path}={ascii(text)}: expected text that UTF-8 can have")
        return None
    problems.append(f"{origin}: {path}: type={type(value).__name__}: expected text, a number, a bool, a timedelta, a path, a list or a dict")
    return None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _is_text(value: Any) -> bool:
    """Whether its `str()` may be what a key wants: that of a URL is, that of bytes or of a set is not."""
    kind: Any = type(value)
    own = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    return own and not isinstance(value, (bytes, bytearray, memoryview, Iterator, Set)) and not callable(value)


def _string(text: str) -> str:
    # JSON's escapes are TOML's; DEL is the one character that only TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
