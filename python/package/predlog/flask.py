"""Flask: `PredictionLog(app, routes={"/predict": "wine"})`, or `@log_predictions(model_name="wine")` on a view."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flask
from werkzeug.exceptions import HTTPException

from ._capture import MAX_BODY_BYTES, NOT_LOGGED, Call, as_json, parameters

if TYPE_CHECKING:
    from . import Logger

#: Of a request's environment: its call, and the exception that nobody has handled.
_CALL, _ERROR = "predlog.call", "predlog.error"


class PredictionLog:
    """Logs each request of the chosen routes: JSON in, JSON out, status, exception, latency.

    `routes` maps URL rules, as they are given to `@app.route` (behind a blueprint's prefix), to model names. Without a JSON body the query is the inputs.
    Bodies above 1 MiB, those that are not JSON, and streams are not kept; gzip is unpacked. HEAD and OPTIONS are not logged. Without `logger` it is the default
    one (`predlog.init`).
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        routes: Mapping[str, str] | None = None,
        model_version: str | None = None,
        logger: Logger | None = None,
    ) -> None:
        self.routes = dict(routes or {})
        self.model_version = model_version
        self.logger = logger
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Watches the routes of `app`."""
        app.extensions["predlog"] = self
        app.before_request(self._start)
        app.after_request(self._finish)
        app.teardown_request(self._fail)
        flask.got_request_exception.connect(_remember, app)

    def _start(self) -> None:
        request = _request()
        rule = request.url_rule
        model_name = self.routes.get(rule.rule) if rule is not None else None
        if model_name is not None and request.method not in NOT_LOGGED:
            # A plain dict that lives as long as the request: `flask.g` is looked for at each use.
            request.environ[_CALL] = Call(model_name, self.model_version, self.logger)

    def _finish(self, response: flask.Response) -> flask.Response:
        request = _request()
        call = request.environ.pop(_CALL, None)
        if call is not None:
            _log(call, request, response, request.environ.pop(_ERROR, None))
        return response

    def _fail(self, error: BaseException | None) -> None:
        # Where exceptions go through to the server there is no response.
        request = _request()
        call, _ = request.environ.pop(_CALL, None), request.environ.pop(_ERROR, None)
        if call is not None:
            call.log(_inputs(request), None, status_code=500, error=error, **_fields(request))


def log_predictions(
    *, model_name: str, model_version: str | None = None, logger: Logger | None = None
) -> Callable[[Callable[..., Any]], Callable[..., flask.Response]]:
    """Logs each call of a view. It stands below `@app.route`."""

    def decorate(view: Callable[..., Any]) -> Callable[..., flask.Response]:
        @functools.wraps(view)
        def logged(*arguments: Any, **keywords: Any) -> flask.Response:
            call, request = Call(model_name, model_version, logger), _request()
            try:
                response = flask.make_response(flask.current_app.ensure_sync(view)(*arguments, **keywords))
            except Exception as error:
                if isinstance(error, HTTPException) and isinstance(error.response, flask.Response):
                    _log(call, request, error.response, None)  # Of `abort(response)`: an answer as any other.
                    raise
                status = error.code if isinstance(error, HTTPException) and error.code else 500
                call.log(_inputs(request), None, status_code=status, error=error, **_fields(request))
                raise
            _log(call, request, response, None)
            return response

        return logged

    return decorate


def _remember(_app: flask.Flask, exception: BaseException, **_: Any) -> None:
    _request().environ[_ERROR] = exception


def _log(call: Call, request: flask.Request, response: flask.Response, error: BaseException | None) -> None:
    outputs = None
    headers = response.headers
    # A stream is not read: it is the client's.
    if "json" in headers.get("Content-Type", "").lower() and not response.is_streamed and not response.direct_passthrough:
        body = response.get_data()
        outputs = as_json(body, headers.get("Content-Encoding", "")) if len(body) <= MAX_BODY_BYTES else None
    call.log(_inputs(request), outputs, status_code=response.status_code, error=error, **_fields(request))


def _request() -> flask.Request:
    # Of the proxy each use would look for it again.
    return flask.request._get_current_object()  # type: ignore[attr-defined, no-any-return]


def _inputs(request: flask.Request) -> Any:
    # werkzeug's properties parse what is only looked at here.
    environ = request.environ
    if "json" in environ.get("CONTENT_TYPE", "").lower():
        try:
            # The view has most often read it already, and Flask keeps that.
            body = request.get_data() if (request.content_length or 0) <= MAX_BODY_BYTES else b""
        except HTTPException:
            body = b""  # Larger than Flask takes, or the client has gone.
        if body:
            return as_json(body, environ.get("HTTP_CONTENT_ENCODING", "")) if len(body) <= MAX_BODY_BYTES else None
    return parameters(request.args.lists()) if environ.get("QUERY_STRING") else None


def _fields(request: flask.Request) -> dict[str, Any]:
    environ = request.environ
    return {"request_id": environ.get("HTTP_X_REQUEST_ID"), "traceparent": environ.get("HTTP_TRACEPARENT")}
