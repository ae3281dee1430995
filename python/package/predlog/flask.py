"""Flask: `PredictionLog(app, routes={"/predict": "wine"})`, or `@log_predictions(model_name="wine")` on a view."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ._capture import NOT_LOGGED, default, tell_once, text_of
from ._native import log_wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from . import Logger

Arguments = ParamSpec("Arguments")
#: Of a request's environment: the text of the exception that nobody has handled.
_ERROR = "predlog.error"


class PredictionLog:
    """Logs each request of the chosen routes: JSON in, JSON out, status, exception, latency.

    `routes` maps URL rules, as they are given to `@app.route` (behind a blueprint's prefix), to model names. Without a JSON body the query is the inputs.
    Bodies above 1 MiB, those that are not JSON, and streams are not kept; of a body that the view has not read it is what the client has sent by then. gzip is
    unpacked. HEAD and OPTIONS are not logged. Without `logger` it is the default one (`predlog.init`).
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
        # Of a request's environment: when it came to the application, until it is logged. Others of the same application have their own.
        self._start = f"predlog.start.{id(self)}"
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Watches the routes of `app`."""
        app.extensions["predlog"] = self
        app.wsgi_app = _timed(app.wsgi_app, self._start)  # type: ignore[method-assign, assignment]
        app.after_request(self._finish)
        app.teardown_request(self._fail)
        flask.got_request_exception.connect(_remember, app)

    def _finish(self, response: flask.Response) -> flask.Response:
        request = _request()
        self._log(request, response, request.environ.get(_ERROR))
        return response

    def _fail(self, error: BaseException | None) -> None:
        # Where exceptions go through to the server there is no response, nor is one seen where another function after the request fails.
        request = _request()
        self._log(request, None, request.environ.get(_ERROR) if error is None else text_of(error))

    def _log(self, request: flask.Request, response: flask.Response | None, error: str | None) -> None:
        rule = request.url_rule
        model_name = self.routes.get(rule.rule) if rule is not None else None
        if model_name is None or request.method in NOT_LOGGED:
            return
        start = request.environ.pop(self._start, None)
        if start is not None:
            _log(self.logger, model_name, self.model_version, start, request, response, 500, error)


def _timed(wsgi_app: WSGIApplication, name: str) -> WSGIApplication:
    """Tells when a request came: a function of Flask's before the request would do so at several times the cost, and after others."""

    def timed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[name] = time.perf_counter()
        return wsgi_app(environ, start_response)

    return timed


def log_predictions(
    *, model_name: str, model_version: str | None = None, logger: Logger | None = None
) -> Callable[[Callable[Arguments, Any]], Callable[Arguments, flask.Response]]:
    """Logs each call of a view, but for HEAD and OPTIONS. It stands below `@app.route`."""

    def decorate(view: Callable[Arguments, Any]) -> Callable[Arguments, flask.Response]:
        @functools.wraps(view)
        def logged(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> flask.Response:
            start, request = time.perf_counter(), _request()

            def log(response: Response | None, status_code: int | None = None, error: str | None = None) -> None:
                if request.method not in NOT_LOGGED:
                    _log(logger, model_name, model_version, start, request, response, status_code, error)

            try:
                response = flask.make_response(flask.current_app.ensure_sync(view)(*arguments, **keywords))
            except Exception as error:
                if isinstance(error, HTTPException) and isinstance(error.response, Response):
                    log(error.response)  # Of `abort(response)`: an answer as any other.
                else:
                    log(None, error.code if isinstance(error, HTTPException) and error.code else 500, text_of(error))
                raise
            log(response)
            return response

        return logged

    return decorate


def _remember(_app: flask.Flask, exception: BaseException, **_: Any) -> None:
    # Its text, as the exception itself holds the environment.
    _request().environ[_ERROR] = text_of(exception)


def _request() -> flask.Request:
    # Of the proxy each use would look for it again.
    return flask.request._get_current_object()  # type: ignore[attr-defined, no-any-return]


def _log(
    logger: Logger | None,
    model_name: str,
    model_version: str | None,
    start: float,
    request: flask.Request,
    response: Response | None,
    status_code: int | None,
    error: str | None,
) -> None:
    latency_ms = (time.perf_counter() - start) * 1e3
    logger = logger or default()
    if logger is None:
        return
    try:
        log_wsgi(logger, model_name, model_version, request, response, status_code=status_code, error=error, latency_ms=latency_ms)
    except Exception:
        tell_once()  # Requests and responses may be of classes of the application's own: no answer is lost for what theirs raise.
