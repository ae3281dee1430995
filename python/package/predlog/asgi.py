"""FastAPI, Starlette and any other ASGI server: a middleware that never touches the response, and a decorator for handlers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import default
from ._capture import MAX_BODY_BYTES, Call, as_json

if TYPE_CHECKING:
    from . import Logger

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
#: The longest that a server's stop waits until all is delivered; the rest is in the directory for the next start.
FLUSH_SECONDS = 5.0

Handler = TypeVar("Handler", bound=Callable[..., Any])


class PredictionLogMiddleware:
    """Logs each request of the chosen routes: JSON in, JSON out, status, exception, latency.

    `routes` maps paths, or FastAPI's path templates such as "/models/{name}", to model names. Messages pass unchanged, each at once; a stream stays
    one. Bodies above 1 MiB and those that are not JSON are not kept. Without `logger` it is the default one (`predlog.init`).
    """

    def __init__(
        self, app: App, *, routes: Mapping[str, str], model_version: str | None = None, logger: Logger | None = None
    ) -> None:
        self.app = app
        self.routes = dict(routes)
        self.templates = any("{" in route for route in routes)
        self.model_version = model_version
        self.logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._at_the_end(send))
            return
        if scope["type"] != "http" or not (self.templates or scope["path"] in self.routes):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        call = Call("", self.model_version, self.logger)
        error: BaseException | None = None
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            model_name = self._model_name(scope)
            if model_name is not None:
                call.model_name = model_name
                exchange.log(call, error)

    def _at_the_end(self, send: Send) -> Send:
        async def delivering(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                # uvicorn ends by the signal that it got, so that Python's atexit does not run. No request waits for this any more.
                (self.logger or default()).flush(FLUSH_SECONDS)
            await send(message)

        return delivering

    def _model_name(self, scope: Scope) -> str | None:
        if scope["path"] in self.routes:
            return self.routes[scope["path"]]
        template = getattr(scope.get("route"), "path", None)
        return self.routes.get(template) if template else None


class _Body:
    """A JSON body as it passes; None once it is too large."""

    def __init__(self) -> None:
        self.parts: list[bytes] | None = []
        self.size = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size > MAX_BODY_BYTES:
            self.parts = None
        elif self.parts is not None and part:
            self.parts.append(part)

    def as_json(self) -> Any:
        return None if self.parts is None else as_json(b"".join(self.parts))


class _Exchange:
    """One request and its response, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.headers = dict(scope["headers"])
        self.request = _Body()
        self.response = _Body()
        self.status_code: int | None = None
        self.is_json = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.request.add(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.start":
            self.status_code = message["status"]
            self.is_json = any(b"json" in value for name, value in message.get("headers", ()) if name.lower() == b"content-type")
        elif message["type"] == "http.response.body" and self.is_json:
            self.response.add(message.get("body", b""))

    def log(self, call: Call, error: BaseException | None) -> None:
        status_code = 500 if self.status_code is None and error is not None else self.status_code
        outputs = self.response.as_json() if self.is_json else None
        fields = {"request_id": self._header(b"x-request-id"), "traceparent": self._header(b"traceparent")}
        call.log(self.request.as_json(), outputs, status_code=status_code, error=error, **fields)

    def _header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


def log_predictions(*, model_name: str, model_version: str | None = None, logger: Logger | None = None) -> Callable[[Handler], Handler]:
    """Logs each call of a handler, async or not: its arguments as inputs, what it returns as outputs. It stands below `@app.post`."""

    def decorate(handler: Handler) -> Handler:
        if inspect.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def logged(*arguments: Any, **keywords: Any) -> Any:
                with _Logged(Call(model_name, model_version, logger), arguments, keywords) as watched:
                    watched.outputs = await handler(*arguments, **keywords)
                return watched.outputs

            return cast(Handler, logged)

        @functools.wraps(handler)
        def logged_sync(*arguments: Any, **keywords: Any) -> Any:
            with _Logged(Call(model_name, model_version, logger), arguments, keywords) as watched:
                watched.outputs = handler(*arguments, **keywords)
            return watched.outputs

        return cast(Handler, logged_sync)

    return decorate


class _Logged:
    """A handler's call: logged as it is left, whichever way."""

    def __init__(self, call: Call, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.call = call
        # The framework's own objects (a Request) are no inputs.
        values = [value for value in (*arguments, *keywords.values()) if not hasattr(value, "scope")]
        self.inputs = values[0] if len(values) == 1 and _is_object(values[0]) else keywords or values
        self.outputs: Any = None

    def __enter__(self) -> _Logged:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        status = 200 if error is None else getattr(error, "status_code", 500)
        self.call.log(self.inputs, self.outputs, status_code=status, error=error)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "__dict__")


def prediction_log(*, model_name: str, model_version: str | None = None, logger: Logger | None = None) -> Callable[[], Call]:
    """A dependency: `log: Annotated[predlog.asgi.Call, Depends(prediction_log(model_name="wine"))]`, and then
    `log.log(inputs, outputs, status_code=200)`. Its latency counts from when the dependency was made.
    """
    return lambda: Call(model_name, model_version, logger)
