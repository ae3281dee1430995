"""What requests and responses can be in Flask, beside JSON in and JSON out: the extension never changes them, and never fails them."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from conftest import Store, flask_app, shown
from fastapi import FastAPI
from fastapi.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import predlog
from predlog import asgi
from predlog.flask import PredictionLog, log_predictions

JSON = {"content-type": "application/json"}


def test_a_response_that_a_flask_view_aborts_with(store: Store) -> None:
    app = flask.Flask("test")
    with store.logger() as logger:

        @app.get("/predict")
        @log_predictions(model_name="m", logger=logger)
        def predict() -> Any:
            flask.abort(flask.make_response(flask.jsonify(e=1), 418))

        assert app.test_client().get("/predict").status_code == 418
    assert [shown(row) for row in store.rows()] == [("m", None, {"e": 1}, 418, None)]


def test_flask_bodies(store: Store) -> None:
    with store.logger() as logger:
        app = flask_app(logger, predict="m")

        @app.route("/predict", methods=["GET", "POST"])
        def predict() -> Any:
            return {"read": len(flask.request.get_data())}

        client = app.test_client()
        body = json.dumps({"a": 1}).encode()
        assert client.post("/predict", data=body, content_type="application/json; charset=utf-8").json == {"read": len(body)}
        client.post("/predict", data=b"{broken", headers=JSON)
        client.post("/predict", data=gzip.compress(body), headers={**JSON, "content-encoding": "gzip"})
        client.post("/predict", data=b'"' + b"x" * 2_000_000 + b'"', headers=JSON)
        client.post("/predict", data={"a": "1"})
        client.get("/predict?a=1")
        assert client.head("/predict").status_code == client.options("/predict").status_code == 200
    assert [row["inputs"] for row in store.rows()] == [{"a": 1}, "{broken", {"a": 1}, None, None, {"a": "1"}]


def test_flask_edges(store: Store) -> None:
    with store.logger() as logger:
        app = flask_app(logger, v1__predict="blueprint", large="large", stream="stream", teardown="teardown", packed="packed")
        blueprint = flask.Blueprint("v1", __name__, url_prefix="/v1")

        @blueprint.post("/predict")
        def predict() -> Any:
            flask.abort(409, "busy")

        @app.post("/large")
        def large() -> Any:
            return {"size": len(flask.request.get_json())}

        @app.get("/stream")
        def stream() -> Any:
            def parts() -> Iterator[str]:
                yield "1"
                raise RuntimeError("midway")

            return flask.Response(flask.stream_with_context(parts()), mimetype="application/json")

        @app.get("/teardown")
        def teardown() -> Any:
            @flask.after_this_request
            def later(response: Any) -> Any:
                return response

            return [1]

        @app.get("/packed")
        def packed() -> Any:
            response = flask.jsonify(x=1)
            response.set_data(gzip.compress(response.get_data()))
            response.headers["Content-Encoding"] = "gzip"
            return response

        @app.teardown_request
        def fails(_error: BaseException | None) -> None:
            if flask.request.path == "/teardown":
                raise RuntimeError("teardown")

        app.register_blueprint(blueprint)
        app.config["MAX_CONTENT_LENGTH"] = 100
        client = app.test_client()
        assert client.post("/v1/predict", json={"a": 1}).status_code == 409
        assert client.post("/large", json="x" * 1_000).status_code == 413
        with pytest.raises(RuntimeError, match="midway"):
            _ = client.get("/stream").data
        with pytest.raises(RuntimeError, match="teardown"):
            client.get("/teardown")
        assert client.get("/packed").headers["Content-Encoding"] == "gzip"
    assert [shown(row) for row in store.rows()] == [
        ("blueprint", {"a": 1}, None, 409, None),
        ("large", None, None, 413, None),
        ("stream", None, None, 200, None),
        ("teardown", None, [1], 200, None),
        ("packed", None, {"x": 1}, 200, None),
    ]


@pytest.mark.parametrize("dispatcher_within", [False, True])
def test_flask_applications_that_share_a_server_log_their_own_requests(store: Store, dispatcher_within: bool) -> None:
    with store.logger() as logger:
        outer, unwatched, inner = flask.Flask("outer"), flask.Flask("unwatched"), flask_app(logger, predict="inner")
        for app in (outer, unwatched, inner):
            app.add_url_rule("/predict", view_func=lambda app=app: {"app": app.name})

        def dispatch() -> None:
            outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner, "/unwatched": unwatched})  # type: ignore[method-assign]

        if dispatcher_within:
            dispatch()
        PredictionLog(outer, routes={"/predict": "outer"}, logger=logger)
        if not dispatcher_within:
            dispatch()
        client = outer.test_client()
        for path, name in (("/predict", "outer"), ("/inner/predict", "test"), ("/unwatched/predict", "unwatched")):
            assert client.get(path).json == {"app": name}
    assert [shown(row) for row in store.rows()] == [("outer", None, {"app": "outer"}, 200, None), ("inner", None, {"app": "test"}, 200, None)]


def test_flask_routes_of_two_extensions(store: Store) -> None:
    with store.logger() as logger:
        app = flask.Flask("test")
        for name in ("one", "two"):
            PredictionLog(app, routes={f"/{name}": name}, model_version=f"of {name}", logger=logger)
            app.add_url_rule(f"/{name}", name, lambda name=name: 1 / 0 if flask.request.args else {"name": name})
        client = app.test_client()
        for path in ("/one", "/two"):
            assert client.get(path).status_code == 200
            assert client.get(f"{path}?fail=1").status_code == 500
    error = "ZeroDivisionError: division by zero"
    assert [(row["model_version"], *shown(row)) for row in store.rows()] == [
        ("of one", "one", None, {"name": "one"}, 200, None),
        ("of one", "one", {"fail": "1"}, None, 500, error),
        ("of two", "two", None, {"name": "two"}, 200, None),
        ("of two", "two", {"fail": "1"}, None, 500, error),
    ]


def test_what_flask_gives_up_on_is_logged_once(store: Store) -> None:
    with store.logger() as logger:
        app, copying = flask_app(logger, exits="exits", fails="fails"), flask.Flask("copying")
        wsgi_app = copying.wsgi_app
        copying.wsgi_app = lambda environ, start_response: wsgi_app({**environ}, start_response)  # type: ignore[method-assign]
        PredictionLog(copying, routes={"/copied": "copied"}, logger=logger)

        @app.get("/exits")
        def exits() -> Any:
            raise SystemExit(3)

        @copying.get("/copied")
        def copied() -> Any:
            raise ValueError("through to the server")

        @app.get("/fails")
        def fails() -> Any:
            return {"answer": 1}

        @app.after_request
        def _fails_later(response: flask.Response) -> flask.Response:
            if flask.request.path == "/fails":
                raise RuntimeError("after the request")
            return response

        client = app.test_client()
        with pytest.raises(SystemExit):
            client.get("/exits")
        assert client.get("/fails").status_code == 500
        copying.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(ValueError, match="through"):
            copying.test_client().get("/copied")
    assert [shown(row) for row in store.rows()] == [
        ("exits", None, None, 500, "SystemExit: 3"),
        ("fails", None, None, 500, "RuntimeError: after the request"),
        ("copied", None, None, 500, "ValueError: through to the server"),
    ]


def test_a_wrong_configuration_fails_no_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    predlog.close()
    monkeypatch.setenv("PREDLOG_DIRECT__STORE", "nonsense")
    app = flask_app(None, predict="m")
    app.add_url_rule("/predict", view_func=lambda: {"a": 1})
    with caplog.at_level(logging.ERROR, "predlog"):
        assert app.test_client().get("/predict").json == {"a": 1}
    assert "PREDLOG_DIRECT__STORE" in caplog.text or "nonsense" in caplog.text
    with TestClient(asgi.PredictionLogMiddleware(FastAPI(), routes={"/docs": "m"})) as client:
        assert client.get("/docs").status_code == 200
