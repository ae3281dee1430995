"""Flask: `PredictionLog(app, routes={"/predict": "wine"})`, or `@log_predictions(model_name="wine")` on a view."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flask
from werkzeug.exceptions import HTTPException

from ._capture import MAX_BODY_BYTES, Call, as_json

if TYPE_CHECKING:
    from . import Logger


class PredictionLog:
    """Logs each request of the chosen routes: JSON in, JSON out, status, exception, latency.

    `routes` maps URL rules, as they are given to `@app.route`, to model names. Without `logger` it is the default one (`predlog.init`).
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
        rule = flask.request.url_rule
        model_name = self.routes.get(rule.rule) if rule is not None else None
        if model_name is not None:
            flask.g._predlog = Call(model_name, self.model_version, self.logger)

    def _finish(self, response: flask.Response) -> flask.Response:
        call = flask.g.pop("_predlog", None)
        if call is not None:
            _log(call, response, flask.g.pop("_predlog_error", None))
        return response

    def _fail(self, error: BaseException | None) -> None:
        # Where exceptions go through to the server there is no response.
        call = flask.g.pop("_predlog", None)
        if call is not None:
            call.log(_inputs(), None, status_code=500, error=error, **_fields())


def log_predictions(
    *, model_name: str, model_version: str | None = None, logger: Logger | None = None
) -> Callable[[Callable[..., Any]], Callable[..., flask.Response]]:
    """Logs each call of a view. It stands below `@app.route`."""

    def decorate(view: Callable[..., Any]) -> Callable[..., flask.Response]:
        @functools.wraps(view)
        def logged(*arguments: Any, **keywords: Any) -> flask.Response:
            call = Call(model_name, model_version, logger)
            try:
                response = flask.make_response(flask.current_app.ensure_sync(view)(*arguments, **keywords))
            except Exception as error:
                status = error.code if isinstance(error, HTTPException) and error.code else 500
                call.log(_inputs(), None, status_code=status, error=error, **_fields())
                raise
            _log(call, response, None)
            return response

        return logged

    return decorate


def _remember(_app: flask.Flask, exception: BaseException, **_: Any) -> None:
    flask.g._predlog_error = exception


def _log(call: Call, response: flask.Response, error: BaseException | None) -> None:
    outputs = None
    # A stream is not read: it is the client's.
    if "json" in response.headers.get("Content-Type", "") and not response.is_streamed and not response.direct_passthrough:
        body = response.get_data()
        outputs = as_json(body) if len(body) <= MAX_BODY_BYTES else None
    call.log(_inputs(), outputs, status_code=response.status_code, error=error, **_fields())


def _inputs() -> Any:
    # Of the proxy each use would look for it again; and werkzeug's properties parse what is only looked at here.
    request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
    if "json" in request.environ.get("CONTENT_TYPE", "").lower():
        # The view has most often read it already, and Flask keeps that.
        return as_json(request.get_data()) if (request.content_length or 0) <= MAX_BODY_BYTES else None
    return request.args.to_dict() or None


def _fields() -> dict[str, Any]:
    environ = flask.request.environ
    return {"request_id": environ.get("HTTP_X_REQUEST_ID"), "traceparent": environ.get("HTTP_TRACEPARENT")}
