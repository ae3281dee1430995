"""FastAPI, Starlette and any other ASGI server: a middleware that never touches the response, and a decorator for handlers."""

from __future__ import annotations

import enum
import functools
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast

import predlog

from ._capture import MAX_BODY_BYTES, NOT_LOGGED, Call, as_json, default, tell_once, text_of
from ._native import log_asgi

if TYPE_CHECKING:
    from . import Logger

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_Body = Union[bytes, bytearray, None]
#: Models' names with their routes.
_Routes = tuple[tuple[str, str], ...]
_PARAMETER = re.compile(r"\{[^{}:]*(:[^{}]*)?\}")
_CONVERTERS = {
    ":path": ".*",
    ":int": "[0-9]+",
    ":float": r"[0-9]+(?:\.[0-9]+)?",
    ":uuid": "[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}",
}
#: The longest that a server's stop waits until all is delivered; the rest is in the directory for the next start.
FLUSH_SECONDS = 5.0

Handler = TypeVar("Handler", bound=Callable[..., Any])


class PredictionLogMiddleware:
    """Logs each request of the chosen routes: JSON in, JSON out, status, exception, latency.

    `routes` maps paths, or templates of them such as "/models/{name}" and "/files/{path:path}", to model names; of several that fit it is the one that the
    application took. Messages pass unchanged, each at once; a stream stays one. Without a JSON body the query is the inputs. Bodies above 1 MiB and those that
    are not JSON are not kept; gzip is unpacked. A request is logged as soon as its response is sent, before background tasks; HEAD and OPTIONS are not. Without
    `logger` it is the default one (`predlog.init`).
    """

    def __init__(
        self, app: App, *, routes: Mapping[str, str], model_version: str | None = None, logger: Logger | None = None
    ) -> None:
        self.app = app
        self.routes: dict[str, _Routes] = {route: ((model_name, route),) for route, model_name in routes.items()}
        self.templates = [(_pattern(route), (model_name, route)) for route, model_name in routes.items() if "{" in route]
        self.model_version = model_version
        self.logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._at_the_end(send))
            return
        found = self._find(scope) if kind == "http" else None
        if not found:
            await self.app(scope, receive, send)
            return
        start, latency_ms, logged = time.perf_counter(), None, False
        # Bodies: empty until there is a part, None where they are not to be kept. Closures, as an object with methods takes twice their time.
        request: _Body = b""
        response: _Body = b""
        started: Message | None = None

        async def receiving() -> Message:
            nonlocal request
            message = await receive()
            if message["type"] == "http.request" and (part := message.get("body")):
                request = _append(request, part) if request != b"" else part
            return message

        def sending(message: Message) -> Awaitable[None]:
            nonlocal started, response, latency_ms
            kind = message["type"]
            if kind == "http.response.body":
                part = message.get("body")
                if message.get("more_body"):
                    response = _append(response, part) if response or _is_json(started) else None
                else:
                    response = _append(response, part) if response != b"" else part
                    latency_ms = (time.perf_counter() - start) * 1e3
                    if started is not None and (started.get("status") or 500) < 500:
                        # No exception is to be expected any more. A coroutine is made for this message only.
                        return sending_last(message)
            elif kind == "http.response.start":
                # Others may change its headers later on: by then they are not those of this body.
                headers = message.get("headers")
                started = {**message, "headers": headers.copy()} if type(headers) is list else message
            return send(message)

        async def sending_last(message: Message) -> None:
            await send(message)
            log(None)

        def log(error: BaseException | None) -> None:
            nonlocal logged
            logger = None if logged else self.logger or default()
            logged = True
            if logger is None:
                return
            (model_name, route), text = found[0], None if error is None else text_of(error)
            latency = (time.perf_counter() - start) * 1e3 if latency_ms is None else latency_ms
            try:
                taken = getattr(scope.get("route"), "path", None)
                if taken != route and taken and isinstance(taken, str):
                    chosen = _choose(found, taken)
                    if chosen is None:
                        return
                    model_name = chosen[0]
                log_asgi(logger, model_name, self.model_version, scope, request, started, response, latency, text)
            except Exception:
                tell_once()

        try:
            await self.app(scope, receiving, sending)
        except BaseException as error:
            log(error)
            raise
        if not logged:
            log(None)

    def _find(self, scope: Scope) -> _Routes | None:
        """Models' names and their routes: those that fit the path. Which one the application takes is known when it has."""
        path = scope["path"]
        if scope.get("method") in NOT_LOGGED:
            return None
        found = self.routes.get(path)
        # A server behind a prefix: the app's routes are written without it.
        root = scope.get("root_path")
        if found is None and root and path.startswith(root):
            path = path[len(root) :]
            found = self.routes.get(path)
        if found is None:
            found = tuple([listed for pattern, listed in self.templates if pattern.fullmatch(path)])
        return found

    def _at_the_end(self, send: Send) -> Send:
        async def delivering(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                # uvicorn ends by the signal that it got, so that Python's atexit does not run. No request waits for this any more.
                logger = self.logger or predlog._default
                if logger is not None:
                    logger.flush(FLUSH_SECONDS)
            await send(message)

        return delivering


def _pattern(route: str) -> re.Pattern[str]:
    """`{name}` stands for a part of a path, `{name:path}` for any number of them; other converters narrow it as Starlette's do."""
    parts = _PARAMETER.split(route)
    texts = (re.escape(text) for text in parts[::2])
    gaps = (_CONVERTERS.get(kind, "[^/]+") for kind in parts[1::2])
    return re.compile("".join(text + gap for text, gap in zip(texts, (*gaps, ""))))


@functools.lru_cache(maxsize=1024)
def _choose(fitting: _Routes, taken: str) -> tuple[str, str] | None:
    """Of the routes that fit a path, the one that is `taken`, the application's own. Behind a mount that lacks what stands before it. How parameters are called
    is each one's own, as is, where there is no better one, how they are converted. Else the first that stands for no more than `taken` does.
    """
    for form in (_without_names, _without_converters):
        for is_same in (str.__eq__, str.endswith):
            for listed in fitting:
                if is_same(form(listed[1]), form(taken)):
                    return listed
    return next((listed for listed in fitting if _is_within(listed[1], taken)), None)


def _without_names(route: str) -> str:
    return _PARAMETER.sub(lambda found: f"{{{found[1] or ''}}}", route)


def _without_converters(route: str) -> str:
    return _PARAMETER.sub(lambda found: "{:path}" if found[1] == ":path" else "{}", route)


def _is_within(route: str, taken: str) -> bool:
    """Whether `taken` fits whatever `route` does, of the paths that both fit."""
    if f"{_without_converters(taken)}/" in _without_converters(route):
        return True  # A mount of an application that does not tell its own.
    # From their ends, as `taken` may lack the beginning.
    for wanted, found in zip(reversed(route.split("/")), reversed(_without_converters(taken).lstrip("/").split("/"))):
        if ":path}" in wanted + found:
            # It stands for any number of parts: those before it have no counterparts. One that is wanted is for whatever is there.
            return True
        # A character that is in no path stands for whatever a parameter does.
        if "{" in wanted and not _pattern(found).fullmatch(_PARAMETER.sub("\0", wanted)):
            return False
    return True


def _append(body: _Body, part: bytes | None) -> _Body:
    if body is None or len(body) + len(part or b"") > MAX_BODY_BYTES:
        return None
    if not part:
        return body
    whole = body if isinstance(body, bytearray) else bytearray(body)
    whole += part
    return whole


def _is_json(started: Message | None) -> bool:
    headers = started.get("headers", ()) if started is not None else ()
    return any(name.lower() == b"content-type" and b"json" in value.lower() for name, value in headers)


def log_predictions(*, model_name: str, model_version: str | None = None, logger: Logger | None = None) -> Callable[[Handler], Handler]:
    """Logs each call of a handler, async or not: its arguments as inputs, what it returns as outputs. It stands below `@app.post`.

    Requests, responses and the like are no inputs; of a handler that has a request alone it is the JSON body, where the handler has read that. The status is that of
    the response or of the exception, or what the handler has set in FastAPI's `response: Response`, else 200. A stream is not kept.
    """

    def decorate(handler: Handler) -> Handler:
        names = _names(handler)

        @functools.wraps(handler)
        async def logged(*arguments: Any, **keywords: Any) -> Any:
            with _Logged(Call(model_name, model_version, logger), names, arguments, keywords) as watched:
                watched.outputs = await handler(*arguments, **keywords)
            return watched.outputs

        @functools.wraps(handler)
        def logged_sync(*arguments: Any, **keywords: Any) -> Any:
            watched = _Logged(Call(model_name, model_version, logger), names, arguments, keywords)
            try:
                answer = handler(*arguments, **keywords)
            except BaseException as error:
                watched.log(error)
                raise
            if inspect.isawaitable(answer):
                # Of an `async def` below another decorator: frameworks look through that, or do not, and so they do with this one.
                return watched.awaited(answer)
            watched.outputs = answer
            watched.log(None)
            return answer

        # By its kind frameworks choose whether they call it in a thread.
        wrapper = cast(Handler, logged if _is_async(handler) else logged_sync)
        _evaluate(wrapper, handler)
        return wrapper

    return decorate


def _is_async(handler: Callable[..., Any]) -> bool:
    """Whether it is an `async def`, or an object that is called by one."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    called = None if inspect.isclass(handler) else getattr(handler, "__call__", None)
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)


def _evaluate(wrapper: Callable[..., Any], handler: Callable[..., Any]) -> None:
    """Annotations that are texts: FastAPI up to 0.123.0 would look for their names in this module."""
    try:
        setattr(wrapper, "__signature__", inspect.signature(handler, eval_str=True))
    except Exception:
        pass  # Of what only type checkers import, or of a class that comes later: left to the framework.


def _names(handler: Callable[..., Any]) -> list[str]:
    """Those of the arguments that may be given without one."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return []
    return [parameter.name for parameter in parameters if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)]


def _is_of_method(name: str, names: list[str]) -> bool:
    """Whether it is the object that a method is of: it is no input."""
    return name in ("self", "cls") and names[0] == name


class _Logged:
    """A handler's call: logged as it is left, whichever way."""

    def __init__(self, call: Call, names: list[str], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.call = call
        self.arguments = {name: value for name, value in zip(names, arguments) if not _is_of_method(name, names)}
        self.arguments.update((str(at), value) for at, value in enumerate(arguments) if at >= len(names))
        self.arguments.update(keywords)
        self.outputs: Any = None

    def __enter__(self) -> _Logged:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.log(error)

    async def awaited(self, answer: Awaitable[Any]) -> Any:
        """The answer, which is logged then."""
        with self:
            self.outputs = await answer
        return self.outputs

    def log(self, error: BaseException | None) -> None:
        self.call.stop()
        try:
            self._log(error)
        except Exception:
            tell_once()  # Properties of the handler's own values may raise anything: its answer is not to be lost for that.

    def _log(self, error: BaseException | None) -> None:
        outputs, status = self.outputs, self._status()
        if error is not None:
            status = getattr(error, "status_code", 500)
        elif _is_of_framework(outputs) and hasattr(outputs, "status_code"):
            # A response: its body, where there is one already.
            status, outputs = outputs.status_code, _json(getattr(outputs, "body", b""), outputs.headers)
        elif inspect.isgenerator(outputs) or inspect.isasyncgen(outputs):
            outputs = None
        self.call.log(self._inputs(), outputs, status_code=status, error=error)

    def _status(self) -> int:
        """What the handler has set in the response that it was given, if it was."""
        given = (getattr(value, "status_code", None) for value in self.arguments.values() if _is_of_framework(value))
        return next((status for status in given if isinstance(status, int)), 200)

    def _inputs(self) -> Any:
        named = {name: value for name, value in self.arguments.items() if not _is_of_framework(value)}
        if not named:
            # Starlette's request keeps what was read of it.
            bodies = (_json(value._body, value.headers) for value in self.arguments.values() if isinstance(getattr(value, "_body", None), bytes))
            return next(bodies, None)
        values = list(named.values())
        return values[0] if len(values) == 1 and _is_object(values[0]) else named


def _json(body: Any, headers: Mapping[str, str]) -> Any:
    """A body of a request or a response; None where it is too large or none of JSON."""
    is_json = "json" in headers.get("content-type", "").lower() and len(body) <= MAX_BODY_BYTES
    return as_json(body, headers.get("content-encoding", "")) if is_json else None


def _is_of_framework(value: Any) -> bool:
    """A request, a response, background tasks, a file: they are no values."""
    kind: Any = type(value)
    return _is_class_of_framework(kind)


@functools.lru_cache(maxsize=256)
def _is_class_of_framework(kind: Any) -> bool:
    return any(base.__module__.partition(".")[0] in ("starlette", "fastapi") for base in kind.__mro__)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "__dict__") and not isinstance(value, enum.Enum)


def prediction_log(*, model_name: str, model_version: str | None = None, logger: Logger | None = None) -> Callable[[], Call]:
    """A dependency: `log: Annotated[predlog.asgi.Call, Depends(prediction_log(model_name="wine"))]`, and then
    `log.log(inputs, outputs, status_code=200)`. Its latency counts from when the dependency was made.
    """
    return lambda: Call(model_name, model_version, logger)
