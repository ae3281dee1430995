"""What the web frameworks' integrations share: the time of a request, and its bodies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import predlog

from ._native import Json

if TYPE_CHECKING:
    from . import Logger

#: Larger bodies are not kept in memory to be logged.
MAX_BODY_BYTES = 1024 * 1024


class Call:
    """One request from its start to its record."""

    def __init__(self, model_name: str, model_version: str | None, logger: Logger | None) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.logger = logger
        self.start = time.perf_counter()

    def log(self, inputs: Any, outputs: Any, *, status_code: int | None, error: BaseException | None = None, **fields: Any) -> None:
        latency_ms = (time.perf_counter() - self.start) * 1e3
        text = None if error is None else f"{type(error).__name__}: {_text(error)}"
        logger = self.logger or predlog.default()
        logger.log(
            self.model_name, inputs, outputs, model_version=self.model_version, status_code=status_code, error=text, latency_ms=latency_ms, **fields
        )


def as_json(body: bytes) -> Json | None:
    """A body as JSON, or as its text where it is none; None where there is nothing."""
    return Json(body) if body else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "?"
