"""What the web frameworks' integrations share: the time of a request, and its bodies."""

from __future__ import annotations

import io
import logging
import time
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import predlog

from . import default as opened
from ._native import Json

if TYPE_CHECKING:
    from . import Logger

#: Larger bodies are not kept in memory to be logged.
MAX_BODY_BYTES = 1024 * 1024
#: gzip's, of one body: each costs a copy of those behind it.
MAX_MEMBERS = 32
#: Methods by which nothing is predicted: what browsers and monitors ask before.
NOT_LOGGED = frozenset(("HEAD", "OPTIONS"))

#: Seconds for which a default logger that could not be opened is not tried again: at first, and at most.
RETRY = (0.1, 5.0)

_log = logging.getLogger("predlog")
#: The default logger could not be opened: until when it is not tried again, and how long that is.
_failed: tuple[float, float] | None = None


class Call:
    """One request from its start to its record."""

    __slots__ = ("logger", "model_name", "model_version", "start", "latency_ms")

    def __init__(self, model_name: str, model_version: str | None, logger: Logger | None) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.logger = logger
        self.latency_ms: float | None = None
        self.start = time.perf_counter()

    def stop(self) -> None:
        """The answer is given: what comes after is none of its latency."""
        self.latency_ms = (time.perf_counter() - self.start) * 1e3

    def log(self, inputs: Any, outputs: Any, *, status_code: int | None, error: BaseException | None = None, **fields: Any) -> None:
        """Logs the request as one record; its latency is the time until now, or until `stop()`."""
        if self.latency_ms is None:
            self.stop()
        text = None if error is None else text_of(error)
        logger = self.logger or default()
        if logger is not None:
            logger.log(
                self.model_name,
                inputs,
                outputs,
                model_version=self.model_version,
                status_code=status_code,
                error=text,
                latency_ms=self.latency_ms,
                **fields,
            )


def default() -> Logger | None:
    """The default logger; None where its configuration is wrong. Python's log has why, once until there is one: no request fails for that, nor does each try."""
    global _failed
    failed = _failed
    if failed is not None and predlog._default is None and time.monotonic() < failed[0]:
        return None
    try:
        logger = opened()
    except Exception:
        wait = RETRY[0] if failed is None else min(2 * failed[1], RETRY[1])
        _failed = time.monotonic() + wait, wait
        if failed is None:
            _log.exception("predictions are not logged: call predlog.init() as the server starts, which raises this")
        return None
    _failed = None
    return logger


def unread(request: Any) -> bytes | None:
    """A body that a WSGI application has not read, where all of it is here: a client that has not sent it yet, and may never, is not waited for. A body is read
    as a whole or not at all, since what is left of one would be the server's next request.
    """
    try:
        # Where nobody has asked for the stream, nobody has read of it.
        stream = vars(request).get("stream")
        is_whole = stream is None or stream.tell() == 0
        return _all_of(request) if is_whole and _is_here(request.environ) else None
    except Exception:  # It is larger than the application takes, or the server is of another kind.
        return None


def _all_of(request: Any) -> bytes:
    body: bytes = request.get_data()
    return body


def _is_here(environ: Any) -> bool:
    """Whether a server has all of a body in memory, as that of most requests comes with their headers, and nobody has read of it past the request."""
    body, length = environ.get("wsgi.input"), int(environ.get("CONTENT_LENGTH") or 0)
    if isinstance(body, (io.BytesIO, io.BufferedRandom)):
        return body.tell() == 0
    if isinstance(body, io.BufferedReader):
        # werkzeug's: what has come is looked at, and stays where it is.
        socket = environ["werkzeug.socket"]
        before = socket.gettimeout()
        socket.settimeout(0)
        try:
            return 0 < length <= len(body.peek(length))
        finally:
            socket.settimeout(before)
    # gunicorn's, of bodies whose length is known.
    reader = body.reader
    return isinstance(reader.unreader.buf, io.BytesIO) and 0 < length == reader.length <= reader.unreader.buf.getbuffer().nbytes


def as_json(body: bytes | bytearray | memoryview, encoding: str = "") -> Json | None:
    """A body as JSON, or as its text where it is none; None where there is nothing, or an `encoding` (of HTTP) that is not known."""
    body = bytes(body)
    if encoding and encoding != "identity":
        body = _unpacked(body, encoding)
    return Json(body) if body else None


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Empty where it cannot be unpacked, or would be too large."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return b""
    plain = b""
    for member in range(MAX_MEMBERS):
        unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)  # Which of them it is says its header.
        try:
            plain += unpacker.decompress(body, MAX_BODY_BYTES + 1 - len(plain))
        except zlib.error:
            return plain if member else b""  # Behind a member, whatever is no other.
        if not unpacker.eof or len(plain) > MAX_BODY_BYTES:
            return b""
        body = unpacker.unused_data.lstrip(b"\0")
        if not body:
            return plain
    return b""


def query(text: bytes) -> dict[str, Any]:
    """A query's parameters."""
    return parameters(parse_qs(text.decode("latin-1"), keep_blank_values=True).items())


def parameters(lists: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
    """Parameters by name: a text, or a list of those that are there more than once."""
    return {name: values[0] if len(values) == 1 else values for name, values in lists}


_told = False


def tell_once() -> None:
    """Says in Python's log, with the exception at hand, that a request could not be logged: the first time, as it would be each request's."""
    global _told
    if not _told:
        _told = True
        _log.exception("a prediction is not logged; others that fail are not told")


def text_of(error: BaseException) -> str:
    """An exception in one line, whatever its own `str()` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}: ?"
