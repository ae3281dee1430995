from typing import Any, Literal, Mapping, SupportsFloat, SupportsIndex, final

from typing_extensions import Self

__version__: str

@final
class Outcome:
    """What became of a prediction: true when it was accepted."""

    @property
    def seq(self) -> int | None:
        """Its place among the records of its writer, from 0; None when it was dropped."""
    @property
    def reason(self) -> str | None:
        """Why it was dropped: invalid, queue_full, no_space, sink_unavailable or closed; None when it was accepted."""
    @property
    def problem(self) -> str | None:
        """What was wrong with it, and what was expected, when the reason is invalid; else None."""
    def __bool__(self) -> bool: ...

@final
class Json:
    """JSON that is encoded already, such as a request's body: as `inputs` or `outputs`, or anywhere within, it is kept to the letter, without a Python object
    for any of its values. What is no JSON is kept as its text; NaN and infinities, which Python's `json` writes, are taken.
    """

    def __new__(cls, body: bytes | bytearray) -> Self: ...
    def __bytes__(self) -> bytes: ...

class Logger:
    def __new__(
        cls, name: str | None, text: str | None, variables: list[tuple[str, str]], keywords: str, strict: bool
    ) -> Self: ...
    def _open(self) -> None: ...
    def log(
        self,
        model_name: str,
        inputs: Any,
        outputs: Any = None,
        *,
        model_version: str | None = None,
        id: object = None,
        timestamp: object = None,
        request_id: object = None,
        row_index: SupportsIndex | None = None,
        status_code: SupportsIndex | None = None,
        error: object = None,
        latency_ms: SupportsFloat | None = None,
        sample_weight: SupportsFloat | None = None,
        metadata: Mapping[str, object] | None = None,
        traceparent: str | None = None,
        **fields: object,
    ) -> Outcome:
        """Logs a prediction; other keywords become metadata.

        Never raises for what it is given (with `strict`: TypeError, UnicodeEncodeError). What has no JSON form is kept as its `str()` and counted
        as `encoded_as_text`: unknown types, generators, ints of more than 64 bits. Where `str()` raises, a text says so. NaN and infinities are
        kept. Lone surrogates are kept as `\\udc80`. What is nested deeper than 64, is cyclic or is larger than `logger.max_record_bytes` becomes
        its digest. A field that is given what it cannot have (a `row_index` past 2**63-1) is metadata of its name, and counted as text. What is no
        error, such as KeyboardInterrupt, is raised.
        """
    def actuals(
        self,
        id: object,
        model_name: str,
        actuals: Any,
        *,
        model_version: str | None = None,
        timestamp: object = None,
        revision: object = None,
    ) -> Outcome:
        """Logs what turned out to be true of the prediction that was logged with this `id`: a dict with the names of its outputs, as a rule.

        It is a record of the model `<model_name>.actuals`, whose name has at most 256 bytes, with the values as `outputs`. `timestamp` is when they
        became known, else now. Values that are corrected are logged again, with another `revision`. Never raises for what it is given, as `log()`.
        """
    def flush(self, timeout: float = 30.0) -> bool:
        """Waits until all that was accepted is in its final place; False when `timeout` seconds were not enough."""
    def close(self, timeout: float = 5.0) -> dict[str, Any]:
        """Delivers what was accepted, for up to `timeout` seconds, and takes no more. Returns the last `snapshot()`."""
    def snapshot(self) -> dict[str, Any]:
        """The counters: accepted, delivered, on_disk, dropped (by reason), encoded_as_text and more. `problem` is what is wrong now, or was at the end; `sinks`
        has the same of each of `[[sinks]]`. Of the delivered ones those in `unstorable` are dead letters, in `<dir>/dead-letter/`.
        """
    def _log_columns(self, inputs: Any, outputs: Any, fields: Mapping[str, object], timeout: float) -> int: ...
    def _after_fork_in_child(self) -> None: ...

def log_asgi(
    logger: Logger,
    model_name: str,
    model_version: str | None,
    scope: Mapping[str, Any],
    request: bytes | bytearray | None,
    started: Mapping[str, Any] | None,
    response: bytes | bytearray | None,
    latency_ms: float,
    error: str | None,
) -> None:
    """Logs a request and its response, by their bodies (None where they are too large) and the message that the response began with, if it did."""

def log_wsgi(
    logger: Logger,
    model_name: str,
    model_version: str | None,
    request: object,
    response: object,
    *,
    status_code: int | None = None,
    error: str | None = None,
    latency_ms: float | None = None,
) -> None:
    """Logs a `werkzeug.Request`, and its response where there is one; without it `status_code` is its status."""

def end_all(loggers: list[Logger], timeout: float, for_good: bool) -> None: ...
def settle(timeout: float) -> None: ...
def forking(step: Literal["begins", "ready", "parent", "child"]) -> None: ...
def run(arguments: list[str]) -> int: ...
