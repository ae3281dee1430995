"""Logs the predictions of a model server: in SQLite, Parquet or Kafka, in a microsecond a call.

    import predlog

    with predlog.Logger("predlog.toml") as logger:
        logger.log(model_name="wine", model_version="1", inputs={"alcohol": 9.4}, outputs={"score": 5.2})

`log()` never raises for what it is given: see `Logger.log`.
"""

from __future__ import annotations

import os
import threading
import uuid
from typing import TYPE_CHECKING, Any

from . import _native
from ._config import Config, read
from ._lifecycle import keep
from ._native import Json, Outcome, __version__
from ._rows import log_rows, seconds
from ._wrap import wrap

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Json", "Logger", "Outcome", "__version__", "actuals", "close", "default", "init", "log", "wrap"]


class Logger(_native.Logger):
    """Logs predictions. Make one for a process and use it from all threads and tasks; after a fork, parent and child each go on by themselves.

    `config` is the path of a TOML file, or a dict of the same shape; without it the file that PREDLOG_CONFIG names, else the defaults. Variables
    such as PREDLOG_DIRECT__STORE win over it, and `overrides` over both: `Logger(direct={"dir": "/var/lib/predlog"})`. Durations may be `timedelta`s.

    With `strict`, `log()` raises TypeError or UnicodeEncodeError for a value that has no JSON form, instead of keeping its text.

    Raises ValueError for a wrong configuration, with a line for each problem; OSError for a file that cannot be read; RuntimeError for a
    directory that cannot be written.
    """

    def __new__(cls, config: Config = None, *, strict: bool = False, **overrides: Any) -> Self:
        logger = super().__new__(cls, *read(config, overrides), strict)
        # Before it is open, so that no fork finds it open and unknown.
        keep(logger)
        logger._open()
        return logger

    def __init__(self, config: Config = None, *, strict: bool = False, **overrides: Any) -> None:
        """All is done by `__new__`: the extension's class has no other."""

    def log_batch(
        self, inputs: Any, outputs: Any = None, *, model_name: str, request_id: object = None, timeout: float = 10.0, **fields: Any
    ) -> int:
        """Logs a record for each row of `inputs`: a frame of pandas, Polars or pyarrow, an array or a list. `outputs` has as many rows.

        All have the `request_id`, one is made where none is given, and each its `row_index`. Other keywords are those of `log`. Returns how many
        were accepted. Where the rows of `outputs` are another number, all is one record.

        Columns of numbers, text, times, lists and structs make no Python objects, and Python's other threads run meanwhile. When the queue is full such
        rows wait for room, all together for up to `timeout` seconds, so from async code call it by `asyncio.to_thread`.
        """
        fields["request_id"] = request_id or str(uuid.uuid4())
        return log_rows(self, model_name, inputs, outputs, fields, timeout=seconds(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


# Of a thread: its own signal handlers may log, or close, while it opens one.
_lock = threading.RLock()
_default: Logger | None = None


def init(config: Config = None, *, strict: bool = False, **overrides: Any) -> Logger:
    """Makes the logger that `log()` of this module uses, and closes the one before. Arguments are those of `Logger`; where it raises, the one before
    goes on.
    """
    global _default
    with _lock:
        logger = Logger(config, strict=strict, **overrides)
        before, _default = _default, logger
    if before is not None:
        before.close()
    return logger


def default() -> Logger:
    """The logger of `init()`; where that was not called, or `close()` since, one with the configuration of the environment."""
    global _default
    if _default is None:
        with _lock:
            if _default is None:
                made = Logger()
                if _default is None:
                    _default = made
                else:
                    made.close()  # A signal's handler has made one meanwhile.
    return _default


def log(model_name: str, inputs: Any, outputs: Any = None, **fields: Any) -> Outcome:
    """`Logger.log` of the default logger."""
    return default().log(model_name, inputs, outputs, **fields)


def actuals(
    id: object, model_name: str, actuals: Any, *, model_version: str | None = None, timestamp: object = None, revision: object = None
) -> Outcome:
    """`Logger.actuals` of the default logger."""
    return default().actuals(id, model_name, actuals, model_version=model_version, timestamp=timestamp, revision=revision)


def close(timeout: float = 5.0) -> None:
    """Closes the default logger, if there is one. A `log()` of this module after that opens another one, with the configuration of the environment."""
    global _default
    with _lock:
        before, _default = _default, None
    if before is not None:
        before.close(timeout)


def _new_lock() -> None:
    # Another thread may have held it when the process forked.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
